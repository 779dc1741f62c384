# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The convergence experiment: arms that differ in what they should, known speed-ups, and a grid from end to end."""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.data.shards import read_parquet, write_shard
from diffusers_vilearn.metrics.score_files import read_scores
from diffusers_vilearn.training.samples import LatentSamples, SampleOptions

ROOT = Path(__file__).parents[2]
CONVERGENCE = ROOT / "benchmarks/convergence"
sys.path.insert(0, str(CONVERGENCE))

import run as runner  # noqa: E402
from grid import Latents, list_runs, read_grid  # noqa: E402
from masks import derive_table, shuffled_tokens  # noqa: E402
from report import write_report  # noqa: E402
from results import METRICS, Measured, collect, join, read_numbers, write_numbers  # noqa: E402
from samples import Truths  # noqa: E402
from score import main as score  # noqa: E402
from speedup import Curve, mean_with_interval, speed_up, speed_up_with_interval  # noqa: E402
from tasks import is_scored, list_tasks  # noqa: E402
from told_apart import label_sums, measure, places_visible_first, share_if_known, share_if_unknown  # noqa: E402

STEPS = np.array([100, 200, 400, 800])


def curve(values, higher_is_better=True) -> Curve:
    return Curve.fit(STEPS, values, higher_is_better)


def test_an_arm_that_is_twice_as_fast_has_speed_up_two():
    slow, fast = np.log(STEPS), np.log(2 * STEPS)
    assert speed_up(curve(slow), curve(fast)) == pytest.approx(2)
    assert speed_up(curve(fast), curve(slow)) == pytest.approx(0.5)
    assert speed_up(curve(slow), curve(slow)) == pytest.approx(1)
    # Of a distance, less is better.
    assert speed_up(curve(-slow, False), curve(-fast, False)) == pytest.approx(2)


def test_a_level_is_reached_between_two_measurements():
    assert curve([0, 1, 2, 3]).steps_to(1.5) == pytest.approx(200 * 2**0.5)
    assert curve([0, 1, 2, 3]).steps_to(-1) == 100
    with pytest.raises(ValueError, match="ends at 3"):
        curve([0, 1, 2, 3]).steps_to(3.1)


def test_a_lucky_measurement_is_not_learning():
    assert curve([0, 3, 1, 3]).steps_to(2.5) > 400
    assert speed_up(curve([0, 1, 2, 3]), curve([0, 3, 1, 3])) < 2


def test_what_does_not_improve_has_no_speed_up():
    rising, falling = curve([0, 1, 2, 3]), curve([3, 2, 1, 0])
    assert speed_up(rising, falling) is None and speed_up(falling, rising) is None
    one, other = (np.array([0.0, 1, 2, 3])[None, :, None] * np.ones((1, 1, 5)) for _ in range(2))
    assert speed_up_with_interval(STEPS, one, -other, True) is None


def test_what_an_arm_ends_at_is_read_off_the_curves_that_are_compared():
    none, arm = (np.array(values)[None, :, None] for values in ([0.1, 0.3, 0.6, 0.5], [0.1, 0.3, 0.50, 0.51]))
    found = speed_up_with_interval(STEPS, none, arm, True)
    assert found["mean"] < 1 and found["reached"] == 0
    assert speed_up_with_interval(STEPS, arm, none, True)["reached"] == 1


def test_intervals_are_students():
    found = mean_with_interval([1.0, 2.0, 3.0])
    # t(0.975, 2) / sqrt(3) = 2.4841
    assert (found["mean"], found["high"]) == (2, pytest.approx(2 + 2.4841, abs=1e-3))
    assert mean_with_interval([1.0]) == {"mean": 1, "low": None, "high": None}
    # 1.96 deviations of the objects beside them
    assert mean_with_interval([1.0, 2.0, 3.0], 1.0)["high"] == pytest.approx(2 + np.hypot(2.4841, 1.96), abs=1e-3)


def test_objects_that_all_seeds_share_widen_the_interval():
    rng = np.random.default_rng(0)
    slow = np.log(STEPS)[None, :, None] + rng.normal(0, 0.01, (3, 1, 40))
    fast = slow + np.log(2)
    alike = speed_up_with_interval(STEPS, slow, fast, True)
    assert [alike["low"], alike["high"]] == pytest.approx([2, 2])
    # Some objects gain much, others lose; the mean and the seeds are what they were.
    gains = np.repeat([-4.0, 4.0], 20)
    differing = speed_up_with_interval(STEPS, slow, fast + gains, True)
    assert differing["mean"] == pytest.approx(alike["mean"], rel=1e-6)
    assert differing["low"] < 1 and differing["high"] > 4


