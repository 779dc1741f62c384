# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of many objects -> tables: means, medians, paired differences, each with a bootstrap interval.

Objects, not views, are what varies: views of one object are meaned first, and whole objects are resampled.
"""

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import write_atomically
from .score_files import ScoreFile, Scores, check_comparable, methods_of

BOOTSTRAP_SAMPLES = 10_000

_LOWER_IS_BETTER = ("chamfer", "components", "failed", "floaters", "large_components", "lpips", "normal_fd")
_NEITHER_IS_BETTER = ("area_behind", "roughness_behind")


def is_lower_better(metric: str) -> bool:
    """Whether a smaller value of a metric is the better one."""
    return metric.startswith(_LOWER_IS_BETTER)


def bootstrap_interval(values: np.ndarray, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (n,)."""
    rng = np.random.default_rng(seed)
    # So many resamples at a time that they take 128 MiB.
    rows = max(1, (1 << 24) // len(values))
    sizes = [min(rows, BOOTSTRAP_SAMPLES - start) for start in range(0, BOOTSTRAP_SAMPLES, rows)]
    means = np.concatenate(
        [values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def metrics_of(scores: Scores) -> list[str]:
    """Every metric that some view has a value of, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in scores.values() for name in row))


def summarise(scores: Scores) -> dict[str, dict]:
    """Mean over the objects with its 95% interval, median, and their number, of every metric.

    A view without a value of a metric (a recall of points that it has none of) is left out of that metric.
    """
    summary = {}
    for name in metrics_of(scores):
        values = object_means({key: row[name] for key, row in scores.items() if name in row})
        summary[name] = _mean_with_interval(values) | {"median": float(np.median(values)), "n": len(values)}
    return summary


def paired_differences(scores: Scores, others: Scores) -> dict[str, dict]:
    """Mean of `scores` minus `others` over the objects, paired by view, with its 95% interval.

    Of every metric and over all views that both have; a metric that they share on no view is left out.
    """
    differences = {}
    for name in metrics_of(scores):
        pairs = {
            key: scores[key][name] - others[key][name]
            for key in sorted(scores.keys() & others.keys())
            if name in scores[key] and name in others[key]
        }
        if pairs:
            values = object_means(pairs)
            differences[name] = _mean_with_interval(values) | {"n": len(values)}
    return differences


def object_means(values: dict[tuple[str, int], float]) -> np.ndarray:
    """(objects,) the mean over each object's views."""
    of_object = defaultdict(list)
    for (uid, _), value in values.items():
        of_object[uid].append(value)
    return np.array([np.mean(views) for views in of_object.values()])


def _mean_with_interval(values: np.ndarray) -> dict:
    """Of one value there is no interval."""
    found = {"mean": float(values.mean())}
    return found | ({"interval": bootstrap_interval(values)} if len(values) > 1 else {})


def best_median_worst(scores: Scores, metric: str, count: int) -> dict[str, list[tuple[str, int]]]:
    """The views with the `count` best, the `count` middle and the `count` worst values of a metric, best first each.

    Where there are fewer than three times as many views, the best come first, then the worst; no view comes twice.

    Raises:
        ValueError: no view has a value of `metric`.
    """
    if metric not in metrics_of(scores):
        raise ValueError(f"`metric` must be one of {metrics_of(scores)}, but is {metric!r}.")
    known = [key for key in sorted(scores) if metric in scores[key]]
    sign = 1 if is_lower_better(metric) else -1
    ranked = sorted(known, key=lambda key: sign * scores[key][metric])
    best = min(count, math.ceil(len(ranked) / 3))
    worst = min(count, math.ceil((len(ranked) - best) / 2))
    median = min(count, len(ranked) - best - worst)
    start = max(best, (len(ranked) - median) // 2)
    return {
        "best": ranked[:best],
        "median": ranked[start : start + median],
        "worst": ranked[len(ranked) - worst :],
    }


def markdown_table(summaries: dict[str, dict[str, dict]]) -> str:
    """One column a method; one row for its number of objects, and one a metric with an arrow to where it is better.

    Mean [95% interval], and the median in brackets where there is one; a single value where there is no interval. A
    metric that some objects have no value of says how many have, one of all shapes at once of how many views it is.
    """
    names = list(dict.fromkeys(name for summary in summaries.values() for name in summary))
    lines = ["| | " + " | ".join(summaries) + " |", "| --- |" + " --- |" * len(summaries)]
    counts = [max(value["n"] for value in summary.values()) for summary in summaries.values()]
    lines.append("| objects | " + " | ".join(map(str, counts)) + " |")
    for name in names:
        cells = [
            _cell(summary[name], count) if name in summary else ""
            for summary, count in zip(summaries.values(), counts)
        ]
        lines.append(f"| {name}{_arrow(name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _arrow(metric: str) -> str:
    """To where a metric is better, if anywhere."""
    if metric in _NEITHER_IS_BETTER:
        return ""
    return " ↓" if is_lower_better(metric) else " ↑"


def _cell(value: dict, count: int) -> str:
    """With the number of objects where it is not `count`."""
    text = f"{value['mean']:.3g}"
    if "interval" in value:
        low, high = value["interval"]
        text += f" [{low:.3g}, {high:.3g}]"
    text += f" ({value['median']:.3g})" if "median" in value else ""
    text += f", of {value['views']} views" if "views" in value else ""
    return text + (f", of {value['n']}" if value["n"] != count else "")


def csv_table(summaries: dict[str, dict[str, dict]]) -> str:
    """One row a method and metric: n, mean, the ends of its 95% interval, median; unrounded."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("method", "metric", "n", "mean", "low", "high", "median"))
    for method, summary in summaries.items():
        for name, value in summary.items():
            low, high = value.get("interval", ("", ""))
            rows.writerow((method, name, value["n"], value["mean"], low, high, value.get("median", "")))
    return table.getvalue()


def write_summary(folder: Path, references: Sequence[str]) -> str:
    """Write `summary.json`, `summary.csv` and `summary.md` of all score files in a folder.

    `summary.json` holds `scores`, method -> metric -> `mean`, `interval`, `median`, `n`; and `differences`,
    reference -> method -> metric -> `mean`, `interval`, `n` of reference minus method.

    Args:
        folder (`Path`): with a `<method>.jsonl` a method, and where something was measured of all its shapes at once
            `sets/<method>.json`, metric -> `mean`, `n` and `views`.
        references (`Sequence[str]`): methods that all others are subtracted from, paired by view.

    Returns:
        `str`: what `summary.md` holds.

    Raises:
        ValueError: there are no scores, or none of a reference, or some that do not compare or are no finite number.
    """
    scores = {method: ScoreFile(folder, method).read() for method in methods_of(folder)}
    lacking = [reference for reference in references if reference not in scores]
    if not scores or lacking:
        raise ValueError(f"{folder} has scores of {sorted(scores)}, not of {lacking or 'anything'}.")
    check_comparable(folder)
    for method, rows in scores.items():
        _check_finite(method, rows)
    summary = {
        "scores": {method: summarise(rows) | _read_set(folder, method) for method, rows in scores.items()},
        "differences": {
            reference: {
                method: differences
                for method, rows in scores.items()
                if method != reference and (differences := paired_differences(scores[reference], rows))
            }
            for reference in references
        },
    }
    text = "Mean over the objects [95% interval] (median).\n\n" + markdown_table(summary["scores"]) + "\n"
    for reference, others in summary["differences"].items():
        if others:
            text += f"\n{reference} minus the others, paired by view: mean [95% interval].\n\n"
            text += markdown_table(others) + "\n"
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1).encode())
    write_atomically(folder / "summary.csv", csv_table(summary["scores"]).encode())
    write_atomically(folder / "summary.md", text.encode())
    return text


def _check_finite(method: str, scores: Scores) -> None:
    for (uid, view), row in scores.items():
        if wrong := [name for name, value in row.items() if not math.isfinite(value)]:
            raise ValueError(
                f"{method} scores {row[wrong[0]]} in {wrong[0]} on view {view} of {uid}; a score is a finite number,"
                " and is left out where there is none."
            )


def _read_set(folder: Path, method: str) -> dict[str, dict]:
    """What was measured of all shapes of a method at once."""
    path = folder / "sets" / f"{method}.json"
    return json.loads(path.read_text()) if path.exists() else {}
