# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
import trimesh

from diffusers_vilearn.metrics.reconstruction import (
    SurfaceDistances,
    count_floaters,
    occupancy_iou,
    surface_metrics,
)
from diffusers_vilearn.metrics.summary import bootstrap_interval, paired_differences, summarise


def test_iou_of_known_occupancies():
    first = torch.tensor([[True, True, False, False], [False, False, False, False]])
    second = torch.tensor([[True, False, True, False], [False, False, False, False]])
    torch.testing.assert_close(occupancy_iou(first, second), torch.tensor([1 / 3, 1.0]))


def test_parallel_sheets_are_their_distance_apart():
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41)), axis=-1).reshape(-1, 2)
    low = np.c_[grid, np.zeros(len(grid))]
    high = np.c_[grid, np.full(len(grid), 0.03)]
    distances = SurfaceDistances.between(low, high)
    assert distances.chamfer() == pytest.approx(0.03)
    assert distances.f_score(0.02) == 0
    assert distances.f_score(0.04) == 1


def test_a_mesh_against_its_own_surface_is_perfect_up_to_sampling():
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=0.8)
    truth = trimesh.sample.sample_surface(sphere, 8192, seed=1)[0]
    scores = surface_metrics(sphere, truth)
    assert scores["f_score@0.05"] > 0.999 and scores["chamfer"] < 0.02 and scores["floaters"] == 0


def test_two_spheres_are_one_floater():
    spheres = [trimesh.creation.icosphere(radius=0.2).apply_translation([x, 0, 0]) for x in (-0.5, 0.5)]
    assert count_floaters(spheres[0]) == 0
    assert count_floaters(trimesh.util.concatenate(spheres)) == 1


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
