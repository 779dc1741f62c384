# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""IS-AS offline: the encoder of the shipped checkpoint, and a rendered normal map in place of an estimated one."""

import sys

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from diffusers_vilearn.geometry import render, sphere_cameras
from diffusers_vilearn.metrics.image_alignment import image_shape_alignment
from diffusers_vilearn.metrics.normal_maps import MoGeNormalEstimator, estimated_normal_picture, normal_picture
from diffusers_vilearn.metrics.rendered_views import RenderedViews, in_unit_sphere

SIZE = 112
CAMERAS = sphere_cameras(12, distance=3.2, vertical_fov=45)


def photograph(mesh: trimesh.Trimesh, view: int, size: int = SIZE) -> tuple[Image.Image, np.ndarray]:
    """RGBA picture of the mesh from one of the cameras, and its true normals in the camera's frame."""
    rendering = render(in_unit_sphere(mesh), CAMERAS[view], size)
    picture = rendering.color.copy()
    picture[..., 3] = np.where(rendering.mask, 255, 0)
    return Image.fromarray(picture), rendering.normal @ CAMERAS[view].camera_to_world[:3, :3]


@pytest.fixture(scope="module")
def views(chair) -> RenderedViews:
    return RenderedViews.of(chair, CAMERAS, resolution=SIZE)


def test_cameras_are_spread_over_the_sphere():
    positions = np.stack([camera.position for camera in sphere_cameras(512, distance=2)]) / 2
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), 1)
    assert np.abs(positions.mean(axis=0)).max() < 0.01
    # of equal areas the second moments are a third each
    np.testing.assert_allclose(positions.T @ positions / 512, np.eye(3) / 3, atol=0.01)
    cosines = positions @ positions.T - 2 * np.eye(512)
    nearest = np.degrees(np.arccos(cosines.max(axis=1)))
    assert nearest.min() > 7.5 and nearest.max() < 9.1
    with pytest.raises(ValueError, match="count"):
        sphere_cameras(0, distance=1)


def test_a_ball_looks_the_same_from_everywhere_and_shows_the_colour_code():
    views = RenderedViews.of(trimesh.creation.icosphere(subdivisions=5), CAMERAS, resolution=SIZE)
    assert np.abs(views.pictures.astype(int) - views.pictures[0]).mean() < 1
    picture, middle, edge = views.pictures[5].astype(int), SIZE // 2, round(0.08 * SIZE)
    np.testing.assert_allclose(picture[middle, middle], [128, 128, 255], atol=6)
    assert picture[middle, -edge, 0] > 220 > 40 > picture[middle, edge, 0], "red grows to the right"
    assert picture[edge, middle, 1] > 220 > 40 > picture[-edge, middle, 1], "green grows upwards"
    np.testing.assert_array_equal(picture[0, 0], 255)
    rows, columns = np.nonzero((picture < 250).any(axis=-1))
    assert abs(np.ptp(rows) + 1 - 0.9 * SIZE) <= 2 and abs(np.ptp(columns) + 1 - 0.9 * SIZE) <= 2


def test_the_mesh_itself_scores_one_and_its_view_is_found(chair, views, image_encoder):
    for view in (2, 7):
        image, normals = photograph(chair, view)
        alignment = image_shape_alignment(
            image, views, image_encoder, lambda image, normals=normals: normals, batch_size=5
        )
        assert alignment.view == view and alignment.score == pytest.approx(1, abs=1e-4)


def test_a_rotated_or_other_object_scores_less(chair, views, image_encoder):
    image, normals = photograph(chair, 4)
    turn = trimesh.transformations.rotation_matrix(0.4, (1, 2, 3))
    others = {"rotated": chair.copy().apply_transform(turn), "other": trimesh.creation.icosphere()}
    scores = {
        name: image_shape_alignment(
            image, RenderedViews.of(mesh, CAMERAS, resolution=SIZE), image_encoder, lambda image: normals
        ).score
        for name, mesh in others.items()
    }
    assert scores["other"] < scores["rotated"] < 0.99, scores


def test_size_and_place_of_the_mesh_do_not_matter(chair, views):
    moved = chair.copy().apply_scale(37.0).apply_translation([5, -80, 11])
    difference = np.abs(RenderedViews.of(moved, CAMERAS, resolution=SIZE).pictures.astype(int) - views.pictures)
    assert difference.mean() < 0.01


