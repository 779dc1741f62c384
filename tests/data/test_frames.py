# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from diffusers_vilearn.data.field_samples import cover_cube, move_field
from diffusers_vilearn.data.frames import object_to_frame, scale_of, transform_cloud, transform_points
from diffusers_vilearn.geometry import orbit_camera

POINTS = np.random.default_rng(0).uniform([-0.9, -0.3, -0.5], [0.9, 0.3, 0.5], (500, 3))


def test_the_canonical_frame_changes_nothing():
    np.testing.assert_array_equal(object_to_frame("canonical", POINTS, 33.0), np.eye(4))


@pytest.mark.parametrize("azimuth", [-170.0, -45.0, 0.0, 60.0, 135.0])
def test_in_the_view_frame_the_camera_stands_in_front(azimuth):
    similarity = object_to_frame("view", POINTS, azimuth)
    camera = orbit_camera(azimuth, 0.0, distance=3.0)
    towards_camera = similarity[:3, :3] @ camera.position
    np.testing.assert_allclose(towards_camera / np.linalg.norm(towards_camera), [0, 0, 1], atol=1e-9)
    moved = transform_points(similarity, POINTS)
    low, high = moved.min(axis=0), moved.max(axis=0)
    np.testing.assert_allclose(low + high, 0, atol=1e-6)
    assert (high - low).max() / 2 == pytest.approx(0.95, abs=1e-6)


def test_similarities_scale_lengths_and_keep_normals_unit():
    similarity = object_to_frame("view", POINTS, 70.0)
    moved = transform_points(similarity, POINTS[:2])
    ratio = np.linalg.norm(moved[0] - moved[1]) / np.linalg.norm(POINTS[0] - POINTS[1])
    assert scale_of(similarity) == pytest.approx(ratio, rel=1e-5)
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0]) @ similarity
    assert scale_of(mirrored) == pytest.approx(ratio, rel=1e-5)
    normals = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
    cloud = transform_cloud(mirrored, np.concatenate([POINTS, normals], axis=1))
    np.testing.assert_allclose(np.linalg.norm(cloud[:, 3:], axis=1), 1, atol=1e-5)


def test_an_unknown_frame_is_refused():
    with pytest.raises(ValueError, match="frame"):
        object_to_frame("world", POINTS, 0.0)


def test_covering_the_cube_keeps_the_volume_of_a_sphere():
    """Monte Carlo volume of a sphere from samples stored in its own box, in another frame."""
    rng = np.random.default_rng(0)
    box = np.array([[-0.7, -0.7, -0.7], [0.7, 0.7, 0.7]])
    points = rng.uniform(box[0], box[1], (40_000, 3))
    stored = np.concatenate([points, 0.5 - np.linalg.norm(points, axis=1, keepdims=True)], axis=1)
    similarity = object_to_frame("view", points[np.linalg.norm(points, axis=1) < 0.5], 25.0)
    samples = cover_cube(similarity, box, move_field(similarity, stored), 1.01, rng)
    assert np.abs(samples[:, :3]).max() <= 1.01
    radius = 0.5 * scale_of(similarity)
    volume = (samples[:, 3] > 0).mean() * 2.02**3
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.03)
