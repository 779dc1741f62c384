# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Known answers: sheets, spheres and boxes whose distances, volumes and normals are known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from diffusers_vilearn.geometry import sample_surface
from diffusers_vilearn.metrics.floaters import count_components
from diffusers_vilearn.metrics.neighbours import brute_force, k_d_tree, nearest
from diffusers_vilearn.metrics.reconstruction import (
    SurfaceDistances,
    extract_and_score,
    occupancy_iou,
    surface_metrics,
    volume_iou,
)
from diffusers_vilearn.metrics.rendered_views import in_unit_sphere


def sheet(height: float, tilt: float = 0.0) -> np.ndarray:
    """(1681, 6): a grid on a horizontal square, normals tilted by degrees about x."""
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41)), axis=-1).reshape(-1, 2)
    normal = [0.0, math.sin(math.radians(tilt)), math.cos(math.radians(tilt))]
    return np.c_[grid, np.full(len(grid), height), np.tile(normal, (len(grid), 1))]


def sphere_field(radius: float, centre=(0.0, 0.0, 0.0)):
    """Truncated signed distance of a sphere, positive inside."""
    return lambda xyz: ((radius - (xyz - torch.tensor(centre)).norm(dim=-1)) / 0.1).clamp(-1, 1)


def sphere_view(radius: float) -> SimpleNamespace:
    """The truth of a sphere whose upper half is seen."""
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(4096, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    xyz = rng.uniform(-1, 1, (20_000, 3)).astype(np.float32)
    surface = np.c_[radius * normals, normals].astype(np.float32)
    return SimpleNamespace(
        surface=surface, seen=surface[:, 1] > 0, xyz=xyz, inside=np.linalg.norm(xyz, axis=1) < radius
    )


CONFIG = SimpleNamespace(bounds=1.0, truncation=0.1)


def test_iou_of_known_occupancies():
    first = torch.tensor([[True, True, False, False], [False, False, False, False]])
    second = torch.tensor([[True, False, True, False], [False, False, False, False]])
    torch.testing.assert_close(occupancy_iou(first, second), torch.tensor([1 / 3, 1.0]))


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5, 3.0])
def test_volume_iou_of_shifted_boxes(shift):
    box = trimesh.creation.box((2, 1, 1))
    shifted = box.copy().apply_translation([shift, 0, 0])
    common = max(0.0, 2 - shift)
    assert volume_iou(box, shifted) == pytest.approx(common / (4 - common), abs=0.01)


@pytest.mark.parametrize("shift, iou", [(0.5, 1 / 15), (0.9, 1 / 1999), (1.0, 0), (50, 0)])
def test_volume_iou_of_boxes_along_the_diagonal(shift, iou):
    box = trimesh.creation.box()
    assert volume_iou(box, box.copy().apply_translation([shift] * 3)) == pytest.approx(iou, abs=0.003)


def test_solids_without_a_volume_are_refused():
    box, triangle = trimesh.creation.box(), trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    inverted = box.copy()
    inverted.invert()
    for pair in ((box, inverted), (inverted, inverted), (box, triangle)):
        with pytest.raises(ValueError, match="must be closed and face outwards"):
            volume_iou(*pair)
    rods = [
        trimesh.creation.cylinder(0.001, segment=[[*start, -1], [*end, 1]])
        for start, end in (((-1, -1), (1, 1)), ((-1, 1), (1, -1)))
    ]
    with pytest.raises(ValueError, match="None of 100 points"):
        volume_iou(*rods, num_points=100)


@pytest.mark.parametrize("shift", [-5, 0, 5])
def test_volume_iou_of_a_mesh_with_a_hole_does_not_depend_on_where_it_lies(shift):
    ball = trimesh.creation.icosphere(subdivisions=3).apply_translation([shift, 0, 0])
    holed = ball.copy()
    holed.update_faces(np.arange(len(ball.faces)) > 5)
    assert volume_iou(ball, holed) > 0.99


def test_volume_iou_of_concentric_spheres():
    small, large = (trimesh.creation.icosphere(subdivisions=4, radius=radius) for radius in (0.5, 1.0))
    assert volume_iou(small, large) == pytest.approx(1 / 8, abs=0.005)


