# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What is to be scored of a run, and where the scores are kept."""

from dataclasses import dataclass
from pathlib import Path

from arms import ARMS
from grid import Run


@dataclass(frozen=True)
class Task:
    """Samples of one snapshot that are scored under one setting of the sampler.

    Args:
        name (`str`): of its file.
        step (`int`): of the snapshot.
        views (`dict`): arguments of `Truths`.
        guidance_scale (`float`), visible_fraction (`float`, *optional*): of the sampler.
        measures_alignment (`bool`): whether IS-AS is measured too.
    """

    name: str
    step: int
    views: dict
    guidance_scale: float
    visible_fraction: float | None = None
    measures_alignment: bool = False

    def path(self, run: Run) -> Path:
        """One JSON line a view; there only when it is whole."""
        return run.folder / "scores" / f"{self.name}.jsonl"


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def alignment_name(step: int) -> str:
    return f"alignment-{step_name(step)}"


def loss_path(run: Run, step: int) -> Path:
    return run.folder / "losses" / f"{step_name(step)}.json"


def list_tasks(run: Run) -> list[Task]:
    """What is to be scored of a run, what matters most first."""
    scoring = run.settings.scoring
    last = scoring.steps[-1]
    scored = {
        "split": scoring.split,
        "views_per_object": scoring.views_per_object,
        "num_objects": scoring.final_objects,
    }
    extra = {"views_per_object": 1, "count": scoring.extra_views}
    few = {step: {"count": scoring.views} for step in scoring.steps[:-1]}
    steps = [Task(step_name(step), step, scored | few.get(step, {}), scoring.guidance_scale) for step in scoring.steps]
    alignment = []
    if run.settings.alignment is not None:
        views = scored | {"count": run.settings.alignment.views}
        alignment = [
            Task(alignment_name(step), step, views, scoring.guidance_scale, measures_alignment=True)
            for step in scoring.steps
        ]
    guidance = [Task(f"guidance-{w}", last, extra | {"split": "validation"}, w) for w in scoring.guidance_scales]
    fractions = [
        Task(f"fraction-{fraction:.4f}", last, extra | {"split": scoring.split}, scoring.guidance_scale, fraction)
        for fraction in (scoring.visible_fractions if ARMS[run.arm].splits_tokens else [])
    ]
    return [*steps, *alignment, *fractions, *guidance]


def is_scored(run: Run) -> bool:
    """Whether nothing is left to score."""
    done = all(task.path(run).exists() for task in list_tasks(run))
    return done and all(loss_path(run, step).exists() for step in run.settings.scoring.steps)