def test_an_arm_that_ends_lower_may_still_be_sooner():
    # At the lower of both final qualities, as the page says of the dagger.
    assert speed_up(curve([0.1, 0.3, 0.5, 0.6]), curve([0.1, 0.5, 0.5, 0.5])) == pytest.approx(2)


def test_the_grids_for_a_gpu_share_their_runs():
    gpu, regimes = (read_grid(CONVERGENCE / f"grid-{name}.yaml")["base"] for name in ("gpu", "regimes"))
    assert gpu.shared() == regimes.shared()


@pytest.mark.parametrize("path", CONVERGENCE.glob("grid-*.yaml"), ids=lambda path: path.stem)
def test_a_published_grid_is_readable(path):
    for settings in read_grid(path).values():
        assert "none" in settings.arms


def test_shuffled_masks_are_as_large_and_independent():
    num_tokens, size = 32, 12
    overlaps, masks = [], []
    for view in range(400):
        visible = np.arange(view % 20, view % 20 + size)
        row = {"uid": "object", "view": view, "mirrored": False, "visible_tokens": visible}
        drawn = shuffled_tokens(row, num_tokens)
        assert len(set(drawn)) == size and 0 <= drawn.min() <= drawn.max() < num_tokens
        assert (drawn == shuffled_tokens(row, num_tokens)).all()
        overlaps.append(len(np.intersect1d(drawn, visible)))
        masks.append(np.isin(np.arange(num_tokens), drawn))
    # Hypergeometric: mean 12 * 12 / 32, variance 1.81.
    assert abs(np.mean(overlaps) - 4.5) < 4 * (1.81 / 400) ** 0.5
    assert abs(np.mean(masks, axis=0) - size / num_tokens).max() < 4.5 * (0.234 / 400) ** 0.5


@pytest.fixture(scope="module")
def data(work, tmp_path_factory) -> Path:
    """The dataset with its latents and all tables derived from them."""
    folder = tmp_path_factory.mktemp("convergence") / "data"
    shutil.copytree(work / "data", folder)
    for masks in ("unordered", "shuffled", "oracle"):
        derive_table(folder, "latents", masks, str(work / "vae"))
    return folder


def test_derived_tables_differ_in_the_masks_only(data):
    tables = {
        name: load_table(str(data), name, "train")
        for name in ("latents", "latents-unordered", "latents-shuffled", "latents-oracle")
    }
    samples = {name: LatentSamples(table, 8, SampleOptions(seed=3)) for name, table in tables.items()}
    grouped = samples.pop("latents")
    for name, others in samples.items():
        assert tables[name].features == tables["latents"].features and len(others) == len(grouped)
        for index in range(len(grouped)):
            one, other = grouped[2, index], others[2, index]
            assert one["uid"] == other["uid"]
            same = ("latents", "noise", "density", "image_embeds")
            assert all(torch.equal(one[key], other[key]) for key in same)
    masks = {name: torch.stack([one[0, i]["visible_mask"] for i in range(len(one))]) for name, one in samples.items()}
    visible = torch.stack([grouped[0, index]["visible_mask"] for index in range(len(grouped))])
    assert not masks["latents-unordered"].any()
    assert torch.equal(masks["latents-shuffled"].sum(1), visible.sum(1))
    assert not torch.equal(masks["latents-shuffled"], visible)
    agreement = (masks["latents-oracle"] == visible).float().mean(1)
    assert torch.allclose(agreement, torch.tensor(tables["latents"]["anchor_agreement"]))
    assert agreement.min() < 1


