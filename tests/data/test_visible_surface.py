# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import trimesh

from diffusers_vilearn.data.evaluation_views import EvaluationViews
from diffusers_vilearn.data.features import SHAPE_FEATURES, VIEW_FEATURES
from diffusers_vilearn.data.preparation import PreparationOptions, prepare_object
from diffusers_vilearn.data.quality import QualityLimits
from diffusers_vilearn.data.shards import write_shard
from diffusers_vilearn.data.visible_surface import seen_by_view
from diffusers_vilearn.geometry import EmbreeRenderer, fit_camera, sample_surface, visible_points


@pytest.mark.parametrize("vertical_fov", [40.0, None], ids=["perspective", "orthographic"])
def test_the_seen_cap_of_a_sphere(vertical_fov):
    sphere = trimesh.creation.icosphere(subdivisions=5)
    camera = fit_camera(sphere.vertices, 30, 10, vertical_fov=vertical_fov)
    rendering = EmbreeRenderer(sphere).render(camera, 256)
    surface = sample_surface(sphere, 5000, np.random.default_rng(0))
    seen = seen_by_view(surface, visible_points(rendering, 8192, np.random.default_rng(0)), camera)
    backward = camera.camera_to_world[:3, 2]
    height = 0.0 if vertical_fov is None else 1 / np.linalg.norm(camera.position)
    assert (seen == (surface[:, :3] @ backward > height)).mean() > 0.97


def test_the_far_side_of_a_thin_plate_is_not_seen():
    plate = trimesh.creation.box((1, 1, 0.01))
    camera = fit_camera(plate.vertices, 0, 0)
    points = visible_points(EmbreeRenderer(plate).render(camera, 128), 2048, np.random.default_rng(0))
    surface = sample_surface(plate, 4000, np.random.default_rng(0))
    np.testing.assert_array_equal(seen_by_view(surface, points, camera), surface[:, 5] > 0.5)


@pytest.mark.parametrize("frame", ["canonical", "view"])
def test_views_say_which_of_their_surface_is_seen(tmp_path, frame):
    options = PreparationOptions(
        num_surface=2000, num_sharp=16, num_near=16, num_volume=16, solid_resolution=36, num_views=2, image_size=64
    )
    record = dict.fromkeys(("source", "licence", "creator", "name", "category"), "test") | {"uid": "ball"}
    sphere = trimesh.creation.icosphere(subdivisions=4)
    shape, views = prepare_object(sphere, record, options, QualityLimits(max_base_share=1))
    write_shard(tmp_path, "shapes", "heldout-test-00000", [shape], SHAPE_FEATURES)
    write_shard(tmp_path, "views", "heldout-test-00000", views, VIEW_FEATURES)
    for view, row in zip(EvaluationViews(str(tmp_path), "heldout", frame=frame, bounds=1, views_per_object=2), views):
        azimuth, elevation = np.radians([0 if frame == "view" else row["azimuth"], row["elevation"]])
        towards = [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
        facing = view.surface[:, 3:] @ towards
        assert view.seen[facing > 0.6].all() and not view.seen[facing < 0].any()