def test_parallel_sheets_are_their_distance_apart():
    distances = SurfaceDistances.between(sheet(0)[:, :3], sheet(0.03)[:, :3])
    assert distances.chamfer().item() == pytest.approx(0.03)
    assert distances.chamfer_l2().item() == pytest.approx(0.03**2)
    assert distances.f_score(0.02) == 0 and distances.f_score(0.04) == 1
    with pytest.raises(ValueError, match="6 channels"):
        distances.normal_consistency()
    for clouds in ((sheet(0)[:, :3], sheet(0)), (sheet(0), sheet(0)[:, :3]), (sheet(0)[:, :2], sheet(0)[:, :2])):
        with pytest.raises(ValueError, match="must both have 3 channels, xyz, or both 6"):
            SurfaceDistances.between(*clouds)
    with pytest.raises(ValueError, match="n > 0 and m > 0"):
        SurfaceDistances.between(sheet(0)[:0], sheet(0))


def test_half_a_sheet_is_near_the_whole_but_not_the_other_way():
    whole = sheet(0)
    half = whole[whole[:, 0] <= 0]
    distances = SurfaceDistances.between(half, whole)
    beyond = np.maximum(whole[:, 0], 0)
    assert distances.chamfer().item() == pytest.approx(beyond.mean() / 2)
    assert distances.chamfer_l2().item() == pytest.approx(np.square(beyond).mean() / 2)
    recall = len(half) / len(whole)
    assert distances.f_score(1e-3).item() == pytest.approx(2 * recall / (1 + recall))
    left = torch.from_numpy(whole[:, 0] <= 0)
    assert distances.recall(1e-3, left) == 1 and distances.recall(1e-3, ~left) == 0
    assert distances.recall(1e-3, torch.zeros_like(left)).isnan()


@pytest.mark.parametrize("tilt", [0, 60, 90, 180])
def test_normal_consistency_is_the_cosine_of_the_tilt(tilt):
    distances = SurfaceDistances.between(sheet(0), sheet(0.01, tilt))
    assert distances.normal_consistency().item() == pytest.approx(abs(math.cos(math.radians(tilt))), abs=1e-9)


def test_shapes_in_a_batch_do_not_mix():
    predicted = torch.from_numpy(np.stack([sheet(0), sheet(0.5)]))
    truth = torch.from_numpy(np.stack([sheet(0.01), sheet(0.52, 60)]))
    distances = SurfaceDistances.between(predicted, truth)
    torch.testing.assert_close(distances.chamfer(), torch.tensor([0.01, 0.02], dtype=torch.float64))
    torch.testing.assert_close(distances.normal_consistency(), torch.tensor([1.0, 0.5], dtype=torch.float64))


def test_both_searches_find_the_same_neighbours():
    generator = torch.Generator().manual_seed(0)
    points, others = (torch.rand(count, 3, generator=generator) for count in (300, 500))
    for dtypes in ((torch.float32,) * 2, (torch.float64, torch.float32), (torch.bfloat16,) * 2):
        pair = [cloud.to(dtype) for cloud, dtype in zip((points, others), dtypes)]
        for ours, theirs in zip(brute_force(*pair), k_d_tree(*pair)):
            torch.testing.assert_close(ours, theirs)
    halved = nearest(points.bfloat16().requires_grad_(), others.bfloat16())
    for ours, theirs in zip(halved, nearest(points.bfloat16().float(), others.bfloat16().float())):
        torch.testing.assert_close(ours, theirs.to(ours.dtype))
    with pytest.raises(ValueError, match="same leading shape"):
        nearest(points, others[None])


@pytest.mark.cuda
def test_distances_on_cuda_are_those_on_the_cpu():
    clouds = [torch.from_numpy(np.stack([sheet(0.0), sheet(height)])).float() for height in (0.1, 0.2)]
    there = SurfaceDistances.between(*(cloud.cuda() for cloud in clouds))
    assert there.to_truth.is_cuda
    torch.testing.assert_close(there.chamfer().cpu(), SurfaceDistances.between(*clouds).chamfer())


def test_concentric_spheres_are_their_radii_apart():
    small, large = (trimesh.creation.icosphere(subdivisions=5, radius=radius) for radius in (0.5, 0.6))
    distances = SurfaceDistances.between(
        *(sample_surface(mesh, 50_000, np.random.default_rng(seed)) for seed, mesh in enumerate((small, large)))
    )
    assert distances.chamfer().item() == pytest.approx(0.1, rel=0.01)
    assert distances.chamfer_l2().item() == pytest.approx(0.01, rel=0.01)
    assert distances.normal_consistency().item() > 0.999