def test_size_and_place_of_the_object_in_the_image_do_not_matter(chair, views, image_encoder):
    image, normals = photograph(chair, 7, size=4 * SIZE)
    shifted = np.zeros((700, 900, 4), np.uint8)
    where = np.zeros((700, 900, 3))
    shifted[240 : 240 + 4 * SIZE, 430 : 430 + 4 * SIZE] = np.asarray(image)
    where[240 : 240 + 4 * SIZE, 430 : 430 + 4 * SIZE] = normals
    pictures = [
        estimated_normal_picture(picture, lambda image, map=map: map, SIZE)
        for picture, map in ((image, normals), (Image.fromarray(shifted), where))
    ]
    np.testing.assert_array_equal(*map(np.asarray, pictures))
    alignment = image_shape_alignment(image, views, image_encoder, lambda image: normals)
    assert alignment.view == 7 and alignment.score > 0.9


def test_no_view_of_a_full_box_is_cut_off():
    box = in_unit_sphere(trimesh.creation.box())
    for camera in sphere_cameras(30, distance=3.2, vertical_fov=45):
        mask = render(box, camera, 70).mask
        assert mask.any() and not (mask[[0, -1]].any() or mask[:, [0, -1]].any())


def test_a_failed_shape_and_a_sheet_seen_from_its_edge_are_white():
    assert (RenderedViews.of(None, CAMERAS[:2], resolution=28).pictures == 255).all()
    assert (np.asarray(normal_picture(np.zeros((9, 9, 3)), np.zeros((9, 9), bool), 14)) == 255).all()


def test_spread_takes_views_from_the_top_to_the_bottom(views):
    some = views.spread(3)
    assert [camera.position[1] for camera in some.cameras] == [CAMERAS[i].position[1] for i in (0, 6, 11)]
    np.testing.assert_array_equal(some.pictures[2], views.pictures[11])
    with pytest.raises(ValueError, match="from 1 to the number of views, 12"):
        views.spread(13)


def test_what_does_not_fit_is_refused(chair, views, image_encoder):
    image, normals = photograph(chair, 0)
    with pytest.raises(ValueError, match="must be RGBA"):
        image_shape_alignment(image.convert("RGB"), views, image_encoder, lambda image: normals)
    with pytest.raises(ValueError, match=r"must return normals of shape \(112, 112, 3\)"):
        image_shape_alignment(image, views, image_encoder, lambda image: normals[:5])
    with pytest.raises(ValueError, match="patch size, 14"):
        odd = RenderedViews.of(chair, CAMERAS[:1], resolution=100)
        image_shape_alignment(image, odd, image_encoder, lambda image: normals)


def test_moge_missing_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "moge", None)
    with pytest.raises(ImportError, match=r"pip install git\+https://github.com/microsoft/MoGe.git"):
        MoGeNormalEstimator.from_pretrained()


class FacingDown(torch.nn.Module):
    """MoGe's interface: every pixel's normal points down and towards the camera, in OpenCV's frame."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def infer(self, image, *, apply_mask, use_fp16):
        assert image.shape[0] == 3 and image.dtype == torch.float32 and image.max() <= 1
        assert not use_fp16 and not apply_mask
        self.corner = image[:, 0, 0]
        return {"normal": torch.tensor([0.0, 0.6, -0.8]).expand(*image.shape[1:], 3)}


def test_normals_of_moge_are_turned_into_our_frame(chair):
    model = FacingDown()
    image, _ = photograph(chair, 3)
    normals = MoGeNormalEstimator(model)(image)
    np.testing.assert_allclose(normals, np.broadcast_to([0, -0.6, 0.8], (SIZE, SIZE, 3)), atol=1e-6)
    torch.testing.assert_close(model.corner, torch.ones(3))


@pytest.mark.cuda
def test_alignment_on_cuda_is_that_on_the_cpu(chair, views, image_encoder):
    image, normals = photograph(chair, 2)
    on_cpu = image_shape_alignment(image, views, image_encoder, lambda image: normals)
    on_cuda = image_shape_alignment(image, views, image_encoder.cuda(), lambda image: normals)
    image_encoder.cpu()
    assert on_cuda.view == on_cpu.view and on_cuda.score == pytest.approx(on_cpu.score, abs=1e-3)
