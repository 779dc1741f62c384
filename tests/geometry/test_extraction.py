# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The mesh of a field: the same as on the full grid, closed, outward, whole, and cheap."""

import multiprocessing
import resource
import sys

import igl
import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusers_vilearn.geometry import extract_mesh, field_grid

TRUNCATION = 0.015
BUDGET = {256: 1.1e6, 384: 2.0e6, 512: 2.5e6}


def sphere(points, radius=0.5, centre=(0.0, 0.0, 0.0)):
    return radius - (points - torch.tensor(centre)).norm(dim=1)


def box(points, half_sides, centre=(0.0, 0.0, 0.0)):
    outside = (points - torch.tensor(centre)).abs() - torch.tensor(half_sides)
    return -(outside.clamp(min=0).norm(dim=1) + outside.amax(1).clamp(max=0))


def torus_and_box(points):
    local = points - torch.tensor([0.0, -0.35, 0.0])
    ring = torch.hypot(local[:, 0], local[:, 2]) - 0.55
    torus = 0.2 - torch.hypot(ring, local[:, 1])
    return torch.maximum(torus, box(points, (0.3, 0.35, 0.2), (0.1, 0.45, 0.05)))


TORUS_AND_BOX_VOLUME = 2 * np.pi**2 * 0.55 * 0.2**2 + 8 * 0.3 * 0.35 * 0.2


def capsule(points, start, end, radius):
    start, end = torch.tensor(start), torch.tensor(end)
    along = ((points - start) @ (end - start) / (end - start).square().sum()).clamp(0, 1)
    return radius - (points - start - along[:, None] * (end - start)).norm(dim=1)


def truncated(distance, truncation=TRUNCATION):
    return lambda points: (distance(points) / truncation).clamp(-1, 1)


class Counter:
    """A field that notes how it is asked."""

    def __init__(self, field):
        self.field, self.points = field, []

    def __call__(self, points):
        self.points.append(points)
        return self.field(points)

    @property
    def asked(self):
        return sum(map(len, self.points))


def dense_mesh(field, bounds, resolution, level=0.0):
    """Marching cubes on the full grid, without any search; for surfaces that stay inside the box."""
    lower, upper = np.reshape(bounds, (2, 3)) if np.ndim(bounds) else (np.full(3, -bounds), np.full(3, bounds))
    values = field_grid(field, bounds=bounds, resolution=resolution).numpy().astype(np.float64)
    index = np.stack(np.unravel_index(np.arange(values.size), values.shape), -1)
    points = lower + index * (upper - lower) / resolution
    size = resolution + 1
    # libigl's dense grid runs through x fastest, ours through z, and its faces look towards the larger values.
    vertices, faces, _ = igl.marching_cubes(
        values.transpose(2, 1, 0).ravel(),
        points.reshape(*values.shape, 3).transpose(2, 1, 0, 3).reshape(-1, 3),
        *[size] * 3,
        level,
    )
    return trimesh.Trimesh(vertices, faces[:, ::-1], process=False)


def sorted_rows(rows):
    rows = np.asarray(rows).round(6)
    return rows[np.lexsort(rows.T)]


def assert_same_surface(mesh, expected):
    assert len(mesh.vertices) == len(expected.vertices)
    assert len(mesh.faces) == len(expected.faces)
    np.testing.assert_allclose(sorted_rows(mesh.vertices), sorted_rows(expected.vertices), atol=2e-6)
    np.testing.assert_allclose(sorted_rows(mesh.triangles_center), sorted_rows(expected.triangles_center), atol=2e-6)
    assert mesh.volume == pytest.approx(expected.volume, rel=1e-6)


def assert_closed_outward(mesh):
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    assert np.isfinite(mesh.vertices).all()


def extract_torus_and_box(resolution):
    """The points asked for and the peak memory of the process in bytes."""
    field = Counter(truncated(torus_and_box))
    mesh = extract_mesh(field, bounds=1.01, resolution=resolution, truncation=TRUNCATION)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    assert_closed_outward(mesh)
    assert mesh.body_count == 2
    assert mesh.volume == pytest.approx(TORUS_AND_BOX_VOLUME, rel=1e-3)
    return field.asked, peak


