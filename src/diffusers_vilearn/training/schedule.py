# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The progressive schedule: more shape tokens, larger images and smaller batches as training goes on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..pipelines.stages import calculate_shift

STAGE_KEYS = {"tokens", "steps", "batch_size", "image_size", "latents"}


@dataclass(frozen=True)
class Stage:
    """A part of a run in which nothing changes.

    Args:
        start, stop (`int`): optimiser steps done at its beginning and at its end.
        num_tokens (`int`): shape tokens.
        image_size (`int`): side of the condition image in pixels.
        batch_size (`int`): samples per device and forward pass.
        table (`str`): the latents table that it reads.
        shift (`float`): of the timesteps, sigma -> shift * sigma / (1 + (shift - 1) * sigma).
    """

    start: int
    stop: int
    num_tokens: int
    image_size: int
    batch_size: int
    table: str
    shift: float


class Schedule:
    """Stages, one after the other; the same for every run of the same file, so that a resumed one finds its place.

    Args:
        stages (`list[Stage]`): of which each begins where the one before ends.
    """

    def __init__(self, stages: list[Stage]):
        self.stages = stages

    @property
    def num_steps(self) -> int:
        return self.stages[-1].stop

    @property
    def last(self) -> Stage:
        return self.stages[-1]

    def remaining(self, step: int) -> Iterator[Stage]:
        """The stages that are not over after `step` steps."""
        return (stage for stage in self.stages if stage.stop > step)

    def ending_at(self, num_steps: int) -> "Schedule":
        """The schedule that ends after `num_steps` steps, in the middle of a stage if need be."""
        if num_steps > self.num_steps:
            raise ValueError(f"`--max_train_steps` is {num_steps}, but the stages have only {self.num_steps} steps.")
        *before, last = (stage for stage in self.stages if stage.start < num_steps)
        return Schedule([*before, replace(last, stop=num_steps)])


def parse_schedule(
    stages: list[dict],
    *,
    table: str,
    image_size: int,
    batch_size: int,
    timestep_shift: float,
) -> Schedule:
    """The schedule that the `stages` of a YAML file describe.

    Args:
        stages (`list[dict]`): each with `tokens` and `steps`, and optionally `batch_size`, `image_size` and
            `latents`, the name of a table.
        table (`str`): a stage without `latents` reads `<table>-<tokens>`.
        image_size, batch_size (`int`): of a stage that names none.
        timestep_shift (`float`): of the first stage; it grows with the square root of the number of tokens, so that
            the signal-to-noise ratio of a whole shape stays (the paper's schedule).

    Raises:
        ValueError: a stage lacks a key, has an unknown one or a number out of range.
    """
    if not isinstance(stages, list) or not stages:
        raise ValueError(f"`stages` must be a list of at least one stage, but is {stages!r}.")
    parsed, start = [], 0
    for number, stage in enumerate(stages, start=1):
        _check_stage(stage, number)
        parsed.append(
            Stage(
                start=start,
                stop=start + stage["steps"],
                num_tokens=stage["tokens"],
                image_size=stage.get("image_size", image_size),
                batch_size=stage.get("batch_size", batch_size),
                table=stage.get("latents", f"{table}-{stage['tokens']}"),
                shift=calculate_shift(stage["tokens"], stages[0]["tokens"], timestep_shift),
            )
        )
        start = parsed[-1].stop
    return Schedule(parsed)


def _check_stage(stage: dict, number: int) -> None:
    if not isinstance(stage, dict) or not {"tokens", "steps"} <= stage.keys() or stage.keys() - STAGE_KEYS:
        raise ValueError(
            f"Stage {number} is {stage!r}; it must have `tokens` and `steps`, and may have `batch_size`,"
            " `image_size` and `latents`."
        )
    for name, value in stage.items():
        if name != "latents" and (not isinstance(value, int) or value < 1):
            raise ValueError(f"`{name}` of stage {number} is {value!r}; it must be an integer of at least 1.")
