# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What is fixed before the first step: the visible tokens, the batch, the noise, the timesteps."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.modular_pipelines import ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam, PipelineState

from ..models.autoencoder_vecset import VecSetVAE
from ..models.transformer_vilearn import ViLearnTransformer3DModel
from ..pipelines import stages
from ..visibility import inference_visible_mask
from .modular_pipeline import ViLearnModularPipeline

VISIBLE_MASK = InputParam(
    "visible_mask",
    required=True,
    type_hint=torch.Tensor,
    description="Which shape tokens are visible in the image, bool or in [0, 1]: (tokens,) or (shapes, tokens).",
)


class ViLearnVisibilityStep(ModularPipelineBlocks):
    model_name = "vilearn"

    @property
    def description(self) -> str:
        return (
            "Decides how many shape tokens there are and declares the first of them visible. Take this block out to"
            " give a `visible_mask` of your own."
        )

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [ComponentSpec("transformer", ViLearnTransformer3DModel), ComponentSpec("vae", VecSetVAE)]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam(
                "num_tokens",
                type_hint=int,
                description="Number of shape tokens; that of `latents`, else of `vae.config`, when not given.",
            ),
            InputParam(
                "visible_fraction",
                type_hint=float,
                description="Share of visible tokens in [0, 1]; `transformer.config.visible_fraction` if not given.",
            ),
            InputParam("latents", type_hint=torch.Tensor, description="Noise to start from, if it is given."),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("visible_mask", type_hint=torch.Tensor, description="(tokens,), bool.")]

    @torch.no_grad()
    def __call__(
        self, components: ViLearnModularPipeline, state: PipelineState
    ) -> tuple[ViLearnModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        num_tokens, visible_fraction = block_state.num_tokens, block_state.visible_fraction
        stages.check_noise(None, block_state.latents)
        stages.check_visible_fraction(visible_fraction)
        if num_tokens is None:
            latents = block_state.latents
            num_tokens = components.vae.config.num_tokens if latents is None else latents.shape[1]
        stages.check_integers(num_tokens=(num_tokens, 1))
        if visible_fraction is None:
            visible_fraction = components.transformer.config.visible_fraction
        block_state.visible_mask = inference_visible_mask(
            num_tokens, visible_fraction, device=components._execution_device
        )
        self.set_block_state(state, block_state)
        return components, state


class ViLearnInputStep(ModularPipelineBlocks):
    model_name = "vilearn"

    @property
    def description(self) -> str:
        return "Repeats the image tokens for each shape of an image and adds those of the unconditional branch, zeros."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [ComponentSpec("transformer", ViLearnTransformer3DModel)]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam(
                "image_embeds",
                required=True,
                type_hint=torch.Tensor,
                description="Image tokens (images, image tokens, channels).",
            ),
            InputParam("num_shapes_per_image", default=1, type_hint=int, description="Shapes to generate per image."),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [
            OutputParam("image_embeds", type_hint=torch.Tensor, description="(shapes, image tokens, channels)."),
            OutputParam(
                "negative_image_embeds",
                type_hint=torch.Tensor,
                description="Image tokens of the unconditional branch, of the same shape.",
            ),
        ]

    @torch.no_grad()
    def __call__(
        self, components: ViLearnModularPipeline, state: PipelineState
    ) -> tuple[ViLearnModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        stages.check_integers(num_shapes_per_image=(block_state.num_shapes_per_image, 1))
        stages.check_image_embeds(block_state.image_embeds, components.transformer.config.joint_attention_dim)
        block_state.image_embeds = block_state.image_embeds.to(
            device=components._execution_device, dtype=components.transformer.dtype
        ).repeat_interleave(block_state.num_shapes_per_image, dim=0)
        block_state.negative_image_embeds = torch.zeros_like(block_state.image_embeds)
        self.set_block_state(state, block_state)
        return components, state


class ViLearnPrepareLatentsStep(ModularPipelineBlocks):
    model_name = "vilearn"

    @property
    def description(self) -> str:
        return "Draws the noise, one token for each entry of `visible_mask`, or checks the noise given."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [ComponentSpec("transformer", ViLearnTransformer3DModel)]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam(
                "image_embeds",
                required=True,
                type_hint=torch.Tensor,
                description="Image tokens (shapes, image tokens, channels).",
            ),
            VISIBLE_MASK,
            InputParam("generator", description="A `torch.Generator`, or a list with one per shape."),
            InputParam("latents", type_hint=torch.Tensor, description="Noise to start from, if it is given."),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("latents", type_hint=torch.Tensor, description="Noise (shapes, tokens, channels).")]

    @torch.no_grad()
    def __call__(
        self, components: ViLearnModularPipeline, state: PipelineState
    ) -> tuple[ViLearnModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        stages.check_noise(block_state.generator, block_state.latents)
        stages.check_visible_mask(block_state.visible_mask, block_state.image_embeds.shape[0])
        shape = (
            block_state.image_embeds.shape[0],
            block_state.visible_mask.shape[-1],
            components.transformer.config.in_channels,
        )
        block_state.latents = stages.draw_latents(
            shape, components._execution_device, block_state.generator, block_state.latents
        )
        self.set_block_state(state, block_state)
        return components, state


class ViLearnSetTimestepsStep(ModularPipelineBlocks):
    model_name = "vilearn"

    @property
    def description(self) -> str:
        return "Sets the timesteps of the scheduler, shifted with the number of shape tokens where it says so."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [ComponentSpec("scheduler", FlowMatchEulerDiscreteScheduler)]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam.template("num_inference_steps"),
            InputParam.template("sigmas"),
            InputParam(
                "latents", required=True, type_hint=torch.Tensor, description="Noise (shapes, tokens, channels)."
            ),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [
            OutputParam("timesteps", type_hint=torch.Tensor, description="The timesteps, falling from 1000."),
            OutputParam("num_inference_steps", type_hint=int, description="How many there are."),
        ]

    @torch.no_grad()
    def __call__(
        self, components: ViLearnModularPipeline, state: PipelineState
    ) -> tuple[ViLearnModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        stages.check_scheduler(components.scheduler)
        stages.check_steps(block_state.num_inference_steps, block_state.sigmas)
        block_state.timesteps = stages.set_timesteps(
            components.scheduler,
            block_state.num_inference_steps,
            block_state.latents.shape[1],
            components._execution_device,
            block_state.sigmas,
        )
        block_state.num_inference_steps = len(block_state.timesteps)
        self.set_block_state(state, block_state)
        return components, state
