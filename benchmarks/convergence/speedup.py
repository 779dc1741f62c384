# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""How many times fewer steps an arm needs than the baseline, of curves of sample quality."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.stats import norm
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
    """The baseline's steps / the arm's steps to the best quality that both reach, the lower one of both final
    qualities: above 1 where the arm gets there sooner, whether or not it then gets on to the baseline's. `None` where
    one of both is not better in the end than at its first measurement: there is nothing to be reached sooner."""
    if baseline.quality[-1] <= baseline.quality[0] or arm.quality[-1] <= arm.quality[0]:
        return None
    level = min(baseline.quality[-1], arm.quality[-1])
    return baseline.steps_to(level) / arm.steps_to(level)


def mean_of_known(values, axis: int) -> np.ndarray:
    """The mean of what is not NaN; NaN where nothing is."""
    return np.ma.filled(np.ma.masked_invalid(values).mean(axis=axis), np.nan)


def mean_with_interval(values, of_objects: float = 0.0, level: float = 0.95) -> dict[str, float | None]:
    """Mean of the values of a few seeds with its interval, which a single seed has not.

    All seeds are scored on the same objects. Seeds vary by Student's t; what other objects would change is a deviation
    that no number of seeds averages out, and both are added as variances.

    Args:
        values (`Sequence[float]`): one a seed.
        of_objects (`float`): standard deviation of their mean over draws of the objects.
        level (`float`): of the interval.
    """
    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) == 1:
        return {"mean": mean, "low": None, "high": None}
    of_seeds = student.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    half = float(np.hypot(of_seeds, norm.ppf((1 + level) / 2) * of_objects))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def paired_curves(
    steps, baselines: np.ndarray, arms: np.ndarray, higher_is_better: bool
) -> list[tuple[Curve, Curve]] | None:
    """For each seed the curves of the baseline and of the arm.

    Args:
        steps (`Sequence[int]`): (n,) rising.
        baselines, arms (`np.ndarray`): (seeds, n, objects), scores of runs paired by seed. NaN is no score: an object
            that has none at some step of either run says nothing in this pair, or an arm would seem the better for
            failing where it is hard.
        higher_is_better (`bool`): of the scores.

    Returns:
        `None` if some step of some seed has no score.
    """
    unknown = np.isnan(baselines).any(axis=1, keepdims=True) | np.isnan(arms).any(axis=1, keepdims=True)
    means = [mean_of_known(np.where(unknown, np.nan, runs), axis=2) for runs in (baselines, arms)]
    if np.isnan(means).any():
        return None
    return [tuple(Curve.fit(steps, run, higher_is_better) for run in pair) for pair in zip(*means, strict=True)]


def speed_up_with_interval(
    steps, baselines: np.ndarray, arms: np.ndarray, higher_is_better: bool, draws: int = 200
) -> dict[str, float | None] | None:
    """Geometric mean over seeds of the speed-ups, with the interval of the mean logarithm.

    Args:
        steps, baselines, arms, higher_is_better: as for `paired_curves`.
        draws (`int`): of the objects, the same for all runs and steps, that tell how much the objects matter; those
            without a speed-up are left out.

    Returns:
        `dict`: `mean`, `low`, `high`, and `reached`, how many seeds of the arm end as well as the baseline's; `None`
        if some seed has no speed-up, or some step of it no score.
    """

    def logarithms(pairs: list[tuple[Curve, Curve]] | None) -> np.ndarray | None:
        ratios = [None] if pairs is None else [speed_up(*pair) for pair in pairs]
        return None if None in ratios else np.log(ratios)

    def of_objects(rows) -> list[tuple[Curve, Curve]] | None:
        return paired_curves(steps, baselines[:, :, rows], arms[:, :, rows], higher_is_better)

    count = baselines.shape[2]
    pairs = of_objects(np.arange(count))
    measured = logarithms(pairs)
    if measured is None:
        return None
    rng = np.random.default_rng(0)
    drawn = [logarithms(of_objects(rng.integers(count, size=count))) for _ in range(draws)]
    found = mean_with_interval(measured, np.std([np.mean(values) for values in drawn if values is not None]))
    speed_ups = {name: None if value is None else float(np.exp(value)) for name, value in found.items()}
    reached = sum(bool(arm.quality[-1] >= baseline.quality[-1]) for baseline, arm in pairs)
    return speed_ups | {"reached": reached}
