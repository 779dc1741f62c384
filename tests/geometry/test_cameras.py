# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras: conventions, projection and its inverse, fitting and sampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusers_vilearn.geometry import (
    Camera,
    fit_camera,
    focal_length_to_fov,
    look_at,
    orbit_camera,
    sample_condition_camera,
)

angles = {"azimuth": st.floats(-360, 360), "elevation": st.floats(-90, 90)}


def view_angles(camera):
    """Azimuth and elevation in degrees of a camera on an orbit about the origin."""
    x, y, z = camera.position / np.linalg.norm(camera.position)
    return np.degrees(np.arctan2(x, z)), np.degrees(np.arcsin(y))


@pytest.mark.parametrize(
    "azimuth, elevation, position",
    [(0, 0, (0, 0, 2)), (90, 0, (2, 0, 0)), (180, 0, (0, 0, -2)), (0, 90, (0, 2, 0)), (0, -90, (0, -2, 0))],
)
def test_orbit_positions(azimuth, elevation, position):
    camera = orbit_camera(azimuth, elevation, distance=2)
    np.testing.assert_allclose(camera.position, position, atol=1e-12)


def test_front_view_has_right_on_the_right_and_up_on_top():
    pixels, depth = orbit_camera(0, 0, distance=3).project(np.array([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]), 100)
    assert pixels[0, 0] > 50 and pixels[0, 1] == 50
    assert pixels[1, 0] == 50 and pixels[1, 1] < 50
    np.testing.assert_allclose(depth, [3, 3, 2.5])


@settings(max_examples=40, deadline=None)
@given(**angles)
def test_orbit_is_rigid_level_and_looks_at_its_target(azimuth, elevation):
    target = np.array([0.1, -0.2, 0.3])
    camera = orbit_camera(azimuth, elevation, distance=2.5, target=target)
    np.testing.assert_allclose(camera.camera_to_world @ camera.world_to_camera, np.eye(4), atol=1e-12)
    assert abs(camera.camera_to_world[1, 0]) < 1e-12
    assert camera.camera_to_world[1, 1] > -1e-12
    pixels, depth = camera.project(target[None], 64)
    np.testing.assert_allclose(pixels, [[32, 32]], atol=1e-9)
    np.testing.assert_allclose(depth, [2.5])


def test_look_at_agrees_with_orbit():
    camera = orbit_camera(33, 21, distance=2, target=(1, 2, 3))
    np.testing.assert_allclose(look_at(camera.position, (1, 2, 3)), camera.camera_to_world, atol=1e-12)


def test_look_at_along_up_is_refused():
    with pytest.raises(ValueError, match="parallel"):
        look_at((0, 3, 0))


@settings(max_examples=30, deadline=None)
@given(
    **angles, fov=st.floats(1, 120), size=st.tuples(st.integers(1, 9), st.integers(1, 9)), orthographic=st.booleans()
)
def test_rays_and_projection_are_inverse(azimuth, elevation, fov, size, orthographic):
    kind = {"orthographic_height": 2.2} if orthographic else {"vertical_fov": fov}
    camera = orbit_camera(azimuth, elevation, distance=3, **kind)
    origins, directions = camera.rays(size)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    pixels, _ = camera.project(origins + 1.7 * directions, size)
    rows, columns = np.divmod(np.arange(size[0] * size[1]), size[1])
    np.testing.assert_allclose(pixels, np.stack([columns, rows], axis=1) + 0.5, atol=1e-6)


@pytest.mark.parametrize("kind", [{"vertical_fov": 37.0}, {"orthographic_height": 2.2}])
def test_projection_matrix_agrees_with_project(kind):
    camera = orbit_camera(20, 10, distance=3, **kind)
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (50, 3))
    height, width = 48, 64
    matrix = camera.projection_matrix(width / height, 1, 5) @ camera.world_to_camera
    clip = np.concatenate([points, np.ones((50, 1))], axis=1) @ matrix.T
    ndc = clip[:, :3] / clip[:, 3:]
    pixels, depth = camera.project(points, (height, width))
    np.testing.assert_allclose((ndc[:, 0] + 1) / 2 * width, pixels[:, 0])
    np.testing.assert_allclose((1 - ndc[:, 1]) / 2 * height, pixels[:, 1])
    assert (np.abs(ndc[:, 2]) < 1).all()
    np.testing.assert_array_equal(np.argsort(ndc[:, 2]), np.argsort(depth))


