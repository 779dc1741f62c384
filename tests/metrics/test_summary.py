# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from diffusers_vilearn.metrics.summary import bootstrap_interval, paired_differences, summarise


def test_bootstrap_interval_covers_the_mean_and_shrinks():
    values = np.random.default_rng(0).normal(1.0, 1.0, 400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_paired_differences_use_common_views_only():
    ours = {("a", 0): {"iou": 0.5}, ("b", 0): {"iou": 0.7}, ("c", 0): {"iou": 0.9}}
    theirs = {("a", 0): {"iou": 0.4}, ("b", 0): {"iou": 0.6}}
    assert paired_differences(ours, theirs)["iou"]["mean"] == pytest.approx(0.1)
    assert summarise(ours)["iou"]["median"] == pytest.approx(0.7)