class TestCost:
    @pytest.mark.parametrize("resolution", [256, 384])
    def test_points_asked(self, resolution):
        asked, _ = extract_torus_and_box(resolution)
        assert asked <= BUDGET[resolution]

    def test_points_asked_and_memory_at_512(self):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            asked, peak = pool.apply(extract_torus_and_box, (512,))
        assert asked <= BUDGET[512]
        assert peak < 2e9

    @pytest.mark.parametrize("resolution, truncation", [(64, None), (96, 0.1), (101, 0.1), (128, 0.1), (224, None)])
    def test_no_point_is_asked_twice(self, resolution, truncation):
        field = Counter(truncated(torus_and_box, 0.1))
        extract_mesh(field, bounds=1.01, resolution=resolution, truncation=truncation)
        index = ((torch.cat(field.points).double() + 1.01) / 2.02 * resolution).round().long()
        assert len(torch.unique(index @ torch.tensor([1000**2, 1000, 1]))) == field.asked

    def test_points_are_exact_grid_points(self):
        bounds, resolution = (-0.9, -1.1, -0.7, 1.0, 0.8, 0.95), 96
        field = Counter(truncated(sphere, 0.1))
        extract_mesh(field, bounds=bounds, resolution=resolution, truncation=0.1)
        lower, upper = np.reshape(bounds, (2, 3))
        points = torch.cat(field.points).numpy()
        assert points.dtype == np.float32
        index = np.rint((points - lower) / (upper - lower) * resolution)
        assert index.min() == 0 and index.max() == resolution
        np.testing.assert_array_equal(points, (lower + index * (upper - lower) / resolution).astype(np.float32))

    def test_chunks_do_not_change_the_mesh(self):
        field = Counter(truncated(sphere, 0.1))
        mesh = extract_mesh(field, bounds=1.0, resolution=64, truncation=0.1, chunk_size=1000)
        assert max(map(len, field.points)) == 1000
        whole = extract_mesh(truncated(sphere, 0.1), bounds=1.0, resolution=64, truncation=0.1)
        np.testing.assert_array_equal(mesh.vertices, whole.vertices)
        np.testing.assert_array_equal(mesh.faces, whole.faces)


