# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import trimesh

from diffusers_vilearn.geometry import (
    sample_sharp_edges,
    sample_surface,
    signed_distance,
    solid_surface,
    winding_number,
)
from diffusers_vilearn.geometry.field import drop_hidden_components


def test_signed_distance_of_a_box_is_exact_and_positive_inside():
    box = trimesh.creation.box(extents=(1.0, 1.0, 1.0))
    points = np.array([[0, 0, 0], [0.3, 0, 0], [0.9, 0, 0], [0.8, 0.9, 0]])
    expected = [0.5, 0.2, -0.4, -0.5]
    np.testing.assert_allclose(signed_distance(box, points), expected, atol=1e-12)


def test_signs_agree_with_the_winding_number():
    mesh = trimesh.creation.torus(0.6, 0.2)
    points = np.random.default_rng(0).uniform(-1, 1, (2000, 3))
    distance = signed_distance(mesh, points)
    off_surface = np.abs(distance) > 1e-3
    assert ((distance > 0) == (winding_number(mesh, points) > 0.5))[off_surface].all()


def test_a_watertight_single_solid_is_returned_as_it_is():
    mesh = trimesh.creation.icosphere(radius=0.9)
    assert solid_surface(mesh) is mesh


def test_a_solid_that_crosses_itself_keeps_its_outside_only():
    spindle = trimesh.creation.torus(0.3, 0.5)
    assert spindle.is_volume and len(spindle.split()) == 1
    solid = solid_surface(spindle)
    # The tube covers the axis up to sqrt(0.5² - 0.3²); its hidden side comes as near to the centre as 0.2.
    assert np.linalg.norm(solid.vertices, axis=1).min() > 0.39
    points = np.random.default_rng(0).uniform(-1, 1, (5000, 3))
    wrong = (signed_distance(solid, points) > 0) != (winding_number(spindle, points) > 0.5)
    assert wrong.mean() < 0.05, "the shell is 1/64 thick"
    assert (winding_number(solid, points[~wrong]) > 0.5).mean() > 0.1


def test_a_solid_of_which_a_part_is_inside_out_is_closed_anew():
    large, small = (trimesh.creation.box((side,) * 3) for side in (1.0, 0.6))
    small.apply_translation([0.8] * 3)
    small.invert()
    # They share a corner, and so are one component.
    both = trimesh.util.concatenate([large, small]).apply_translation([-0.3] * 3).apply_scale(1.1)
    both.merge_vertices()
    assert both.is_volume and not np.allclose(both.volume, 1.1**3 * 1.216)
    points = np.random.default_rng(0).uniform(-1, 1, (5000, 3))
    inside = [(np.abs(points / 1.1 + 0.3 - middle) < side / 2).all(axis=1) for middle, side in ((0, 1.0), (0.8, 0.6))]
    wrong = (signed_distance(solid_surface(both), points) > 0) != np.any(inside, axis=0)
    assert wrong.mean() < 0.05, "the shell is 1/64 thick"


def test_solids_beside_each_other_are_kept_whatever_their_first_face_is():
    box = trimesh.creation.box((0.4, 0.4, 0.4))
    # The first edge is cut in the middle on one of its sides, which a face without an area closes.
    (a, b, c), middle = box.faces[0], len(box.vertices)
    vertices = np.concatenate([box.vertices, [box.vertices[[a, b]].mean(axis=0)]])
    faces = np.concatenate([[[a, b, middle], [a, middle, c], [middle, b, c]], box.faces[1:]])
    cut = trimesh.Trimesh(vertices, faces, process=False)
    places = np.random.default_rng(0).uniform(-0.1, 0.1, (20, 3)) + np.arange(20)[:, None] * [0.7, 0, 0]
    both = trimesh.util.concatenate([cut.copy().apply_translation(place) for place in places])
    assert both.is_watertight and len(drop_hidden_components(both).split(only_watertight=False)) == len(places)


def test_meshes_without_triangles_are_refused():
    empty = trimesh.Trimesh()
    for function in (signed_distance, winding_number):
        with pytest.raises(ValueError, match="at least one triangle"):
            function(empty, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least one triangle"):
        solid_surface(empty)
    with pytest.raises(ValueError, match="at least one triangle"):
        sample_surface(empty, 1, np.random.default_rng(0))


def test_an_open_box_becomes_a_watertight_solid_of_thin_walls():
    box = trimesh.creation.box(extents=(1.2, 1.2, 1.2))
    open_box = trimesh.Trimesh(box.vertices, box.faces[2:], process=False)
    solid = solid_surface(open_box, resolution=64)
    assert solid.is_watertight and solid.volume > 0
    inside = signed_distance(solid, np.array([[0.0, 0.0, 0.0], [0.0, 0.6, 0.0]]))
    assert inside.max() > 0, "the walls are solid"
    # The shell reaches 2 / resolution from the triangles, to within the curvature of a cell.
    np.testing.assert_allclose(np.abs(solid.bounds), 0.6 + 2 / 64, atol=1e-3)


def test_a_closed_soup_is_filled_and_what_is_inside_it_disappears():
    outer = trimesh.creation.box(extents=(1.2, 1.2, 1.2))
    inner = trimesh.creation.icosphere(radius=0.2)
    # Every triangle has its own vertices, as in many files, so the soup is not watertight.
    soup = trimesh.util.concatenate([outer, inner])
    soup = trimesh.Trimesh(soup.triangles.reshape(-1, 3), np.arange(3 * len(soup.faces)).reshape(-1, 3), process=False)
    solid = solid_surface(soup, resolution=64)
    assert len(solid.split()) == 1
    assert signed_distance(solid, np.zeros((1, 3)))[0] > 0.5
    np.testing.assert_allclose(solid.volume, (1.2 + 4 / 64) ** 3, rtol=0.01)


def test_surface_samples_are_uniform_by_area_with_unit_normals():
    box = trimesh.creation.box(extents=(1.0, 1.0, 2.0))
    cloud = sample_surface(box, 20_000, np.random.default_rng(0))
    assert cloud.shape == (20_000, 6) and cloud.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(cloud[:, 3:], axis=1), 1, atol=1e-6)
    # Two of ten units of area face along z.
    assert (np.abs(cloud[:, 5]) > 0.5).mean() == pytest.approx(0.2, abs=0.01)


def test_sharp_edges_of_a_box_are_its_twelve_edges():
    box = trimesh.creation.box(extents=(1.0, 1.0, 1.0))
    cloud = sample_sharp_edges(box, 1000, np.random.default_rng(0))
    on_sides = (np.abs(np.abs(cloud[:, :3]) - 0.5) < 1e-6).sum(axis=1)
    assert len(cloud) == 1000 and (on_sides >= 2).all()
    np.testing.assert_allclose(np.linalg.norm(cloud[:, 3:], axis=1), 1, atol=1e-6)


def test_a_smooth_object_has_no_sharp_edges():
    sphere = trimesh.creation.icosphere(subdivisions=4)
    assert sample_sharp_edges(sphere, 1000, np.random.default_rng(0)).shape == (0, 6)
