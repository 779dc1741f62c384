# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The blocks put together."""

from diffusers.modular_pipelines import OutputParam, SequentialPipelineBlocks

from .before_denoise import (
    ViLearnInputStep,
    ViLearnPrepareLatentsStep,
    ViLearnSetTimestepsStep,
    ViLearnVisibilityStep,
)
from .decoders import ViLearnDecodeStep, ViLearnMeshStep
from .denoise import ViLearnDenoiseStep
from .encoders import ViLearnImageEncoderStep


class ViLearnCoreDenoiseStep(SequentialPipelineBlocks):
    """From image tokens to denoised shape tokens: batch, noise, timesteps, and the loop over them."""

    model_name = "vilearn"
    block_classes = [  # noqa: RUF012, as the superclass declares it
        ViLearnInputStep,
        ViLearnPrepareLatentsStep,
        ViLearnSetTimestepsStep,
        ViLearnDenoiseStep,
    ]
    block_names = ["input", "prepare_latents", "set_timesteps", "denoise"]  # noqa: RUF012

    @property
    def description(self) -> str:
        return "From image tokens and visibility to denoised shape tokens."

    @property
    def outputs(self) -> list[OutputParam]:
        return [OutputParam.template("latents", description="Shape tokens (shapes, tokens, channels), normalised.")]


class ViLearnImageTo3DBlocks(SequentialPipelineBlocks):
    """
    An image in, a mesh out: `image_encoder`, `visibility`, `denoise`, `decode`, `mesh`. Each runs on its own, and each
    can be taken out (`blocks.sub_blocks.pop("visibility")`) or replaced (`blocks.sub_blocks["mesh"] = MyStep()`).
    """

    model_name = "vilearn"
    block_classes = [  # noqa: RUF012
        ViLearnImageEncoderStep,
        ViLearnVisibilityStep,
        ViLearnCoreDenoiseStep,
        ViLearnDecodeStep,
        ViLearnMeshStep,
    ]
    block_names = ["image_encoder", "visibility", "denoise", "decode", "mesh"]  # noqa: RUF012

    @property
    def description(self) -> str:
        return "Image-to-3D generation: encode the image, declare visible tokens, denoise, decode, extract the mesh."

    @property
    def outputs(self) -> list[OutputParam]:
        return [
            OutputParam(
                "meshes",
                type_hint=list,
                description="One `trimesh.Trimesh` per shape, or with `output_type='pt'` the fields in one tensor.",
            )
        ]
