# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of the evaluation on true meshes: a right shape, a wrong one and one that failed."""

import os
import resource

import numpy as np
import pytest
import trimesh

from diffusers_vilearn.geometry import fit_camera, render
from diffusers_vilearn.metrics.frechet import Dinov2Features
from diffusers_vilearn.metrics.scorers import (
    AlignmentScorer,
    DetailScorer,
    FrechetScorer,
    RenderScorer,
    TurntableScorer,
    file_name,
)


def right(shape_of, uid: str) -> trimesh.Trimesh:
    return shape_of(uid, None).true_mesh.copy()


def test_true_meshes_are_normalised_and_turned_to_the_view(truth, shape_of):
    assert np.abs(truth["a/chair"].bounds).max() == pytest.approx(0.95)
    shape = shape_of("a/chair", None)
    assert np.abs(shape.true_mesh.bounds).max() == pytest.approx(0.95)
    camera = fit_camera(shape.true_mesh.vertices, 0, 15)
    seen = np.asarray(shape.view.image.getchannel("A"))
    assert np.abs(seen - render(shape.true_mesh, camera, 140).color[..., 3].astype(float)).mean() < 8
    with pytest.raises(ValueError, match="no object 'a/table'"):
        truth["a/table"]


def test_alignment_with_true_normals_prefers_the_right_shape(shape_of, image_encoder):
    scorer = AlignmentScorer(image_encoder)
    meshes = {"right": right(shape_of, "a/chair"), "wrong": right(shape_of, "a/ring"), "failed": None}
    scores = {name: scorer.add(shape_of("a/chair", mesh))["is_as"] for name, mesh in meshes.items()}
    assert scores["failed"] == 0 < scores["wrong"] < scores["right"] <= 1


def test_alignment_takes_an_estimator(shape_of, image_encoder):
    sizes = []

    def estimate(image):
        sizes.append(image.size)
        return np.broadcast_to([0.0, 0.0, 1.0], (image.height, image.width, 3))

    shape = shape_of("a/box", right(shape_of, "a/box"))
    assert AlignmentScorer(image_encoder, estimate).add(shape)["is_as"] > 0 and sizes == [(140, 140)]


def test_detail_is_behind_as_the_view_sees_it(shape_of):
    sphere = trimesh.creation.icosphere(subdivisions=4)
    depth = sphere.triangles_center[:, 2]
    # A camera of the view frame stands at +Z, some degrees above.
    halves = (sphere.submesh([np.flatnonzero(half)], append=True) for half in (depth > 0, depth < 0))
    front, back = (DetailScorer().add(shape_of("a/box", mesh))["area_behind"] for mesh in halves)
    # The cap behind the middle of the half sphere.
    assert front < 0.2 * back and back == pytest.approx(np.pi, rel=0.1)


def test_renders_of_the_right_shape_are_the_same(shape_of):
    scorer = RenderScorer(resolution=48)
    scores = [
        scorer.add(shape_of("a/box", mesh)) for mesh in (right(shape_of, "a/box"), right(shape_of, "a/ring"), None)
    ]
    assert scores[0]["psnr"] > 60 and scores[0]["ssim"] > 0.999
    assert scores[1]["psnr"] < 40 and scores[2]["psnr"] < 40


def test_frechet_distance_of_the_true_shapes_is_nothing(tmp_path, shape_of, image_encoder):
    uids = ("a/chair", "a/box", "a/ring")
    features = Dinov2Features(image_encoder)
    distances = {}
    for name, meshes in {
        "right": [right(shape_of, uid) for uid in uids],
        "wrong": [trimesh.creation.icosphere(subdivisions=2)] * 3,
        "failed": [None] * 3,
    }.items():
        scorer = FrechetScorer(tmp_path / name, features, num_views=4)
        scores = {}
        for uid, mesh in zip(uids, meshes):
            shape = shape_of(uid, mesh)
            scores[shape.view.key] = scorer.add(shape)
        same, measured = scorer.finish(scores)
        assert same == scores and measured["normal_fd"]["n"] == 3
        distances[name] = measured["normal_fd"]["mean"]
    assert distances["right"] < 1e-2 * min(distances["wrong"], distances["failed"])


@pytest.fixture
def few_open_files():
    """Hardly more than are open already."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 20, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_frechet_distance_of_many_views_counts_objects_and_holds_no_files_open(tmp_path, few_open_files):
    rng = np.random.default_rng(0)
    keys = [(f"a/{i}", view) for i in range(16) for view in range(4)]
    for key in keys:
        np.savez(tmp_path / f"{file_name(key)}.npz", generated=rng.normal(size=(2, 3)), true=rng.normal(size=(2, 3)))
    _, measured = FrechetScorer(tmp_path, features=None).finish({key: {} for key in keys})
    assert measured["normal_fd"]["n"] == 16 and measured["normal_fd"]["views"] == len(keys)


def test_turntables_are_scored_at_once_and_only_those_that_lack_scores(tmp_path, shape_of):
    asked = []

    def hi3deval(turntables):
        assert all(turntable.video.is_file() and turntable.prompt.is_file() for turntable in turntables)
        asked.append(len(turntables))
        return [{"gp": 5.0, "gd": 4.0} for _ in turntables]

    scorer = TurntableScorer(tmp_path / "turntables", hi3deval)
    scores = {}
    for uid, mesh in (("a/box", right(shape_of, "a/box")), ("a/ring", None)):
        shape = shape_of(uid, mesh)
        scores[shape.view.key] = {"failed": int(mesh is None), **scorer.add(shape)}
    finished, measured = scorer.finish(scores)
    assert measured == {} and finished["a/box", 0] == {"failed": 0, "gp": 5.0, "gd": 4.0}
    assert finished["a/ring", 0] == {"failed": 1, "gp": 0.0, "gd": 0.0}
    assert scorer.finish(finished)[0] == finished and asked == [1]