def test_an_oracle_refuses_shapes_that_are_not_those_of_the_latents(work, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data/latents-oracle")
    shapes = load_table(str(data), "shapes", "train")
    rows = [dict(row, surface=np.asarray(row["surface"])[::-1].copy()) for row in shapes.with_format("numpy")]
    write_shard(tmp_path / "data", "shapes", "train-test-00000", rows, shapes.features)
    with pytest.raises(ValueError, match="are not those that the table of latents"):
        derive_table(tmp_path / "data", "latents", "oracle", str(work / "vae"))
    assert not list((tmp_path / "data/latents-oracle").glob("*.parquet"))


def test_what_an_encoding_tells_of_a_token():
    rng = np.random.default_rng(0)
    visible = np.stack([rng.permutation(np.arange(64) < 24) for _ in range(300)])
    labels, places = visible.astype(int), np.tile(np.arange(64), (300, 1))
    sums, counts = label_sums(np.ones((300, 64, 2)), labels, 3)
    assert (sums == counts).all() and (counts[0, :, 0] == (40, 24, 0)).all()
    objects, noise = rng.normal(0, 5, (300, 1, 16)), rng.normal(0, 1, (300, 64, 16))
    # What the class is worth is the same in all objects, or each object's own.
    common = np.where(visible[..., None], 1.0, -2.0) + objects
    own = visible[..., None] * rng.normal(0, 3, (300, 1, 16))
    halves = slice(150), slice(150, None)

    def unknown(tokens, labels):
        (others, labels_of_others), rest = ((tokens[half], labels[half]) for half in halves)
        return share_if_unknown(others, labels_of_others, *rest)

    assert share_if_known(common, labels) == pytest.approx(1) == share_if_known(own, labels)
    assert unknown(common, labels) == pytest.approx(1) and abs(unknown(own, labels)) < 0.02
    # Two means of 64 tokens explain 1 / 63 of what is left about their common mean.
    assert share_if_known(noise, labels) == pytest.approx(1 / 63, rel=0.05) and abs(unknown(noise, labels)) < 0.01
    # A class of variance 24 / 64 * 40 / 64 * 3^2 beside that of the noise.
    assert unknown(common + noise, labels) == pytest.approx(2.109 / 3.109, abs=0.01)
    assert share_if_known(noise, places) == pytest.approx(1) and abs(unknown(noise, places)) < 0.01
    assert unknown(noise[:1] + objects, places) == pytest.approx(1)
    first = places_visible_first(visible)
    assert (np.sort(first, axis=1) == places).all()
    assert (first[visible] < 24).all() and (np.diff(first[0][visible[0]]) > 0).all()


@pytest.fixture(scope="module")
def grid(work, tmp_path_factory) -> Path:
    """A grid of two arms, one of which needs a table of its own, on a copy of the data."""
    folder = tmp_path_factory.mktemp("grid")
    shutil.copytree(work / "data", folder / "data")
    settings = {
        "dataset_name": str(folder / "data"),
        "vae": str(work / "vae"),
        "image_encoder": str(work / "encoder"),
        "latents": {"name": "table", "num_tokens": 8},
        "transformer": json.loads((work / "transformer.json").read_text()),
        "train": {"train_batch_size": 2, "lr_warmup_steps": 0, "logging_steps": 1, "lr_scheduler": "constant"},
        "arms": ["none", "va_rope_shuffled"],
        "seeds": [5],
        "scoring": {
            # Long enough to be stopped in the middle.
            "steps": [100, 300],
            "views": 1,
            "final_objects": 1,
            "num_inference_steps": 2,
            "resolution": 16,
            "batch_size": 2,
            "guidance_scales": [1.0],
            "visible_fractions": [0.5],
            "extra_views": 1,
            "noise_levels": 2,
        },
        "alignment": {
            **{"objects": str(work / "objects.jsonl"), "root": str(work)},
            **{"views": 1, "num_cameras": 3, "resolution": 56},
        },
    }
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def start(grid: Path, output_dir: Path) -> subprocess.Popen:
    command = [sys.executable, CONVERGENCE / "run.py", "--grid", grid, "--output_dir", output_dir]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen([*command, "--device", "cpu", "--jobs", "2", "--threads", "1"], env=environment)


@pytest.fixture(scope="module")
def experiment(grid, tmp_path_factory) -> Path:
    output_dir = tmp_path_factory.mktemp("experiment")
    assert start(grid, output_dir).wait(500) == 0, "".join(path.read_text() for path in output_dir.rglob("*log*"))
    return output_dir


def test_a_grid_from_end_to_end(grid, experiment):
    (none, shuffled) = list_runs(read_grid(grid), experiment)
    for run in (none, shuffled):
        assert [path.name for path in sorted((run.folder / "snapshots").iterdir())] == [
            "step-00000100",
            "step-00000300",
        ]
        assert not list(run.folder.glob("*checkpoint-*"))
    names = {path.stem for path in (none.folder / "scores").iterdir()}
    steps = {"step-00000100", "step-00000300"}
    assert names == steps | {f"alignment-{step}" for step in steps} | {"guidance-1.0"}
    assert {path.stem for path in (shuffled.folder / "scores").iterdir()} == names | {"fraction-0.5000"}
    shapes = [load_file(run.snapshot(300) / "diffusion_pytorch_model.safetensors") for run in (none, shuffled)]
    assert not all(torch.equal(value, shapes[1][name]) for name, value in shapes[0].items())
    found = join({}, collect(grid, experiment))["base"]
    none_run, shuffled_run = (found["runs"][arm]["5"] for arm in ("none", "va_rope_shuffled"))
    assert none_run.curve["chamfer"].shape == (2, 1)
    final = read_scores(none.folder / "scores/step-00000300.jsonl")
    ((key, alignment),) = read_scores(none.folder / "scores/alignment-step-00000300.jsonl").items()
    assert none_run.final["chamfer"] == pytest.approx(np.mean([row["chamfer"] for row in final.values()]))
    assert len(final) == 2 and 0 < alignment.pop("is_as") == none_run.final["is_as"] <= 1
    early, last = none_run.curve["is_as"][:, 0]
    assert 0 < early != last == none_run.final["is_as"]
    # Of the same sample, which batches of other sizes round differently.
    assert alignment == pytest.approx(final[key], abs=1e-4)
    summary = found["summary"]["va_rope_shuffled"]
    assert "is_as" in summary["speed_ups"]
    assert summary["paired_seeds"] == ["5"]
    assert summary["differences"]["chamfer"]["mean"] == pytest.approx(
        shuffled_run.final["chamfer"].mean() - none_run.final["chamfer"].mean()
    )
    # The shuffled masks are as large as those that `none` does not look at.
    assert none_run.visible_fraction == shuffled_run.visible_fraction


def test_killed_scoring_goes_on_to_the_same_scores(grid, experiment, tmp_path):
    shutil.copytree(experiment, tmp_path / "copy")
    run = list_runs(read_grid(grid), tmp_path / "copy")[1]
    task = next(task for task in list_tasks(run) if task.step == 300)
    whole = task.path(run).read_text()
    first, second = whole.splitlines(keepends=True)
    task.path(run).unlink()
    task.path(run).with_suffix(".partial").write_text(first)
    assert not is_scored(run)
    assert start(grid, tmp_path / "copy").wait(200) == 0
    assert task.path(run).read_text() == whole and is_scored(run)
    assert first != second


def test_the_report_is_written_from_files(grid, experiment, tmp_path):
    command = [sys.executable, CONVERGENCE / "report.py", "--grid", grid, "--output_dir", experiment]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([*command, "--docs", tmp_path], env=environment, check=True)
    page, numbers = (tmp_path / "convergence.md").read_text(), json.loads((tmp_path / "convergence.json").read_text())
    assert "### Speed-up against `none`" in page and "{{" not in page and str(grid.parent) not in page
    found = collect(grid, experiment)["base"]
    assert all(numbers["base"][part] == found[part] for part in ("grid", "settings", "data"))
    assert "grid=benchmarks/convergence/grid.yaml  # base\n" in page
    run = found["runs"]["none"]["5"]
    assert f" | {run.final['chamfer'].mean():.3f} | " in page
    kept = read_numbers(tmp_path / "convergence.json")["base"]["runs"]["none"]["5"]
    for part in ("curve", "final"):
        for metric, values in getattr(run, part).items():
            assert getattr(kept, part)[metric] == pytest.approx(values, rel=1e-3)
    for picture in ("base", "base-losses"):
        assert (tmp_path / "images" / f"convergence-{picture}.png").stat().st_size > 10_000
    # What was measured elsewhere stays on the page.
    (tmp_path / "convergence.json").write_text(json.dumps({"elsewhere": numbers["base"]}))
    subprocess.run([*command, "--docs", tmp_path], env=environment, check=True)
    assert json.loads((tmp_path / "convergence.json").read_text()) == {"elsewhere": numbers["base"], **numbers}
    assert (tmp_path / "convergence.md").read_text().count("### Speed-up against `none`") == 2
    assert (tmp_path / "images/convergence-elsewhere.png").exists()


def test_what_was_started_with_another_grid_is_not_scored(grid, experiment, tmp_path):
    values = yaml.safe_load(grid.read_text())
    values["scoring"]["num_inference_steps"] = 3
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(values))
    run = list_runs(read_grid(grid), experiment)[0].name
    args = argparse.Namespace(grid=tmp_path / "grid.yaml", output_dir=experiment, run=run, device="cpu")
    with pytest.raises(ValueError, match="holds runs of regime base with other settings"):
        score(args)


