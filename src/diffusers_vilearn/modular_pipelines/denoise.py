# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The denoising loop. Guidance is a component, a guider of diffusers."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.configuration_utils import FrozenDict
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines import (
    BlockState,
    ComponentSpec,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
)

from ..models.transformer_vilearn import ViLearnTransformer3DModel
from ..pipelines import stages
from .before_denoise import VISIBLE_MASK
from .modular_pipeline import ViLearnModularPipeline

LATENTS = InputParam(
    "latents", required=True, type_hint=torch.Tensor, description="Noisy shape tokens (shapes, tokens, channels)."
)


class ViLearnLoopDenoiser(ModularPipelineBlocks):
    model_name = "vilearn"

    @property
    def description(self) -> str:
        return (
            "Step of the loop: the transformer's velocity for each of the guider's conditions, combined by the guider."
        )

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [
            ComponentSpec("transformer", ViLearnTransformer3DModel),
            ComponentSpec(
                "guider",
                ClassifierFreeGuidance,
                config=FrozenDict({"guidance_scale": 3.0}),
                default_creation_method="from_config",
            ),
        ]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            LATENTS,
            VISIBLE_MASK,
            InputParam(
                "image_embeds",
                required=True,
                type_hint=torch.Tensor,
                description="Image tokens (shapes, image tokens, channels).",
            ),
            InputParam(
                "negative_image_embeds",
                required=True,
                type_hint=torch.Tensor,
                description="Image tokens of the unconditional branch, of the same shape.",
            ),
            InputParam.template("num_inference_steps", required=True),
            InputParam.template("attention_kwargs"),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("velocity", type_hint=torch.Tensor, description="Guided velocity of this step.")]

    @torch.no_grad()
    def __call__(
        self, components: ViLearnModularPipeline, block_state: BlockState, i: int, t: torch.Tensor
    ) -> tuple[ViLearnModularPipeline, BlockState]:
        guider, transformer = components.guider, components.transformer
        guider.set_state(step=i, num_inference_steps=block_state.num_inference_steps, timestep=t)
        conditions = guider.prepare_inputs(
            {"image_embeds": (block_state.image_embeds, block_state.negative_image_embeds)}
        )
        for condition in conditions:
            try:
                guider.prepare_models(transformer)
                condition.noise_pred = stages.predict_velocity(
                    transformer,
                    block_state.latents,
                    condition.image_embeds,
                    t,
                    block_state.visible_mask.to(block_state.latents.device),
                    block_state.attention_kwargs,
                    context=getattr(condition, guider._identifier_key),
                )
            finally:
                # Blocks that an interrupted call left skipped would be skipped by the next one, too.
                guider.cleanup_models(transformer)
        block_state.velocity = guider(conditions).pred
        return components, block_state


class ViLearnLoopAfterDenoiser(ModularPipelineBlocks):
    model_name = "vilearn"

    @property
    def description(self) -> str:
        return "Step of the loop: the scheduler goes along the velocity."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [ComponentSpec("scheduler", FlowMatchEulerDiscreteScheduler)]

    @property
    def inputs(self) -> list[InputParam]:
        return [LATENTS, InputParam("generator", description="For schedulers that draw noise at each step.")]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("latents", type_hint=torch.Tensor, description="Shape tokens after this step.")]

    @torch.no_grad()
    def __call__(
        self, components: ViLearnModularPipeline, block_state: BlockState, i: int, t: torch.Tensor
    ) -> tuple[ViLearnModularPipeline, BlockState]:
        step_kwargs = stages.scheduler_step_kwargs(components.scheduler, block_state.generator)
        block_state.latents = components.scheduler.step(
            block_state.velocity, t, block_state.latents, **step_kwargs, return_dict=False
        )[0]
        return components, block_state


class ViLearnDenoiseStep(LoopSequentialPipelineBlocks):
    model_name = "vilearn"
    block_classes = [ViLearnLoopDenoiser, ViLearnLoopAfterDenoiser]  # noqa: RUF012, as the superclass declares it
    block_names = ["denoiser", "after_denoiser"]  # noqa: RUF012

    @property
    def description(self) -> str:
        return "The denoising loop over `timesteps`; what happens in a step are its `sub_blocks`."

    @property
    def loop_expected_components(self) -> list[ComponentSpec]:
        return [ComponentSpec("transformer", ViLearnTransformer3DModel)]

    @property
    def loop_inputs(self) -> list[InputParam]:
        return [InputParam.template("timesteps", required=True)]

    @torch.no_grad()
    def __call__(
        self, components: ViLearnModularPipeline, state: PipelineState
    ) -> tuple[ViLearnModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        try:
            with self.progress_bar(total=len(block_state.timesteps)) as progress_bar:
                for i, t in enumerate(block_state.timesteps):
                    components, block_state = self.loop_step(components, block_state, i=i, t=t)
                    progress_bar.update()
        finally:
            # What an interrupted call leaves there is of no use to the next one.
            components.transformer._reset_stateful_cache()
        self.set_block_state(state, block_state)
        return components, state
