# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
import torch
import trimesh
from transformers import Dinov2Model


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
