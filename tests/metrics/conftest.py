# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from transformers import Dinov2Model

from diffusers_vilearn.data.evaluation_views import EvaluationView
from diffusers_vilearn.data.frames import object_to_frame
from diffusers_vilearn.data.true_meshes import TrueMeshes
from diffusers_vilearn.geometry import fit_camera, render, sphere_cameras
from diffusers_vilearn.metrics.scorers import ScoredShape

CAMERAS = sphere_cameras(10, distance=3.2, vertical_fov=45)
AZIMUTH = 70


@pytest.fixture(scope="session")
def image_encoder() -> Dinov2Model:
    """The DINOv2 of the shipped checkpoint."""
    folder = Path(__file__).parents[2] / "checkpoints" / "vilearn-tiny" / "image_encoder"
    return Dinov2Model.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def chair() -> trimesh.Trimesh:
    """Without any symmetry: a seat, a back, an arm on one side, and one leg."""
    boxes = [
        ((1.0, 0.12, 1.0), (0.0, 0.0, 0.0)),
        ((1.0, 1.1, 0.12), (0.0, 0.55, -0.44)),
        ((0.12, 0.4, 0.7), (0.44, 0.25, 0.1)),
        ((0.2, 0.8, 0.2), (-0.3, -0.45, 0.3)),
    ]
    return trimesh.util.concatenate(
        [trimesh.creation.box(extents).apply_translation(centre) for extents, centre in boxes]
    )


@pytest.fixture(scope="session")
def truth(tmp_path_factory, chair) -> TrueMeshes:
    folder = tmp_path_factory.mktemp("meshes")
    record = dict.fromkeys(("source", "licence", "creator", "name", "category"), "test") | {"split": "heldout"}
    meshes = {"chair": chair, "box": trimesh.creation.box((1, 2, 0.5)), "ring": trimesh.creation.torus(1, 0.3)}
    lines = []
    for name, mesh in meshes.items():
        mesh.copy().apply_scale(12).export(folder / f"{name}.ply")
        lines.append(json.dumps(record | {"uid": f"a/{name}", "path": f"{name}.ply"}))
    (folder / "objects.jsonl").write_text("\n".join(lines))
    return TrueMeshes(folder / "objects.jsonl", folder, "heldout")


@pytest.fixture(scope="session")
def shape_of(truth):
    """(uid of the truth, mesh in the frame of the model) -> `ScoredShape` of a view from the side."""

    def make(uid: str, mesh: trimesh.Trimesh | None) -> ScoredShape:
        true = truth[uid]
        camera = fit_camera(true.vertices, AZIMUTH, 15)
        view = EvaluationView(
            uid=uid,
            view=0,
            image=Image.fromarray(render(true, camera, 140).color),
            camera=camera,
            similarity=object_to_frame("view", true.vertices, AZIMUTH),
            surface=np.zeros((0, 6)),
            sharp_edges=np.zeros((0, 6)),
            seen=np.zeros(0, bool),
            xyz=np.zeros((0, 3)),
            inside=np.zeros(0, bool),
        )
        return ScoredShape(mesh, view, cameras=CAMERAS, resolution=70, truth=truth)

    return make