class TestSameAsDense:
    @pytest.mark.parametrize("resolution", [33, 96, 101, 128])
    @pytest.mark.parametrize("known", [True, False])
    def test_truncated_distance(self, resolution, known):
        # 0.06 makes the coarse cells 1, 4, 6 and 8 grid cells wide, and 101 is a multiple of none.
        field = truncated(torus_and_box, 0.06)
        mesh = extract_mesh(field, bounds=1.01, resolution=resolution, truncation=0.06 if known else None)
        assert_closed_outward(mesh)
        assert_same_surface(mesh, dense_mesh(field, 1.01, resolution))

    @pytest.mark.parametrize(
        "field", [torus_and_box, lambda p: 60 * torus_and_box(p), lambda p: 7 * torch.tanh(torus_and_box(p) / 0.004)]
    )
    def test_unknown_scale(self, field):
        mesh = extract_mesh(field, bounds=1.01, resolution=224)
        assert_same_surface(mesh, dense_mesh(field, 1.01, 224))

    def test_uneven_box_and_level(self):
        bounds = (-0.8, -1.1, -0.9, 1.2, 0.9, 0.7)
        field = truncated(sphere, 0.1)
        mesh = extract_mesh(field, bounds=bounds, resolution=90, truncation=0.1, level=0.3)
        assert_same_surface(mesh, dense_mesh(field, bounds, 90, level=0.3))
        # The level 0.3 of a field truncated at 0.1 lies 0.03 inside the surface.
        np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.47, atol=1e-3)

    def test_values_exactly_at_the_level(self):
        field = truncated(lambda points: box(points, (0.5, 0.25, 0.25)), 0.125)
        mesh = extract_mesh(field, bounds=1.0, resolution=64, truncation=0.125)
        assert_closed_outward(mesh)
        assert_same_surface(mesh, dense_mesh(field, 1.0, 64))
        np.testing.assert_array_equal(mesh.bounds, [[-0.5, -0.25, -0.25], [0.5, 0.25, 0.25]])

    @settings(max_examples=8, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), resolution=st.integers(32, 64), frequency=st.floats(2, 25))
    def test_any_field_gives_whole_closed_parts(self, seed, resolution, frequency):
        # Random waves with a wrong truncation: no distance at all, so parts may be missed, but none torn or made up.
        waves = torch.Generator().manual_seed(seed)
        directions = torch.randn(3, 12, generator=waves) * frequency
        phases = torch.rand(12, generator=waves) * 6.28

        def field(points):
            return torch.sin(points @ directions + phases).sum(1).clamp(-1, 1)

        mesh = extract_mesh(field, bounds=1.0, resolution=resolution, truncation=0.2)
        assert mesh.is_watertight and mesh.is_winding_consistent
        outside = field_grid(field, bounds=1.0, resolution=resolution).numpy()
        on_grid = (np.asarray(mesh.vertices) + 1) * resolution / 2
        # Every vertex lies on a grid edge with a sign change, or on the box, which counts as outside.
        low, high = np.floor(on_grid + 1e-9).astype(int), np.ceil(on_grid - 1e-9).astype(int)
        first, second = outside[tuple(low.T)], outside[tuple(high.T)]
        at_box = ((on_grid < 1e-9) | (on_grid > resolution - 1e-9)).any(1)
        assert (((first > 0) != (second > 0)) | (np.abs(first) < 1e-3) | (np.abs(second) < 1e-3) | at_box).all()


class TestThinParts:
    HALF = 2 / 256

    def assert_whole(self, distance, kind, extents, volume, rel):
        field, truncation = {
            "truncated": (truncated(distance), TRUNCATION),
            "truncation not told": (truncated(distance), None),
            "distance": (distance, None),
            "logits": (lambda points: 40 * torch.tanh(distance(points) / 0.01), None),
        }[kind]
        mesh = extract_mesh(field, bounds=1.01, resolution=256, truncation=truncation)
        assert_closed_outward(mesh)
        assert mesh.body_count == 1
        np.testing.assert_allclose(mesh.extents, extents, atol=0.01)
        assert mesh.volume == pytest.approx(volume, rel=rel)

    @pytest.mark.parametrize(
        "kind, shift",
        [("truncated", shift) for shift in (0.0, 0.0039, 0.0079, 0.0158)]
        + [("truncation not told", 0.0), ("distance", 0.0039), ("logits", 0.0079)],
    )
    def test_plate(self, kind, shift):
        half_sides = (0.7, self.HALF, 0.6)

        def distance(points):
            return box(points, half_sides, (0.0, 0.2 + shift, 0.0))

        self.assert_whole(distance, kind, [1.4, 2 * self.HALF, 1.2], 8 * np.prod(half_sides), rel=0.02)

    @pytest.mark.parametrize(
        "kind, end, shift",
        [("truncated", end, shift) for end in ((0.8, 0.0, 0.0), (0.55, 0.5, 0.3)) for shift in (0.0, 0.0158)]
        + [("truncation not told", (0.8, 0.0, 0.0), 0.0), ("logits", (0.8, 0.0, 0.0), 0.0079)]
        + [("distance", (0.55, 0.5, 0.3), 0.0)],
    )
    def test_rod(self, kind, end, shift):
        # A shift of half a coarse cell puts a rod along an axis as far from all corners as it can be.
        start = np.array([-0.8, shift, shift])
        end = np.add(end, (0, shift, shift))

        def distance(points):
            return capsule(points, start.astype(np.float32), end.astype(np.float32), self.HALF)

        length = np.linalg.norm(end - start)
        # Marching cubes cuts the corners of a rod two cells thick, by up to two fifths of its volume.
        volume = np.pi * self.HALF**2 * (length + 4 / 3 * self.HALF)
        self.assert_whole(distance, kind, np.abs(end - start) + 2 * self.HALF, volume, rel=0.4)

    def test_small_parts_anywhere(self):
        # Balls with a radius of 0.4 truncations, each a body of its own wherever it lies between the samples.
        rng = np.random.default_rng(0)
        cells = np.stack(np.meshgrid(*[np.arange(5)] * 3), -1).reshape(-1, 3)
        centres = torch.tensor((cells - 2) * 0.35 + rng.uniform(-0.1, 0.1, cells.shape), dtype=torch.float32)

        def field(points):
            return ((0.4 * TRUNCATION - torch.cdist(points, centres).amin(1)) / TRUNCATION).clamp(-1, 1)

        mesh = extract_mesh(field, bounds=1.01, resolution=384, truncation=TRUNCATION)
        assert mesh.body_count == len(centres)

    def test_a_part_is_followed_to_its_end(self):
        # A field without slope says nothing of the thin wire beyond the ball; it is met at the ball and followed.
        def field(points):
            wire = capsule(points, (0.0, 0.013, 0.013), (0.93, 0.013, 0.013), 0.02)
            return torch.where(torch.maximum(sphere(points, 0.3), wire) > 0, 1.0, -1.0)

        mesh = extract_mesh(field, bounds=1.01, resolution=192, truncation=0.2)
        assert_same_surface(mesh, dense_mesh(field, 1.01, 192))


