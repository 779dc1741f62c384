# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""From images to image tokens."""

import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.modular_pipelines import ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam, PipelineState
from transformers import BaseImageProcessor, Dinov2Model

from ..pipelines import stages
from ..pipelines.image_processor import PipelineImage, ViLearnImageProcessor
from .modular_pipeline import ViLearnModularPipeline


class ViLearnImageEncoderStep(ModularPipelineBlocks):
    model_name = "vilearn"

    @property
    def description(self) -> str:
        return "Encodes each image, its object cut out on white, into DINOv2 patch tokens."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [
            ComponentSpec("image_encoder", Dinov2Model),
            ComponentSpec("feature_extractor", BaseImageProcessor),
            ComponentSpec(
                "image_processor",
                ViLearnImageProcessor,
                config=FrozenDict({"foreground": 0.9}),
                default_creation_method="from_config",
            ),
        ]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam(
                "image",
                required=True,
                type_hint=PipelineImage,
                description="The object on a transparent background (RGBA), or a list of such images.",
            )
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [
            OutputParam(
                "image_embeds", type_hint=torch.Tensor, description="Image tokens (images, image tokens, channels)."
            )
        ]

    @torch.no_grad()
    def __call__(
        self, components: ViLearnModularPipeline, state: PipelineState
    ) -> tuple[ViLearnModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        block_state.image_embeds = stages.encode_images(
            block_state.image,
            components.image_processor,
            components.feature_extractor,
            components.image_encoder,
            components._execution_device,
        )
        self.set_block_state(state, block_state)
        return components, state
