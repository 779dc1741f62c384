# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""IS-AS of samples whose true mesh is known."""

from pathlib import Path

import torch
import trimesh
from grid import Settings

from diffusers_vilearn.data.evaluation_views import EvaluationView
from diffusers_vilearn.data.image_encoders import load_image_encoder
from diffusers_vilearn.data.true_meshes import TrueMeshes
from diffusers_vilearn.geometry.cameras import sphere_cameras
from diffusers_vilearn.metrics.rendered_views import DISTANCE, VERTICAL_FOV
from diffusers_vilearn.metrics.scorers import AlignmentScorer, ScoredShape


class Alignments:
    """Measures IS-AS as the settings of a grid say.

    Args:
        settings (`Settings`): with an `alignment`.
        device (`torch.device`): of the encoder.
    """

    def __init__(self, settings: Settings, device: torch.device):
        options = settings.alignment
        self.truth = TrueMeshes(Path(options.objects), Path(options.root), settings.scoring.split)
        self.cameras = sphere_cameras(options.num_cameras, distance=DISTANCE, vertical_fov=VERTICAL_FOV)
        self.resolution = options.resolution
        encoder = load_image_encoder(settings.image_encoder).to(device)
        self.scorer = AlignmentScorer(encoder)

    def score(self, mesh: trimesh.Trimesh | None, view: EvaluationView) -> dict[str, float]:
        """`is_as` of one sampled shape, `None` for one that failed."""
        shape = ScoredShape(mesh, view, cameras=self.cameras, resolution=self.resolution, truth=self.truth)
        return self.scorer.add(shape)