class TestBox:
    @pytest.mark.parametrize("resolution", [64, 97])
    @pytest.mark.parametrize("truncation", [0.1, None])
    def test_full_box(self, resolution, truncation):
        bounds = (-1.0, -0.5, -0.75, 1.0, 1.0, 0.5)
        mesh = extract_mesh(
            lambda points: torch.ones(len(points)), bounds=bounds, resolution=resolution, truncation=truncation
        )
        assert_closed_outward(mesh)
        np.testing.assert_array_equal(mesh.bounds, np.reshape(bounds, (2, 3)))
        assert mesh.volume == pytest.approx(2 * 1.5 * 1.25)

    @pytest.mark.parametrize("resolution", [64, 97])
    def test_solid_that_leaves_the_box_is_capped_on_it(self, resolution):
        field = truncated(lambda points: sphere(points, 0.6, (0.7, -0.7, 0.0)), 0.1)
        mesh = extract_mesh(field, bounds=1.0, resolution=resolution, truncation=0.1)
        assert_closed_outward(mesh)
        np.testing.assert_allclose(mesh.bounds, [[0.1, -1.0, -0.6], [1.0, -0.1, 0.6]], atol=2e-3)
        assert mesh.bounds[1, 0] == 1.0 and mesh.bounds[0, 1] == -1.0
        assert mesh.area_faces[np.isclose(mesh.face_normals[:, 0], 1)].sum() > 0.5

    def test_level_that_float32_cannot_hold(self):
        # 0.1 rounds upwards: the layer around the box must not turn inside by it.
        mesh = extract_mesh(truncated(sphere, 0.1), bounds=1.0, resolution=64, truncation=0.1, level=0.1)
        assert mesh.body_count == 1 and mesh.bounds.max() < 0.5


class TestFieldGrid:
    def test_values_and_order(self):
        bounds = (-1.0, 0.0, 2.0, 1.0, 4.0, 8.0)
        values = field_grid(
            lambda points: points @ torch.tensor([1.0, 10.0, 100.0]), bounds=bounds, resolution=4, chunk_size=7
        )
        assert values.shape == (5, 5, 5) and values.dtype == torch.float32
        axes = [torch.linspace(-1, 1, 5), torch.linspace(0, 4, 5), torch.linspace(2, 8, 5)]
        x, y, z = torch.meshgrid(*axes, indexing="ij")
        torch.testing.assert_close(values, x + 10 * y + 100 * z)

    def test_progress(self):
        progress = Progress()
        field_grid(sphere, bounds=1.0, resolution=9, chunk_size=300, progress=progress)
        assert progress.total == progress.seen == 1000


