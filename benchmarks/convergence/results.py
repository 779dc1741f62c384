# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The scores of all runs of a grid -> curves, speed-ups and differences."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from arms import ARMS, BASELINE
from grid import Run, Settings, check_kept, list_runs, read_grid
from speedup import mean_of_known, mean_with_interval, speed_up_with_interval
from tasks import alignment_name, is_scored, list_tasks, loss_path, step_name

from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.files import write_atomically
from diffusers_vilearn.metrics.score_files import Scores, read_scores
from diffusers_vilearn.metrics.summary import is_lower_better, object_means
from diffusers_vilearn.training.tables import read_metadata

METRICS = (
    "chamfer",
    "f_score@0.05",
    "f_score@0.02",
    "iou",
    "floaters",
    "visible_recall@0.05",
    "invisible_recall@0.05",
)
# Only if the grid asks for it.
IS_AS = "is_as"
HEADLINE = ("chamfer", "f_score@0.05", "f_score@0.02", "floaters", IS_AS)
DETAIL = ("area_behind", "roughness_behind")


@dataclass(frozen=True)
class Measured:
    """What was measured of one run. Views of one object are meaned; objects are in the same order in all runs, NaN
    where one has no value: a camera that sees all of a surface leaves no unseen part, a failed sample has no pieces.

    Attributes:
        curve (`dict`): metric -> (steps, objects), over the views that all scored steps share; `is_as` over its own.
        final (`dict`): metric -> (objects,), over all views of the last step; `is_as` over its own.
        extra (`dict`): task -> metric -> mean.
        losses (`list`): for each step the bins.
        visible_fraction (`float`): mean share of visible tokens in its training data, which inference declares.
    """

    curve: dict[str, np.ndarray]
    final: dict[str, np.ndarray]
    extra: dict[str, dict[str, float]]
    losses: list[list[dict]]
    visible_fraction: float

    @classmethod
    def of(cls, run: Run) -> "Measured":
        scores = {task.name: read_scores(task.path(run)) for task in list_tasks(run)}
        steps = [scores.pop(step_name(step)) for step in run.settings.scoring.steps]
        shared = set.intersection(*map(set, steps))
        kept = [{key: row for key, row in step.items() if key in shared} for step in steps]
        curve = {name: np.stack([_object_means(step, name) for step in kept]) for name in METRICS}
        final = {name: _object_means(steps[-1], name) for name in METRICS}
        if run.settings.alignment is not None:
            aligned = [scores.pop(alignment_name(step)) for step in run.settings.scoring.steps]
            curve[IS_AS] = np.stack([_object_means(step, IS_AS) for step in aligned])
            final[IS_AS] = curve[IS_AS][-1]
        config = json.loads((run.snapshot(run.settings.scoring.steps[-1]) / "config.json").read_text())
        return cls(
            curve=curve,
            final=final,
            extra={
                task: {name: float(mean_of_known(_object_means(rows, name), axis=0)) for name in (*METRICS, *DETAIL)}
                for task, rows in scores.items()
            },
            losses=[json.loads(loss_path(run, step).read_text()) for step in run.settings.scoring.steps],
            visible_fraction=config["visible_fraction"],
        )

    def numbers(self) -> dict:
        """All of it as JSON holds it, objects to four digits."""
        return {
            "visible_fraction": self.visible_fraction,
            "curve": {name: _four_digits(values) for name, values in self.curve.items()},
            "final": {name: _four_digits(values) for name, values in self.final.items()},
            "extra": _each_score(self.extra, _or_none),
            "losses": self.losses,
        }

    @classmethod
    def of_numbers(cls, numbers: dict) -> "Measured":
        """What `numbers` gave."""
        arrays = {
            part: {name: np.array(values, float) for name, values in numbers[part].items()}
            for part in ("curve", "final")
        }
        return cls(**{**numbers, **arrays, "extra": _each_score(numbers["extra"], _or_nan)})


def _four_digits(values: np.ndarray) -> list:
    return np.vectorize(lambda value: _or_none(float(f"{value:.4g}")), otypes=[object])(values).tolist()


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _each_score(extra: dict[str, dict], function: Callable) -> dict[str, dict]:
    return {task: {name: function(value) for name, value in row.items()} for task, row in extra.items()}


def _object_means(scores: Scores, metric: str) -> np.ndarray:
    """(objects,) by uid; NaN where a view lacks the metric."""
    return object_means({key: row.get(metric, np.nan) for key, row in sorted(scores.items())})


def read_regime(regime: str, settings: Settings, root: Path) -> dict[str, dict[str, Measured]]:
    """What was measured of the whole runs of a regime: arm -> seed -> `Measured`."""
    results = defaultdict(dict)
    for run in list_runs({regime: settings}, root):
        if run.is_trained and is_scored(run):
            results[run.arm][str(run.seed)] = Measured.of(run)
    return results


