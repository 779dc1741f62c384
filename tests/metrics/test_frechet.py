# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import scipy.linalg
import torch
import trimesh

from diffusers_vilearn.geometry import sphere_cameras
from diffusers_vilearn.metrics.frechet import Dinov2Features, frechet_distance, normal_frechet_distance
from diffusers_vilearn.metrics.rendered_views import RenderedViews


def gaussian(count: int, mean: list[float], deviations: list[float]) -> torch.Tensor:
    """Features whose mean and covariance are exactly these."""
    rows = np.random.default_rng(0).normal(size=(count, len(mean)))
    rows -= rows.mean(axis=0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return torch.from_numpy(rows * deviations + mean)


@pytest.mark.parametrize("count", [50, 400])
def test_distance_of_two_gaussians_is_the_analytic_one(count):
    features = gaussian(count, [0.0, 1.0, -2.0], [1.0, 2.0, 0.5])
    others = gaussian(200, [3.0, 1.0, 0.0], [4.0, 2.0, 1.5])
    # squared differences of the means, and of the deviations
    assert frechet_distance(features, others) == pytest.approx(9 + 4 + 9 + 0 + 1)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", [5, 60], ids=["fewer rows than channels", "more"])
def test_distance_agrees_with_the_matrix_square_root(count):
    rng = np.random.default_rng(1)
    features, others = rng.normal(size=(count, 12)), rng.normal(1, 2, size=(count + 3, 12)) @ rng.normal(size=(12, 12))
    covariances = np.cov(features.T), np.cov(others.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1] + 1e-12 * np.eye(12)).real
    shift = np.square(features.mean(axis=0) - others.mean(axis=0)).sum()
    expected = shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(root)
    assert frechet_distance(*map(torch.from_numpy, (features, others))) == pytest.approx(expected, rel=1e-4)


def test_rows_and_channels_are_checked():
    for others in (torch.zeros(4, 3), torch.zeros(1, 2), torch.zeros(2)):
        with pytest.raises(ValueError, match="above 1, but their shapes"):
            frechet_distance(torch.zeros(4, 2), others)


def test_normals_of_other_shapes_are_farther(image_encoder):
    cameras = sphere_cameras(4, distance=3.2, vertical_fov=45)

    def views(meshes):
        return [RenderedViews.of(mesh, cameras, resolution=70) for mesh in meshes]

    boxes = views([trimesh.creation.box((1, 2, width)) for width in (0.5, 1.0)])
    more_boxes = views([trimesh.creation.box((1, 2, width)) for width in (0.6, 0.9)])
    rings = views([trimesh.creation.torus(1, radius) for radius in (0.2, 0.4)])
    features = Dinov2Features(image_encoder, batch_size=3)
    assert features(boxes[0].pictures).shape == (4, 384)
    to_boxes, to_rings = (normal_frechet_distance(boxes, others, features) for others in (more_boxes, rings))
    assert 0 < to_boxes < to_rings / 3


def test_features_are_an_argument():
    cameras = sphere_cameras(3, distance=3.2, vertical_fov=45)
    views = [RenderedViews.of(trimesh.creation.box((1, 2, 3)), cameras, resolution=32)]

    def mean_colour(pictures):
        return torch.from_numpy(pictures.reshape(len(pictures), -1, 3).mean(axis=1))

    blank = [RenderedViews.of(None, cameras, resolution=32)]
    means = mean_colour(views[0].pictures)
    expected = (means.mean(dim=0) - 255).square().sum() + means.var(dim=0).sum()
    assert normal_frechet_distance(views, blank, mean_colour) == pytest.approx(expected.item())