def test_a_page_of_runs_of_which_some_lack_a_curve(experiment, grid, tmp_path):
    (tmp_path / "docs").mkdir()
    before = collect(grid, experiment)["base"]
    for lacking in ("none", "va_rope_shuffled"):
        runs = {arm: {"5": dataclasses.replace(by_seed["5"])} for arm, by_seed in before["runs"].items()}
        run = runs[lacking]["5"]
        runs[lacking]["5"] = dataclasses.replace(run, curve={name: run.curve[name] for name in METRICS})
        regimes = join({}, {"base": {**before, "runs": runs}})
        write_report(regimes, "", tmp_path / "docs", "page")
        assert "### Speed-up against `none`" in (tmp_path / "docs/page.md").read_text()


def measured(*values: float) -> Measured:
    """A run of two steps and one value of each metric for each object."""
    curves = {name: np.array([values, values]) for name in METRICS}
    return Measured(curves, {name: np.array(values) for name in METRICS}, {}, [], 0.3)


def test_runs_of_two_times_are_joined():
    compared = {"settings": {"scoring": {"steps": [1, 2]}}, "data": {"vae": "a", "views": "b"}}
    before = {**compared, "runs": {"va_rope": {"0": measured(1, 2)}, "none": {"0": measured(0, 1)}}}
    now = {**compared, "runs": {"va_rope": {"0": measured(2, 3), "1": measured(4, 5)}}}
    known = join({}, {"base": before, "other": before})
    joined = join(known, {"base": now})
    assert joined["other"] == known["other"] and list(joined["base"]["runs"]) == ["none", "va_rope"]
    summary = joined["base"]["summary"]["va_rope"]
    assert summary["seeds"] == ["0", "1"] and summary["final"]["iou"]["mean"] == 3.5
    # Only the first seed has a baseline.
    assert summary["paired_seeds"] == ["0"] and summary["differences"]["iou"]["mean"] == 2


