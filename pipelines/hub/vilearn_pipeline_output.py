# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
# Written by pipelines/build_hub_files.py from src/diffusers_vilearn/pipelines/pipeline_output.py; edit that file instead.
"""What the pipelines return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from diffusers.utils import BaseOutput

if TYPE_CHECKING:
    import trimesh


@dataclass
class ViLearnPipelineOutput(BaseOutput):
    """
    Output class of [`ViLearnImageTo3DPipeline`].

    Args:
        meshes (`list[trimesh.Trimesh]` or `torch.Tensor`):
            One mesh per shape, in the frame and the bounds of the checkpoint's VAE. With `output_type="latent"` the
            normalised shape tokens `(batch, tokens, channels)`, with `output_type="pt"` the field on a grid
            `(batch, resolution + 1, resolution + 1, resolution + 1)`, indexed x, y, z and positive inside.
    """

    meshes: list[trimesh.Trimesh] | torch.Tensor