def test_a_mesh_against_its_own_surface_is_perfect_up_to_sampling():
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=0.8)
    scores = surface_metrics(sphere, sample_surface(sphere, 8192, np.random.default_rng(1)))
    assert scores["f_score@0.05"] > 0.999 and scores["chamfer"] < 0.02 and scores["normal_consistency"] > 0.99
    assert scores["components"] == 1 and scores["floaters"] == 0


def test_components_are_those_of_trimesh_and_specks_can_be_left_out():
    ball = trimesh.creation.icosphere(radius=0.5)
    specks = [trimesh.creation.icosphere(radius=0.01).apply_translation([0, 0.6 + 0.1 * k, 0]) for k in range(3)]
    second = trimesh.creation.icosphere(radius=0.1).apply_translation([1, 0, 0])
    mesh = trimesh.util.concatenate([ball, second, *specks])
    assert count_components(ball) == 1
    assert count_components(mesh) == 5 == len(mesh.split(only_watertight=False))
    # areas relative to the ball's: 1/25 and 1/2500
    assert [count_components(mesh, share) for share in (1e-4, 1e-3, 0.1, 1.0)] == [5, 2, 1, 1]
    with pytest.raises(ValueError, match="min_area_share"):
        count_components(mesh, 2)


def test_components_that_touch_in_a_corner_are_two():
    boxes = [trimesh.creation.box().apply_translation([shift] * 3) for shift in (0, 1)]
    mesh = trimesh.util.concatenate(boxes)
    mesh.merge_vertices()
    assert count_components(mesh) == 2


def test_a_right_shape_scores_well_on_every_metric():
    mesh, scores = extract_and_score(sphere_field(0.7), sphere_view(0.7), CONFIG, resolution=32)
    assert mesh.is_watertight
    assert scores["iou"] == 1 and scores["failed"] == 0 and scores["components"] == 1
    for name in ("f_score@0.05", "visible_recall@0.05", "invisible_recall@0.05", "normal_consistency"):
        assert scores[name] > 0.98, name


def test_recall_tells_the_seen_side_from_the_other():
    upper = sphere_field(0.7)
    _, scores = extract_and_score(
        lambda xyz: torch.minimum(upper(xyz), (xyz[:, 1] / 0.1).clamp(-1, 1)), sphere_view(0.7), CONFIG, 32
    )
    assert scores["visible_recall@0.05"] > 0.98 and scores["invisible_recall@0.05"] < 0.15


def test_a_field_without_a_surface_fails_and_has_no_pieces_to_count():
    view = sphere_view(0.7)
    mesh, failed = extract_and_score(lambda xyz: -torch.ones(len(xyz)), view, CONFIG, resolution=16)
    _, scores = extract_and_score(sphere_field(0.7), view, CONFIG, resolution=16)
    counts = {"floaters", "components", "large_components"}
    assert mesh is None and failed.keys() == scores.keys() - counts and counts < scores.keys()
    assert failed["failed"] == 1 and failed["iou"] == failed["f_score@0.05"] == failed["visible_recall@0.02"] == 0
    assert failed["chamfer"] == pytest.approx(math.sqrt(3))
    # No sample lies inside either: that is no agreement.
    view.inside = np.zeros_like(view.inside)
    assert extract_and_score(lambda xyz: -torch.ones(len(xyz)), view, CONFIG, resolution=16)[1]["iou"] == 0


def test_shapes_that_no_point_lies_in_have_no_iou():
    view = sphere_view(0.05)
    view.xyz = view.xyz[np.linalg.norm(view.xyz, axis=1) > 0.3]
    view.inside = np.zeros(len(view.xyz), bool)
    _, scores = extract_and_score(sphere_field(0.05, (0.2, 0, 0)), view, CONFIG, resolution=64)
    assert "iou" not in scores and scores["failed"] == 0 and scores["chamfer"] > 0.1


def test_a_mesh_without_triangles_is_refused():
    empty, box = trimesh.Trimesh(), trimesh.creation.box()
    for metric in (lambda: volume_iou(box, empty), lambda: in_unit_sphere(empty)):
        with pytest.raises(ValueError, match="`mesh` must have at least one triangle"):
            metric()


def test_thresholds_are_an_argument():
    _, scores = extract_and_score(sphere_field(0.6), sphere_view(0.7), CONFIG, 32, thresholds=(0.01, 0.2))
    assert scores["f_score@0.01"] == 0 and scores["f_score@0.2"] == 1 and "f_score@0.05" not in scores