def test_what_an_object_has_no_score_of_counts_in_no_mean(tmp_path):
    def runs(*floaters) -> dict:
        run = measured(4, 2)
        run.curve["floaters"], run.final["floaters"] = np.array(floaters, float), np.array(floaters[-1], float)
        run.extra["guidance-1.0"] = {"floaters": floaters[-1][0], "chamfer": 1.0}
        return {"0": run}

    nothing = np.nan
    compared = {"settings": {"scoring": {"steps": [1, 2]}}, "data": {}}
    known = {
        "none": runs([8, nothing, 6], [nothing, 2, 3]),
        "va_rope": runs([4, 9, 5], [1, 1, 2]),
        "va_lpe": runs([nothing] * 3, [1, 2, 2]),
    }
    found = join({}, {"base": {**compared, "runs": known}})
    write_numbers(found, tmp_path / "numbers.json")
    for regimes in (found, join({}, read_numbers(tmp_path / "numbers.json"))):
        summary = regimes["base"]["summary"]
        assert summary["none"]["final"]["floaters"]["mean"] == 2.5
        assert summary["va_rope"]["final"]["floaters"]["mean"] == pytest.approx(4 / 3)
        assert summary["va_rope"]["differences"]["floaters"]["mean"] == -1
        assert summary["va_rope"]["speed_ups"]["floaters"]["reached"] == 1
        assert summary["va_lpe"]["speed_ups"]["floaters"] is None
        assert np.isnan(regimes["base"]["runs"]["none"]["0"].extra["guidance-1.0"]["floaters"])
    # Half of the steps from 6 to 3 take this arm from 5 to 3; no other object has scores of both at both steps.
    assert summary["va_rope"]["speed_ups"]["floaters"]["mean"] == pytest.approx(2 ** (1 / 3))
    only = join({}, {"base": {**compared, "runs": {"none": runs([1, 1], [nothing] * 2)}}})
    assert only["base"]["summary"]["none"]["final"]["floaters"] is None


@pytest.mark.parametrize("part, value", [("settings", {"scoring": {"steps": [1, 3]}}), ("data", {"vae": "other"})])
def test_runs_that_do_not_compare_are_not_joined(part, value):
    compared = {"settings": {"scoring": {"steps": [1, 2]}}, "data": {"vae": "a"}, "runs": {"none": {"0": measured(1)}}}
    known = join({}, {"base": compared})
    with pytest.raises(ValueError, match=f"base are known with other {part}"):
        join(known, {"base": {**compared, part: value}})