def test_points_behind_a_perspective_camera_have_no_image():
    pixels, depth = orbit_camera(0, 0, distance=1).project(np.array([[0, 0, 2.0]]), 8)
    assert np.isnan(pixels).all() and depth[0] == -1


@settings(max_examples=40, deadline=None)
@given(**angles, fov=st.none() | st.floats(5, 100), fill=st.floats(0.3, 1), seed=st.integers(0, 1000))
def test_fit_is_exact(azimuth, elevation, fov, fill, seed):
    points = np.random.default_rng(seed).uniform(-1, 1, (20, 3))
    camera = fit_camera(points, azimuth, elevation, vertical_fov=fov, fill=fill)
    pixels, depth = camera.project(points, 200)
    nearest = 0.01 * np.linalg.norm(points, axis=1).max()
    assert depth.min() >= nearest * (1 - 1e-9)
    filled = np.abs(pixels / 100 - 1).max()
    assert filled == pytest.approx(fill) or (filled < fill and depth.min() == pytest.approx(nearest))


def test_the_default_orbit_holds_every_normalised_object():
    corners = 0.95 * (np.indices((2, 2, 2)).reshape(3, -1).T * 2 - 1)
    for azimuth in range(0, 360, 15):
        for kind in ({"vertical_fov": 20.0}, {"vertical_fov": 60.0}, {"orthographic_height": 3.4}):
            pixels, depth = orbit_camera(azimuth, 35, **kind).project(corners, 2)
            assert depth.min() > 0 and np.abs(pixels - 1).max() <= 1


def test_focal_lengths():
    # 24 mm sensor side: tan(fov / 2) = 12 / f.
    assert focal_length_to_fov(12) == pytest.approx(90)
    assert focal_length_to_fov(35) == pytest.approx(37.85, abs=0.01)
    assert focal_length_to_fov(135) == pytest.approx(10.16, abs=0.01)


def test_condition_cameras_stay_in_range():
    points = np.random.default_rng(1).uniform(-0.95, 0.95, (30, 3))
    rng = np.random.default_rng(0)
    cameras = [sample_condition_camera(rng, points, orthographic_probability=0.3) for _ in range(400)]
    azimuths, elevations = np.array([view_angles(camera) for camera in cameras]).T
    assert azimuths.min() >= -90 and azimuths.max() <= 90 and azimuths.std() > 40
    assert elevations.min() >= -15 and elevations.max() <= 30 and elevations.std() > 10
    fovs = np.array([camera.vertical_fov for camera in cameras if not camera.is_orthographic])
    assert fovs.min() >= focal_length_to_fov(135) and fovs.max() <= focal_length_to_fov(35)
    assert len(fovs) == pytest.approx(280, abs=35)


def test_condition_cameras_repeat_with_their_generator():
    points = np.eye(3)
    first, second = (sample_condition_camera(np.random.default_rng(5), points) for _ in range(2))
    np.testing.assert_array_equal(first.camera_to_world, second.camera_to_world)
    assert first.vertical_fov == second.vertical_fov


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.eye(4),), "exactly one"),
        ((np.eye(4), 40.0, 2.0), "exactly one"),
        ((np.eye(4), 180.0), "vertical_fov"),
        ((np.eye(4), None, -1.0), "orthographic_height"),
        ((np.eye(3), 40.0), "camera_to_world"),
        ((2 * np.eye(4), 40.0), "rotation"),
        ((np.diag([-1.0, 1, 1, 1]), 40.0), "rotation"),
        ((np.full((4, 4), np.nan), 40.0), "finite"),
    ],
)
def test_bad_cameras_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Camera(*arguments)


@pytest.mark.parametrize("resolution", [0, -3, 2.5, (4,), (4, 0), (1, 2, 3)])
def test_bad_resolutions_are_refused(resolution):
    with pytest.raises(ValueError, match="resolution"):
        orbit_camera(0, 0).rays(resolution)


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.zeros((4, 3)), np.full((4, 3), np.inf), np.zeros((4, 2))])
def test_points_that_cannot_be_fitted_are_refused(points):
    with pytest.raises(ValueError, match="points"):
        fit_camera(points, 0, 0)


def test_a_point_on_the_view_axis_lies_before_the_camera():
    tip = np.array([[0, 0, 1.0], [0.1, 0, -1], [-0.1, 0, -1], [0, 0.1, -1], [0, -0.1, -1]])
    camera = fit_camera(tip, 0, 0, vertical_fov=37.8)
    pixels, depth = camera.project(tip, 100)
    assert np.isfinite(pixels).all() and depth.min() > 0
