# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import csv
import json

import numpy as np
import pytest

from diffusers_vilearn.metrics.score_files import ScoreFile, check_comparable, read_scores, write_scores
from diffusers_vilearn.metrics.summary import (
    best_median_worst,
    bootstrap_interval,
    markdown_table,
    paired_differences,
    summarise,
    write_summary,
)


def rows(**values) -> dict:
    """One view of an object each, by uid."""
    return {(uid, 0): {"iou": value} for uid, value in values.items()}


def test_bootstrap_interval_covers_the_mean_and_shrinks():
    values = np.random.default_rng(0).normal(1.0, 1.0, 400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_bootstrap_of_many_values_goes_in_parts():
    values = np.random.default_rng(1).exponential(size=4000)
    low, high = bootstrap_interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 4000**0.5, rel=0.05) and low < values.mean() < high


def test_paired_differences_use_common_views_only():
    ours, theirs = rows(a=0.5, b=0.7, c=0.9), rows(a=0.4, b=0.6)
    difference = paired_differences(ours, theirs)["iou"]
    assert difference["mean"] == pytest.approx(0.1) and difference["n"] == 2
    np.testing.assert_allclose(difference["interval"], 0.1)
    assert summarise(ours)["iou"]["median"] == pytest.approx(0.7)
    assert paired_differences(ours, rows(d=1.0)) == {}
    # One object says nothing of others.
    assert paired_differences(ours, rows(a=0.4))["iou"] == {"mean": pytest.approx(0.1), "n": 1}


def test_views_of_an_object_count_as_one():
    views = {("a", view): {"iou": value} for view, value in enumerate((0.0, 0.2, 0.4))} | rows(b=0.8)
    summary = summarise(views)["iou"]
    assert summary["n"] == 2 and summary["mean"] == pytest.approx(0.5)
    repeated = {(uid, view): {"iou": value} for uid, value in zip("abcd", (0, 0, 1, 1)) for view in range(50)}
    once = rows(a=0, b=0, c=1, d=1)
    assert summarise(repeated)["iou"]["interval"] == summarise(once)["iou"]["interval"]


def test_a_view_without_a_metric_is_left_out_of_it():
    scores = rows(a=0.5, b=0.7)
    scores["b", 0]["invisible_recall@0.05"] = 0.3
    summary = summarise(scores)
    assert summary["iou"]["n"] == 2
    assert summary["invisible_recall@0.05"]["n"] == 1 and summary["invisible_recall@0.05"]["mean"] == 0.3
    assert list(paired_differences(scores, rows(a=0.1, b=0.1))) == ["iou"]


def test_best_median_and_worst_know_which_way_is_better():
    uids = "abcdefg"
    scores = {(uid, 0): {"iou": float(i), "chamfer": float(i)} for i, uid in enumerate(uids)}

    def ranked(metric, count):
        return {
            place: "".join(uid for uid, _ in keys) for place, keys in best_median_worst(scores, metric, count).items()
        }

    assert ranked("iou", 2) == {"best": "gf", "median": "ed", "worst": "ba"}
    assert ranked("chamfer", 1) == {"best": "a", "median": "d", "worst": "g"}
    assert ranked("iou", 9) == {"best": "gfe", "median": "dc", "worst": "ba"}, "no view comes twice"
    scores = {key: scores[key] for key in list(scores)[:2]}
    assert ranked("iou", 3) == {"best": "b", "median": "", "worst": "a"}
    with pytest.raises(ValueError, match=r"one of \['iou', 'chamfer'\]"):
        ranked("psnr", 1)