def test_a_stopped_grid_goes_on_to_the_same_state(grid, experiment, tmp_path):
    process = start(grid, tmp_path)
    folder = tmp_path / "base/none/seed-5"
    while process.poll() is None and not (folder / "train_log.jsonl").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(200) == 0 and not (folder / "model_index.json").exists()
    (checkpoint,) = folder.glob("checkpoint-*")
    assert 1 <= int(checkpoint.name.removeprefix("checkpoint-")) < 300
    assert start(grid, tmp_path).wait(500) == 0
    for run in list_runs(read_grid(grid), tmp_path):
        other = experiment / run.name
        for path in (run.folder / "scores").iterdir():
            assert path.read_text() == (other / "scores" / path.name).read_text()
        name = "snapshots/step-00000300/diffusion_pytorch_model.safetensors"
        weights, others = load_file(run.folder / name), load_file(other / name)
        assert all(torch.equal(value, others[key]) for key, value in weights.items())


def test_a_table_that_cannot_be_made_is_named(grid, tmp_path, capfd):
    values = yaml.safe_load(grid.read_text())
    values["vae"], values["latents"]["name"] = str(tmp_path / "nowhere"), "other"
    changed = tmp_path / "grid.yaml"
    changed.write_text(yaml.safe_dump(values))
    assert start(changed, tmp_path / "run").wait(300) == 1
    output = capfd.readouterr().out
    assert "data-other-8 failed with status" in output and "0 of 2 runs are done" in output
    assert "nowhere" in (tmp_path / "run/data-other-8.log").read_text()


def test_other_settings_are_refused(grid, experiment, tmp_path):
    values = yaml.safe_load(grid.read_text())
    values["arms"].append("va_lpe")
    changed = tmp_path / "grid.yaml"
    changed.write_text(yaml.safe_dump(values))
    runner.keep_grid(read_grid(changed), experiment)
    values["train"]["learning_rate"] = 0.5
    changed.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="with other settings"):
        runner.keep_grid(read_grid(changed), experiment)
    with pytest.raises(ValueError, match="with other settings"):
        collect(changed, experiment)
    values["arms"].append("none")
    changed.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="has arms twice"):
        read_grid(changed)
    values["train_batch_size"] = 4
    changed.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="unknown keys: train_batch_size"):
        read_grid(changed)
    # Where nothing has run yet, nothing is lost.
    values = yaml.safe_load(grid.read_text())
    (tmp_path / "empty").mkdir()
    for rate in (0.5, 0.25):
        values["train"]["learning_rate"] = rate
        changed.write_text(yaml.safe_dump(values))
        runner.keep_grid(read_grid(changed), tmp_path / "empty")


def test_a_grid_whose_curves_or_tables_would_not_be_what_they_seem_is_refused(grid, tmp_path):
    values = yaml.safe_load(grid.read_text())
    values["regimes"] = {"few": {}, "many": {"latents": {"min_votes": 1}}}
    changed = tmp_path / "grid.yaml"
    changed.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="regimes few and many want other latents of one name, table-8"):
        read_grid(changed)
    values["regimes"] = {"unseen": {}, "by-heart": {"scoring": {"split": "train"}}}
    changed.write_text(yaml.safe_dump(values))
    (job, _) = runner.tables_of(list_runs(read_grid(changed), tmp_path), "cpu")
    assert job.splits == {"train", "heldout"}
    del values["train"]["lr_scheduler"]
    changed.write_text(yaml.safe_dump(values))
    (run, *_) = list_runs(read_grid(changed), tmp_path)
    assert run.train_arguments()["lr_scheduler"] == "constant_with_warmup"
    values["train"]["lr_scheduler"] = "cosine"
    changed.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="has `lr_scheduler` cosine; it must be constant"):
        read_grid(changed)


def test_told_apart_reads_a_table(work, grid, experiment):
    from diffusers_vilearn import VecSetVAE

    found = measure(str(grid.parent / "data"), "table-8", VecSetVAE.from_pretrained(work / "vae"))
    assert 0 < found["visible or not"]["known"] < 1 == pytest.approx(found["position, visible tokens first"]["known"])
    with pytest.raises(ValueError, match="not made by this VAE"):
        measure(str(grid.parent / "data"), "table-8", VecSetVAE.from_config(VecSetVAE.load_config(work / "vae")))


