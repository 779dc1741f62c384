# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of many objects -> a table: means, medians, paired differences, each with a bootstrap interval."""

import json
from pathlib import Path

import numpy as np

BOOTSTRAP_SAMPLES = 10_000


def bootstrap_interval(values: np.ndarray, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (n,)."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(BOOTSTRAP_SAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def read_scores(path: Path) -> dict[tuple[str, int], dict[str, float]]:
    """Scores written one JSON line a view, by (uid, view)."""
    scores = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        scores[record.pop("uid"), record.pop("view")] = record
    return scores


def summarise(scores: dict[tuple[str, int], dict[str, float]]) -> dict[str, dict]:
    """Mean with its 95% interval and median of every metric."""
    metrics = next(iter(scores.values()))
    columns = {name: np.array([row[name] for row in scores.values()], float) for name in metrics}
    return {
        name: {"mean": float(x.mean()), "interval": bootstrap_interval(x), "median": float(np.median(x)), "n": len(x)}
        for name, x in columns.items()
    }


def paired_differences(scores, others) -> dict[str, dict]:
    """Mean of `scores` minus `others` over the views both have, with its 95% interval."""
    keys = sorted(scores.keys() & others.keys())
    differences = {}
    for name in scores[keys[0]]:
        difference = np.array([scores[key][name] - others[key][name] for key in keys], float)
        differences[name] = {"mean": float(difference.mean()), "interval": bootstrap_interval(difference)}
    return differences


def markdown_table(summaries: dict[str, dict[str, dict]]) -> str:
    """One row a method, one column a metric: mean [95% interval], and the median in brackets where there is one."""
    metrics = list(next(iter(summaries.values())))
    lines = ["| method | " + " | ".join(metrics) + " |", "| --- |" + " --- |" * len(metrics)]
    for method, summary in summaries.items():
        lines.append(f"| {method} | " + " | ".join(_cell(summary[name]) for name in metrics) + " |")
    return "\n".join(lines)


def _cell(value: dict) -> str:
    low, high = value["interval"]
    text = f"{value['mean']:.3f} [{low:.3f}, {high:.3f}]"
    return text + (f" ({value['median']:.3f})" if "median" in value else "")
