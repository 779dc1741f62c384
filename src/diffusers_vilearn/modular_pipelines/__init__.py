# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The modular pipeline: the stages of image-to-3D generation as blocks to take out, replace and rearrange."""

from .before_denoise import (
    ViLearnInputStep,
    ViLearnPrepareLatentsStep,
    ViLearnSetTimestepsStep,
    ViLearnVisibilityStep,
)
from .decoders import ViLearnDecodeStep, ViLearnMeshStep
from .denoise import ViLearnDenoiseStep
from .encoders import ViLearnImageEncoderStep
from .modular_blocks_vilearn import ViLearnCoreDenoiseStep, ViLearnImageTo3DBlocks
from .modular_pipeline import ViLearnModularPipeline

__all__ = [
    "ViLearnCoreDenoiseStep",
    "ViLearnDecodeStep",
    "ViLearnDenoiseStep",
    "ViLearnImageEncoderStep",
    "ViLearnImageTo3DBlocks",
    "ViLearnInputStep",
    "ViLearnMeshStep",
    "ViLearnModularPipeline",
    "ViLearnPrepareLatentsStep",
    "ViLearnSetTimestepsStep",
    "ViLearnVisibilityStep",
]