def test_a_derived_table_is_made_anew_when_its_base_has_grown(grid, data):
    settings = dataclasses.replace(read_grid(grid)["base"], dataset_name=str(data), latents=Latents())
    job = runner.TableJob(settings, "shuffled", data, "cpu")
    assert job.next_command() is None
    (shard, *_) = sorted((data / "latents").glob("train-*"))
    grown = shard.with_name(f"{shard.stem}-more.parquet")
    shutil.copy(shard, grown)
    try:
        assert "masks.py" in str(job.next_command())
    finally:
        grown.unlink()
    # With other options it was made of another table.
    metadata = data / "latents" / "metadata.json"
    before = metadata.read_text()
    metadata.write_text(json.dumps(json.loads(before) | {"num_points": 7}))
    try:
        with pytest.raises(ValueError, match=r"was made of another table than .* delete it"):
            job.next_command()
        with pytest.raises(ValueError, match="was made of another table"):
            derive_table(data, "latents", "shuffled")
    finally:
        metadata.write_text(before)
    # So it was where its base has other rows, or no such shard.
    derived = data / "latents-shuffled" / shard.name
    before = derived.read_bytes()
    for changed in (derived.with_name("train-test-77777.parquet"), derived):
        pq.write_table(read_parquet(derived).slice(1), changed)
        try:
            with pytest.raises(ValueError, match="was made of another table"):
                derive_table(data, "latents", "shuffled")
        finally:
            changed.unlink()
            derived.write_bytes(before)
    # Without shapes there is no table to be whole.
    nowhere = dataclasses.replace(settings, dataset_name=str(data / "nowhere"))
    assert "latents" in runner.TableJob(nowhere, "grouped", data, "cpu").next_command()


def test_a_grid_that_asks_for_more_views_than_there_are_trains_nothing(grid, experiment):
    runs = list_runs(read_grid(grid), experiment)
    runner.check_views(runs)
    scoring = dataclasses.replace(runs[0].settings.scoring, extra_views=9)
    asking = dataclasses.replace(runs[0], settings=dataclasses.replace(runs[0].settings, scoring=scoring))
    with pytest.raises(ValueError, match="asks for 9 views of the validation split"):
        runner.check_views([asking])
    alignment = dataclasses.replace(runs[0].settings.alignment, root="nowhere")
    elsewhere = dataclasses.replace(runs[0], settings=dataclasses.replace(runs[0].settings, alignment=alignment))
    with pytest.raises(ValueError, match="nowhere"):
        runner.check_views([elsewhere])


def test_an_experiment_is_locked_as_long_as_one_of_its_processes_lives(tmp_path):
    lock = runner.lock_experiment(tmp_path)
    child = subprocess.Popen(["sleep", "600"], pass_fds=[lock.fileno()])
    lock.close()
    try:
        with pytest.raises(ValueError, match="still running"):
            runner.lock_experiment(tmp_path)
    finally:
        child.kill()
        child.wait()
    runner.lock_experiment(tmp_path).close()


def test_truths_are_seen_from_their_camera(work, grid, experiment):
    from diffusers_vilearn import VecSetVAE

    settings, config = read_grid(grid)["base"], VecSetVAE.from_pretrained(work / "vae").config
    truths = Truths(settings, config, "heldout", views_per_object=2)
    assert [key[1] for key in truths.keys] == [0, 1]
    for truth in truths:
        surface = truth.view.surface
        facing = surface[:, 3:] @ truth.view.towards_camera
        # In the view frame the camera looks at the front.
        assert abs(truth.view.towards_camera[0]) < 1e-5 and truth.view.towards_camera[2] > 0.5
        assert facing[truth.view.seen].mean() > 0.2 > facing[~truth.view.seen].mean()
    assert len({truth.noise_seed for truth in truths}) == 2
    validation = {uid for uid, _ in Truths(settings, config, "validation").keys}
    trained = {uid for uid, _ in Truths(settings, config, "train").keys}
    everything = set(load_table(settings.dataset_name, "table-8", "train")["uid"])
    assert len(validation) == 1 and len(trained) == 3 and validation | trained == everything
    with pytest.raises(ValueError, match="asks for 7 objects of the heldout split, but there are 1"):
        Truths(settings, config, "heldout", num_objects=7)