class Progress:
    """What is used of a tqdm bar."""

    def __init__(self):
        self.total, self.seen, self.updates = 0, 0, 0

    def update(self, count):
        self.seen += count
        self.updates += 1
        assert self.seen <= self.total


def test_progress_ends_at_the_points_asked():
    progress, field = Progress(), Counter(truncated(sphere, 0.1))
    extract_mesh(field, bounds=1.0, resolution=128, truncation=0.1, progress=progress, chunk_size=10000)
    assert progress.seen == progress.total == field.asked
    assert progress.updates == len(field.points)


def test_half_precision_field_and_gradients():
    weight = torch.tensor(1.0, requires_grad=True)
    mesh = extract_mesh(
        lambda points: (weight * sphere(points) / 0.1).clamp(-1, 1).half(), bounds=1.0, resolution=64, truncation=0.1
    )
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.5, atol=1e-3)
    assert weight.grad is None


@pytest.mark.cuda
def test_device():
    def field(points):
        assert points.is_cuda
        return ((0.5 - points.norm(dim=1)) / 0.1).clamp(-1, 1)

    mesh = extract_mesh(field, bounds=1.0, resolution=64, truncation=0.1, device="cuda")
    assert_same_surface(mesh, extract_mesh(truncated(sphere, 0.1), bounds=1.0, resolution=64, truncation=0.1))


class TestErrors:
    def extract(self, field=sphere, **changes):
        return extract_mesh(field, **{"bounds": 1.0, "resolution": 32, **changes})

    @pytest.mark.parametrize("truncation", [None, 0.1])
    def test_no_surface(self, truncation):
        with pytest.raises(ValueError, match=r"no surface .* between -0\.75 and -0\.25"):
            self.extract(lambda points: points[:, 0] / 4 - 0.5, truncation=truncation)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_values_that_are_not_finite(self, bad):
        with pytest.raises(ValueError, match="NaN"):
            self.extract(lambda points: torch.where(points[:, 0] > 0.5, bad, sphere(points)))

    @pytest.mark.parametrize(
        "field", [lambda p: p, lambda p: p[:, :1], lambda p: p[:-1, 0], lambda p: p[:, 0].numpy()]
    )
    def test_field_of_another_shape(self, field):
        with pytest.raises(ValueError, match="`field` returned"):
            self.extract(field)

    @pytest.mark.parametrize(
        "bounds", [0.0, -1.0, float("nan"), (1.0, 1.0), (0, 0, 0, 1, 1, 0), (0, 0, 0, 1, float("inf"), 1)]
    )
    def test_bounds(self, bounds):
        with pytest.raises(ValueError, match="`bounds`"):
            self.extract(bounds=bounds)

    @pytest.mark.parametrize("resolution", [0, 7, 64.0, True, "64"])
    def test_resolution(self, resolution):
        with pytest.raises(ValueError, match="`resolution`"):
            self.extract(resolution=resolution)

    @pytest.mark.parametrize("truncation", [0.0, -0.1, float("inf"), float("nan")])
    def test_truncation(self, truncation):
        with pytest.raises(ValueError, match="`truncation`"):
            self.extract(truncation=truncation)

    @pytest.mark.parametrize("level", [1.0, -1.5, float("nan")])
    def test_level(self, level):
        with pytest.raises(ValueError, match="`level`"):
            self.extract(level=level, truncation=0.1)

    @pytest.mark.parametrize("chunk_size", [0, -5, 10.0])
    def test_chunk_size(self, chunk_size):
        with pytest.raises(ValueError, match="`chunk_size`"):
            self.extract(chunk_size=chunk_size)