def test_tables_say_the_same(tmp_path):
    write_scores(tmp_path / "generation.jsonl", rows(a=0.5, b=0.7, c=0.9))
    write_scores(tmp_path / "other.jsonl", rows(a=0.25, b=0.25, c=0.25))
    # Of the same views, but with no metric that the others have.
    write_scores(tmp_path / "foreign.jsonl", {("a", 0): {"mine": 1.0}})
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "generation.json").write_text('{"normal_fd": {"mean": 12.5, "n": 3, "views": 6}}')
    text = write_summary(tmp_path, ["generation"])
    assert text == (tmp_path / "summary.md").read_text()
    assert "| | foreign | generation | other |" in text and "| normal_fd ↓ |  | 12.5, of 6 views |  |" in text
    assert "| iou ↑ |  | 0.7 [" in text
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["scores"]["generation"]["normal_fd"]["mean"] == 12.5
    assert summary["differences"]["generation"]["other"]["iou"]["mean"] == pytest.approx(0.45)
    with open(tmp_path / "summary.csv") as file:
        lines = {(line["method"], line["metric"]): line for line in csv.DictReader(file)}
    assert float(lines["generation", "iou"]["mean"]) == summary["scores"]["generation"]["iou"]["mean"]
    assert float(lines["other", "iou"]["high"]) == 0.25 and lines["generation", "normal_fd"]["low"] == ""
    with pytest.raises(ValueError, match="not of \\['nothing'\\]"):
        write_summary(tmp_path, ["nothing"])


def test_what_is_no_number_is_no_score(tmp_path):
    write_scores(tmp_path / "foreign.jsonl", rows(x=0.5, y=float("nan")))
    with pytest.raises(ValueError, match="foreign scores nan in iou on view 0 of y; a score is a finite number"):
        write_summary(tmp_path, [])


def test_columns_of_different_methods_stand_in_one_table():
    value = {"mean": 0.5, "interval": (0.4, 0.6), "n": 7}
    second = {"is_as": value, "iou": value, "area_behind": value}
    table = markdown_table({"first": {"iou": value}, "second": second})
    assert table.splitlines()[2:] == [
        "| objects | 7 | 7 |",
        "| iou ↑ | 0.5 [0.4, 0.6] | 0.5 [0.4, 0.6] |",
        "| is_as ↑ |  | 0.5 [0.4, 0.6] |",
        "| area_behind |  | 0.5 [0.4, 0.6] |",
    ]


def test_methods_that_were_measured_differently_do_not_join_one_table(tmp_path):
    known = {"a": {"resolution": 128, "seed": 0}, "b": {"resolution": 128, "seed": 1}, "c": None}
    for method, settings in known.items():
        write_scores(tmp_path / f"{method}.jsonl", rows(x=0.5, y=0.75))
        if settings:
            ScoreFile(tmp_path, method).settings_path.parent.mkdir(exist_ok=True)
            ScoreFile(tmp_path, method).settings_path.write_text(json.dumps(settings))
    assert "| objects | 2 | 2 | 2 |" in write_summary(tmp_path, [])
    (tmp_path / "settings/b.json").write_text(json.dumps({"resolution": 32, "seed": 0}))
    with pytest.raises(ValueError, match="`resolution` is 128 for a and 32 for b"):
        write_summary(tmp_path, [])
    (tmp_path / "settings/new.json").write_text(json.dumps({"resolution": 64}))
    (tmp_path / "b.jsonl").unlink()
    check_comparable(tmp_path)
    with pytest.raises(ValueError, match="`resolution` is 128 for a and 64 for new"):
        check_comparable(tmp_path, ["new"])


def test_parts_of_processes_are_joined_and_scores_of_other_settings_refused(tmp_path):
    # A name that a pattern would read otherwise.
    files = [ScoreFile(tmp_path, "lr[1e-4].generation", rank) for rank in range(3)]
    files[0].check_settings({"steps": 25, "thresholds": (0.02, 0.05)})
    for rank, uid in ((0, "c"), (2, "a"), (1, "b"), (2, "d")):
        files[rank].append(uid, 0, {"iou": 0.1 * rank})
    assert set(files[0].read()) == {("c", 0)}
    files[0].join()
    assert list(read_scores(tmp_path / "lr[1e-4].generation.jsonl")) == [("a", 0), ("b", 0), ("c", 0), ("d", 0)]
    assert files[1].read()["a", 0] == {"iou": 0.2}
    assert not list(tmp_path.glob("*rank*"))

    again = ScoreFile(tmp_path, "lr[1e-4].generation")
    again.check_settings({"steps": 25, "thresholds": (0.02, 0.05)})
    with pytest.raises(ValueError, match="other settings, which differ in seed, steps"):
        again.check_settings({"steps": 10, "thresholds": (0.02, 0.05), "seed": 0})
    again.path.unlink()
    again.check_settings({"steps": 10})
