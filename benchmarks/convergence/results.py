# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The scores of all runs of a grid -> curves, speed-ups and differences."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from arms import BASELINE
from grid import Run, Settings, list_runs, read_grid
from speedup import Curve, mean_with_interval, ratio_with_interval, speed_up
from tasks import ALIGNMENT, is_scored, list_tasks, loss_path, step_name

from diffusers_vilearn.metrics.score_files import Scores, read_scores
from diffusers_vilearn.metrics.summary import is_lower_better

METRICS = (
    "chamfer",
    "f_score@0.05",
    "f_score@0.02",
    "iou",
    "floaters",
    "visible_recall@0.05",
    "invisible_recall@0.05",
)
HEADLINE = ("chamfer", "f_score@0.05", "f_score@0.02", "floaters")
# Only of the last step, and only if the grid asks for it.
IS_AS = "is_as"
DETAIL = ("area_behind", "roughness_behind")


def read_run(run: Run) -> dict:
    """Means over views of what was measured of one run.

    Returns:
        `dict`: `curve`, metric -> one value for each scored step, over the views that all steps share; `final`, metric
        -> value over all views of the last step, and `is_as` over its own; `extra`, task -> metric -> value; `losses`,
        for each step the bins; `visible_fraction`, the mean share of visible tokens in its training data, which
        inference declares; and the numbers of views.
    """
    scores = {task.name: read_scores(task.path(run)) for task in list_tasks(run)}
    steps = [step_name(step) for step in run.settings.scoring.steps]
    shared = set.intersection(*(set(scores[name]) for name in steps))
    curve = defaultdict(list)
    for name in steps:
        kept = {key: row for key, row in scores[name].items() if key in shared}
        for metric, value in _means(kept).items():
            curve[metric].append(value)
    final = _means(scores[steps[-1]])
    if alignment := scores.pop(ALIGNMENT, {}):
        final[IS_AS] = float(np.mean([row[IS_AS] for row in alignment.values()]))
    config = json.loads((run.snapshot(run.settings.scoring.steps[-1]) / "config.json").read_text())
    return {
        "visible_fraction": config["visible_fraction"],
        "curve": dict(curve),
        "num_curve_views": len(shared),
        "final": final,
        "num_final_views": len(scores[steps[-1]]),
        "num_alignment_views": len(alignment),
        "extra": {name: _means(scores[name]) for name in scores if name not in steps},
        "losses": [json.loads(loss_path(run, step).read_text()) for step in run.settings.scoring.steps],
    }


def final_columns(settings: Settings) -> tuple[str, ...]:
    """What is measured of the last step."""
    return METRICS if settings.alignment is None else (*METRICS, IS_AS)


def _means(scores: Scores) -> dict[str, float]:
    """Of each metric over the views that have it: a camera that sees all of a surface leaves no unseen part."""
    rows, names = scores.values(), (*METRICS, *DETAIL)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def read_regime(regime: str, settings: Settings, root: Path) -> dict[str, dict[int, dict]]:
    """What was measured of the whole runs of a regime: arm -> seed -> `read_run`."""
    runs = [run for run in list_runs({regime: settings}, root) if run.is_trained and is_scored(run)]
    results = defaultdict(dict)
    for run in runs:
        results[run.arm][run.seed] = read_run(run)
    return {arm: results[arm] for arm in settings.all_arms if arm in results}


def summarise_regime(settings: Settings, results: dict[str, dict[int, dict]]) -> dict[str, dict]:
    """Each arm against the baseline, paired by seed: `speed_ups` and `differences` by metric, with intervals over
    seeds; and its `final` scores. Without the baseline only the latter."""
    summary, columns = {}, final_columns(settings)
    for arm, by_seed in results.items():
        finals = {name: mean_with_interval([run["final"][name] for run in by_seed.values()]) for name in columns}
        fraction = float(np.mean([run["visible_fraction"] for run in by_seed.values()]))
        summary[arm] = {"seeds": sorted(by_seed), "visible_fraction": fraction, "final": finals}
        paired = sorted(by_seed.keys() & results.get(BASELINE, {}).keys())
        if arm == BASELINE or not paired:
            continue
        pairs = [(results[BASELINE][seed], by_seed[seed]) for seed in paired]
        summary[arm]["speed_ups"] = {
            name: ratio_with_interval([_speed_up(settings, name, *pair) for pair in pairs]) for name in METRICS
        }
        summary[arm]["differences"] = {
            name: mean_with_interval([one["final"][name] - base["final"][name] for base, one in pairs])
            for name in columns
        }
    return summary


def _speed_up(settings: Settings, metric: str, baseline: dict, arm: dict) -> float | None:
    steps, higher_is_better = settings.scoring.steps, not is_lower_better(metric)
    return speed_up(*(Curve.fit(steps, run["curve"][metric], higher_is_better) for run in (baseline, arm)))


def collect(grid: Path, root: Path) -> dict[str, dict]:
    """For each regime with whole runs: `settings`, `runs` and `summary`.

    Raises:
        ValueError: no run is whole.
    """
    regimes = {}
    for name, settings in read_grid(grid).items():
        if runs := read_regime(name, settings, root):
            regimes[name] = {
                "settings": settings,
                "runs": runs,
                "summary": summarise_regime(settings, runs),
            }
    if not regimes:
        raise ValueError(f"{root} holds no run of {grid} that is trained and scored.")
    return regimes