def summarise_regime(steps: list[int], results: dict[str, dict[str, Measured]]) -> dict[str, dict]:
    """For each arm its `final` scores; and against the baseline, over the `paired_seeds`, by metric: `speed_ups`
    and `differences`."""
    summary = {}
    for arm, by_seed in results.items():
        runs = list(by_seed.values())
        summary[arm] = {
            "seeds": sorted(by_seed),
            "visible_fraction": float(np.mean([run.visible_fraction for run in runs])),
            "final": {name: _interval_of_mean([run.final[name] for run in runs]) for name in runs[0].final},
        }
        paired = sorted(by_seed.keys() & results.get(BASELINE, {}).keys())
        if arm != BASELINE and paired:
            pairs = [(results[BASELINE][seed], by_seed[seed]) for seed in paired]
            summary[arm] |= {"paired_seeds": paired, **_against_baseline(steps, pairs)}
    return summary


def _against_baseline(steps: list[int], pairs: list[tuple[Measured, Measured]]) -> dict[str, dict]:
    found = {"speed_ups": {}, "differences": {}}
    for name in measured_in_all([run for pair in pairs for run in pair]):
        baselines, arms = (np.stack([run.curve[name] for run in runs]) for runs in zip(*pairs))
        found["speed_ups"][name] = speed_up_with_interval(steps, baselines, arms, not is_lower_better(name))
    for name in pairs[0][0].final:
        found["differences"][name] = _interval_of_mean([arm.final[name] - base.final[name] for base, arm in pairs])
    return found


def measured_in_all(runs: Collection[Measured]) -> list[str]:
    """The metrics of their curves; runs that were measured at another time may lack one."""
    return [name for name in (*METRICS, IS_AS) if all(name in run.curve for run in runs)]


def _interval_of_mean(by_seed: list[np.ndarray]) -> dict[str, float | None] | None:
    """Of values (objects,) of each seed; `None` if no object has one with every seed."""
    of_object = np.mean(by_seed, axis=0)
    of_object = of_object[np.isfinite(of_object)]
    if not len(of_object):
        return None
    return mean_with_interval(mean_of_known(by_seed, axis=1), of_object.std() / np.sqrt(len(of_object)))


def collect(grid: Path, root: Path) -> dict[str, dict]:
    """For each regime with whole runs: `grid`, the name of its file; `settings`; `data`, what tells other latents or
    views from these; and `runs`.

    Raises:
        ValueError: no run is whole, or the runs were started with other settings than the grid's.
    """
    regimes, settings_of = {}, read_grid(grid)
    check_kept(settings_of, root)
    for name, settings in settings_of.items():
        if runs := read_regime(name, settings, root):
            found = {"settings": settings.published(), "data": _data(name, settings, root), "runs": runs}
            regimes[name] = {"grid": grid.name, **found}
    if not regimes:
        raise ValueError(f"{root} holds no run of {grid} that is trained and scored.")
    return regimes


def _data(regime: str, settings: Settings, root: Path) -> dict:
    """What the latents were made with, and digests of the views that are trained on, and scored at the last step."""
    run = next(run for run in list_runs({regime: settings}, root) if run.is_trained and is_scored(run))
    views = read_scores(list_tasks(run)[len(settings.scoring.steps) - 1].path(run))
    table = settings.latents.table
    rows = load_table(settings.dataset_name, table, "train")
    trained_on = zip(rows["uid"], rows["view"], rows["mirrored"])
    return read_metadata(settings.dataset_name, table) | {"views": _digest(views), "trained_on": _digest(trained_on)}


def _digest(names: Iterable[tuple]) -> str:
    return hashlib.sha256(json.dumps(sorted(names)).encode()).hexdigest()


def join(known: dict[str, dict], measured: dict[str, dict]) -> dict[str, dict]:
    """Regimes of two times or machines, each with its `summary`: what was `measured` joins what was `known`, and
    replaces it where both have the same run.

    Raises:
        ValueError: a regime was measured with other settings or data than it is known with.
    """
    joined = dict(known)
    for name, found in measured.items():
        runs, before = found["runs"], known.get(name)
        if before is not None:
            if differing := [part for part in ("settings", "data") if before.get(part) != found[part]]:
                raise ValueError(
                    f"Runs of regime {name} are known with other {' and '.join(differing)}, so that both do not"
                    " compare: give the regime or the page another name, or take the known one out of the page's"
                    " JSON file."
                )
            runs = {arm: before["runs"].get(arm, {}) | runs.get(arm, {}) for arm in before["runs"] | runs}
        runs = {arm: dict(sorted(runs[arm].items())) for arm in ARMS if arm in runs}
        joined[name] = {
            **found,
            "runs": runs,
            "summary": summarise_regime(found["settings"]["scoring"]["steps"], runs),
        }
    return joined


def write_numbers(regimes: dict[str, dict], path: Path) -> None:
    """What `join` gave, as `read_numbers` reads it."""
    numbers = {name: {**found, "runs": _each_run(found["runs"], Measured.numbers)} for name, found in regimes.items()}
    write_atomically(path, json.dumps(numbers, allow_nan=False).encode())


def read_numbers(path: Path) -> dict[str, dict]:
    """The regimes in a file, none if there is none."""
    numbers = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: {**found, "runs": _each_run(found["runs"], Measured.of_numbers)} for name, found in numbers.items()}


def _each_run(runs: dict[str, dict], function: Callable) -> dict[str, dict]:
    return {arm: {seed: function(run) for seed, run in by_seed.items()} for arm, by_seed in runs.items()}
