# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""From shape tokens to meshes."""

import torch
from diffusers.modular_pipelines import ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam, PipelineState

from ..models.autoencoder_vecset import KeyValue, VecSetVAE
from ..pipelines import stages
from .modular_pipeline import ViLearnModularPipeline


class ViLearnDecodeStep(ModularPipelineBlocks):
    model_name = "vilearn"

    @property
    def description(self) -> str:
        return "Runs the self-attention of the VAE's decoder, once per shape: what answers the field at any point."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [ComponentSpec("vae", VecSetVAE)]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam(
                "latents",
                required=True,
                type_hint=torch.Tensor,
                description="Shape tokens (shapes, tokens, channels), normalised as the transformer predicts them.",
            )
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [
            OutputParam(
                "shapes",
                type_hint=list[KeyValue],
                description="Keys and values of the VAE's last cross-attention, one pair per shape.",
            )
        ]

    @torch.no_grad()
    def __call__(
        self, components: ViLearnModularPipeline, state: PipelineState
    ) -> tuple[ViLearnModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        stages.check_noise(None, block_state.latents)
        latents = block_state.latents.to(components._execution_device)
        block_state.shapes = list(stages.decode_shapes(components.vae, latents))
        self.set_block_state(state, block_state)
        return components, state


class ViLearnMeshStep(ModularPipelineBlocks):
    model_name = "vilearn"

    @property
    def description(self) -> str:
        return "Extracts the surface of each shape by sparse marching cubes, or its field on a grid."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [ComponentSpec("vae", VecSetVAE)]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam(
                "shapes",
                required=True,
                type_hint=list[KeyValue],
                description="Keys and values of the VAE's last cross-attention, one pair per shape.",
            ),
            InputParam("resolution", default=256, type_hint=int, description="Cells of the grid along each side."),
            InputParam("level", default=0.0, type_hint=float, description="Field value of the surface."),
            InputParam("chunk_size", default=16384, type_hint=int, description="Points the VAE answers at a time."),
            InputParam(
                "output_type",
                default="trimesh",
                type_hint=str,
                description="`'trimesh'` for meshes, `'pt'` for the field on the grid.",
            ),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [
            OutputParam(
                "meshes",
                type_hint=list,
                description="One `trimesh.Trimesh` per shape, or with `output_type='pt'` the fields in one tensor.",
            )
        ]

    @torch.no_grad()
    def __call__(
        self, components: ViLearnModularPipeline, state: PipelineState
    ) -> tuple[ViLearnModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        settings = (block_state.resolution, block_state.level, block_state.chunk_size, block_state.output_type)
        stages.check_surface(*settings, output_types=stages.SHAPE_OUTPUT_TYPES)
        block_state.meshes = stages.extract_shapes(components.vae, block_state.shapes, *settings)
        self.set_block_state(state, block_state)
        return components, state
