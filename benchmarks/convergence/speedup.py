# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""How many times fewer steps an arm needs than the baseline, of curves of sample quality."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.stats import t as student


@dataclass(frozen=True)
class Curve:
    """Sample quality over training steps, made monotone: the best fit that never falls, since a single lucky
    measurement would otherwise count as having learned.

    Args:
        steps (`np.ndarray`): (n,) rising.
        quality (`np.ndarray`): (n,) monotone, higher is better.
    """

    steps: np.ndarray
    quality: np.ndarray

    @classmethod
    def fit(cls, steps, values, higher_is_better: bool) -> "Curve":
        """Of measured `values` (n,)."""
        values = np.asarray(values, float) * (1 if higher_is_better else -1)
        return cls(np.asarray(steps, float), isotonic_regression(values).x)

    def steps_to(self, level: float) -> float:
        """The first step at which the quality is `level`, linear in the logarithm of the steps between two
        measurements; the first measured step where it is better from the start.

        Raises:
            ValueError: the curve does not get there.
        """
        if level > self.quality[-1]:
            raise ValueError(f"The curve ends at {self.quality[-1]}, below {level}.")
        after = int(np.argmax(self.quality >= level))
        if after == 0:
            return float(self.steps[0])
        low, high = self.quality[after - 1 : after + 1]
        part = (level - low) / (high - low)
        return float(np.exp(np.interp(part, [0, 1], np.log(self.steps[after - 1 : after + 1]))))


def speed_up(baseline: Curve, arm: Curve) -> float | None:
    """The baseline's steps / the arm's steps at the best quality that both reach: the baseline's final one if the arm
    is better in the end, and the arm's (a number below 1, then) if it is worse. `None` where one of both is not better
    in the end than at its first measurement: there is nothing to be reached sooner."""
    if baseline.quality[-1] <= baseline.quality[0] or arm.quality[-1] <= arm.quality[0]:
        return None
    level = min(baseline.quality[-1], arm.quality[-1])
    return baseline.steps_to(level) / arm.steps_to(level)


def mean_with_interval(values, level: float = 0.95) -> dict[str, float | None]:
    """Mean of values of a few seeds, and Student's interval of it, which a single one has not."""
    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) == 1:
        return {"mean": mean, "low": None, "high": None}
    half = float(student.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def ratio_with_interval(ratios: list[float | None]) -> dict[str, float | None] | None:
    """Geometric mean of ratios, one a seed, with the interval of the mean logarithm; `None` if one is missing."""
    if any(ratio is None for ratio in ratios):
        return None
    found = mean_with_interval(np.log(ratios))
    return {name: None if value is None else float(np.exp(value)) for name, value in found.items()}
