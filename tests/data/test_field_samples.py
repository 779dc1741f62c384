# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Training samples of the VAE, drawn from two objects: a box with sharp edges and a ball without."""

from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
import trimesh
from transformers import BitImageProcessor

from diffusers_vilearn.data.alignment_views import AlignmentViews, plucker_rays
from diffusers_vilearn.data.features import SHAPE_FEATURES, VIEW_FEATURES
from diffusers_vilearn.data.field_samples import FieldSamples
from diffusers_vilearn.data.frames import object_to_frame
from diffusers_vilearn.data.images import patch_tokens_at
from diffusers_vilearn.data.preparation import PreparationOptions, prepare_object
from diffusers_vilearn.data.quality import QualityLimits
from diffusers_vilearn.geometry.field import signed_distance
from diffusers_vilearn.models import VecSetVAE

OPTIONS = PreparationOptions(
    num_surface=600, num_sharp=200, num_near=400, num_volume=400, num_views=3, image_size=96, num_visible=300
)
OBJECTS = {"box": trimesh.creation.box((1.9, 0.8, 1.2)), "ball": trimesh.creation.icosphere(3, radius=0.95)}
SIZES = dict(num_points=256, num_sharp_points=300, num_queries=64, seed=0)
LAYOUTS = {
    "plain": {},
    "dual": {"dual_cross_attention": True},
    "flag": {"sharp_flag": True, "point_channels": 7},
}


@pytest.fixture(scope="module")
def tables() -> tuple[datasets.Dataset, datasets.Dataset]:
    shapes, views = [], []
    for uid, mesh in OBJECTS.items():
        record = {"uid": uid} | dict.fromkeys(("source", "licence", "creator", "name", "category"), "")
        shape, object_views = prepare_object(mesh, record, OPTIONS, QualityLimits())
        shapes.append(shape)
        views.extend(object_views)
    return (
        datasets.Dataset.from_list(shapes, features=SHAPE_FEATURES),
        datasets.Dataset.from_list(views, features=VIEW_FEATURES),
    )


def config(frame="view", **layout):
    options = {"dual_cross_attention": False, "sharp_flag": False, "frame": frame, "latent_channels": 5}
    options |= {"truncation": 0.08, "bounds": 1.01}
    return SimpleNamespace(**(options | layout))


def alignment_views(views, queries="points"):
    processor = BitImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    return AlignmentViews(views, processor, num_queries=40, queries=queries)


def tensors(sample):
    return {name: value for name, value in sample.items() if name != "uid"}


def test_rows_are_named_and_broken_ones_refused(tables):
    samples = FieldSamples(tables[0], config(), **SIZES)
    assert [samples.uid_of(index) for index in range(2)] == [samples[0, index]["uid"] for index in range(2)]
    assert samples.uid_of(1) == "ball"
    broken = tables[0].map(lambda row: {"sharp_edges": np.full((4, 6), np.nan)})
    with pytest.raises(ValueError, match="sharp_points of the row hold numbers that are not finite"):
        FieldSamples(broken, config(dual_cross_attention=True), **SIZES)[0, 0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_vae_is_given_the_clouds_that_it_takes(tables, layout):
    samples = FieldSamples(tables[0], config(**LAYOUTS[layout]), **SIZES)
    batch = {name: torch.stack([samples[0, 0][name], samples[0, 1][name]]) for name in tensors(samples[0, 0])}
    assert ("sharp_points" in batch) == (layout != "plain")
    widths = dict(encoder_width=16, encoder_heads=2, decoder_width=16, decoder_heads=2, num_tokens=10)
    vae = VecSetVAE(**widths, num_encoder_layers=1, num_decoder_layers=1, **LAYOUTS[layout])
    field = vae(batch["points"], batch["xyz"], batch.get("sharp_points")).field
    assert field.shape == batch["field"].shape
    if layout == "flag":
        assert (batch["points"][..., 6] == 0).all() and (batch["sharp_points"][..., 6] == 1).all()


def test_sharp_points_lie_on_edges_and_the_surface_stands_in_for_them(tables):
    samples = FieldSamples(tables[0], config("canonical", dual_cross_attention=True), **SIZES)
    box, ball = samples[0, 0]["sharp_points"], samples[0, 1]["sharp_points"]
    assert len(box) == len(ball) == SIZES["num_sharp_points"], "repeated where fewer are stored"
    sides = torch.tensor([0.95, 0.4, 0.6])
    on_sides = ((box[:, :3].abs() - sides).abs() < 2e-3).sum(dim=1)
    assert (on_sides >= 2).all()
    assert ((samples[0, 0]["points"][:, :3].abs() - sides).abs() < 2e-3).sum(dim=1).min() == 1
    assert (ball[:, :3].norm(dim=1) - 0.95).abs().max() < 0.01


@pytest.mark.parametrize("frame", ["canonical", "view"])
def test_normals_belong_to_the_surface_and_the_band_is_not_saturated(tables, frame):
    samples = FieldSamples(tables[0], config(frame), num_normals=200, **SIZES)
    for index, mesh in enumerate(OBJECTS.values()):
        sample = samples[3, index]
        # The azimuth is the first number that is drawn.
        azimuth = np.random.default_rng((0, 3, index)).uniform(-180, 180)
        surface = np.asarray(tables[0].with_format("numpy")[index]["surface"], np.float32)
        moved = mesh.copy()
        moved.apply_transform(object_to_frame(frame, surface[:, :3], azimuth))
        assert np.abs(signed_distance(moved, sample["surface_xyz"].numpy())).max() < 2e-3
        outside = sample["surface_xyz"] + 0.02 * sample["surface_normals"]
        assert np.abs(signed_distance(moved, outside.numpy()) + 0.02).max() < 2e-3, "both are convex"
        band = signed_distance(moved, sample["band_xyz"].numpy())
        assert np.abs(band).max() < 0.08 + 2e-3 and band.min() < -0.04 and band.max() > 0.04


def test_normals_and_views_leave_the_rest_of_a_sample_as_it_was(tables):
    shapes, views = tables
    plain = tensors(FieldSamples(shapes, config("canonical"), **SIZES)[5, 1])
    options = dict(num_normals=16, num_tokens=7, views=alignment_views(views))
    more = tensors(FieldSamples(shapes, config("canonical"), **options, **SIZES)[5, 1])
    assert set(more) - set(plain) == {
        *("surface_xyz", "surface_normals", "band_xyz"),
        *("pixel_values", "alignment_queries", "alignment_positions"),
        "posterior_noise",
    }
    assert more["posterior_noise"].shape == (7, 5)
    assert all(torch.equal(more[name], plain[name]) for name in plain)
    assert all(value.dtype == torch.float32 for value in more.values())


def test_visible_points_are_where_the_condition_image_shows_them(tables):
    shapes, views = tables
    samples = FieldSamples(shapes, config(), views=alignment_views(views), **SIZES)
    for key in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        sample = samples[key]
        positions, pixels = sample["alignment_positions"], sample["pixel_values"]
        assert sample["alignment_queries"].shape == (40, 3) and positions.abs().max() < 0.95
        white = pixels[:, :1, :1]
        patches = (pixels - white).abs().amax(dim=0).flatten()[None, :, None]
        assert (patch_tokens_at(patches, positions[None]) > 0.02).float().mean() > 0.95
        flipped = patch_tokens_at(patches, positions[None] + 1.5)
        assert (flipped > 0.02).float().mean() < 0.5


def test_in_the_view_frame_image_and_points_agree_on_left_and_up(tables):
    shapes, views = tables
    samples = FieldSamples(shapes, config(), views=alignment_views(views), **SIZES)
    for key in [(0, 0), (1, 0), (2, 0)]:
        points, positions = samples[key]["alignment_queries"], samples[key]["alignment_positions"]
        assert np.corrcoef(points[:, 0], positions[:, 0])[0, 1] > 0.9, "+x is the image's right"
        # From above or below, depth shows as height too.
        assert np.corrcoef(points[:, 1], positions[:, 1])[0, 1] < -0.3, "+y is the image's top"


def test_rays_pass_through_the_points_and_come_from_the_front(tables):
    shapes, views = tables
    points = FieldSamples(shapes, config(), views=alignment_views(views), **SIZES)
    rays = FieldSamples(shapes, config(), views=alignment_views(views, "rays"), **SIZES)
    for key in [(0, 0), (0, 1), (4, 0)]:
        xyz, (direction, moment) = points[key]["alignment_queries"], rays[key]["alignment_queries"].split(3, dim=1)
        assert torch.equal(points[key]["alignment_positions"], rays[key]["alignment_positions"])
        torch.testing.assert_close(torch.linalg.cross(xyz, direction), moment, atol=1e-5, rtol=0)
        torch.testing.assert_close(direction.norm(dim=1), torch.ones(40))
        mean = direction.mean(dim=0)
        assert mean[2] < -0.8 and abs(mean[0]) < 0.1, "the camera stands on +Z"


def test_plucker_coordinates_depend_on_the_line_only():
    rng = np.random.default_rng(0)
    points, directions = rng.standard_normal((2, 7, 3))
    expected = plucker_rays(points, directions)
    np.testing.assert_allclose(plucker_rays(points + 3 * directions, 5 * directions), expected, atol=1e-12)
    assert np.abs(plucker_rays(points + 0.1, directions) - expected).max() > 1e-3


def test_an_object_without_a_view_is_named(tables):
    shapes, views = tables
    only_box = alignment_views(views.filter(lambda row: row["uid"] == "box"))
    only_box.check(["box"])
    with pytest.raises(ValueError, match="no view of 1 objects, 'ball'"):
        only_box.check(shapes["uid"])
    with pytest.raises(ValueError, match="`queries` must be one of"):
        alignment_views(views, "pixels")


def test_bounds_that_are_no_cube_are_refused(tables):
    with pytest.raises(ValueError, match="`bounds` of the VAE must be one number"):
        FieldSamples(tables[0], config(bounds=[-1, -1, -0.5, 1, 1, 0.5]), **SIZES)
