# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""One image in, a mesh out."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import replace_example_docstring
from transformers import BaseImageProcessor, Dinov2Model, Dinov2WithRegistersModel

from ..loaders import ViLearnLoraLoaderMixin
from ..models.autoencoder_vecset import VecSetVAE
from ..models.transformer_vilearn import ViLearnTransformer3DModel
from ..visibility import inference_visible_mask
from .image_processor import PipelineImage, ViLearnImageProcessor
from .pipeline_loading_utils import ViLearnDiffusionPipeline
from .pipeline_output import ViLearnPipelineOutput
from .stages import (
    SHAPE_OUTPUT_TYPES,
    check_guidance_scale,
    check_image_embeds,
    check_integers,
    check_noise,
    check_scheduler,
    check_steps,
    check_surface,
    check_visible_fraction,
    decode_shapes,
    draw_latents,
    encode_images,
    extract_shapes,
    predict_velocity,
    scheduler_step_kwargs,
    set_timesteps,
)

EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from PIL import Image
        >>> from diffusers_vilearn import ViLearnImageTo3DPipeline

        >>> pipe = ViLearnImageTo3DPipeline.from_pretrained("checkpoints/vilearn-tiny")
        >>> generator = torch.Generator().manual_seed(0)
        >>> mesh = pipe(Image.open("chair.png"), num_inference_steps=25, generator=generator).meshes[0]
        >>> mesh.export("chair.glb")
        ```
"""

OUTPUT_TYPES = (*SHAPE_OUTPUT_TYPES, "latent")


class ViLearnImageTo3DPipeline(ViLearnDiffusionPipeline, ViLearnLoraLoaderMixin):
    r"""
    Image-to-3D generation with ViLearn: a rectified-flow MM-DiT over the shape tokens of a VecSet VAE, conditioned on
    DINOv2 patch tokens, with visibility-aware positional encoding.

    This model inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    implemented for all pipelines (downloading, saving, running on a particular device, etc.). It also inherits from
    [`ViLearnLoraLoaderMixin`] for loading, fusing and saving LoRA layers.

    Args:
        vae ([`VecSetVAE`]):
            Decodes shape tokens into a field that is positive inside the object.
        transformer ([`ViLearnTransformer3DModel`]):
            Denoises the normalised shape tokens.
        scheduler ([`FlowMatchEulerDiscreteScheduler`]):
            A flow-matching scheduler; others of the same convention, such as [`FlowMatchHeunDiscreteScheduler`], work
            as well.
        image_encoder ([`~transformers.Dinov2Model`] or [`~transformers.Dinov2WithRegistersModel`]):
            Its patch tokens are the condition. May be `None` when `image_embeds` are passed.
        feature_extractor ([`~transformers.BitImageProcessor`]):
            Its `crop_size` is the size of the condition image; it normalises the colours. May be `None` when
            `image_embeds` are passed.
    """

    model_cpu_offload_seq = "image_encoder->transformer->vae"
    _optional_components = ["image_encoder", "feature_extractor"]  # noqa: RUF012, as the superclass declares it
    _callback_tensor_inputs = ["latents", "image_embeds"]  # noqa: RUF012

    def __init__(
        self,
        vae: VecSetVAE,
        transformer: ViLearnTransformer3DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        # without defaults, or `DiffusionPipeline.from_pretrained` would not take them from its caller
        image_encoder: Dinov2Model | Dinov2WithRegistersModel | None,
        feature_extractor: BaseImageProcessor | None,
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            transformer=transformer,
            scheduler=scheduler,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )
        if feature_extractor is not None:
            # Without torchvision the class is a substitute (`BitImageProcessorPil`); its own file names the class
            # that loads with and without torchvision, and so must model_index.json.
            name = feature_extractor.to_dict()["image_processor_type"]
            self.register_to_config(feature_extractor=("transformers", name))
        self.image_processor = ViLearnImageProcessor()

    def check_inputs(
        self,
        image,
        num_inference_steps,
        num_tokens,
        guidance_scale,
        visible_fraction,
        num_shapes_per_image,
        generator,
        latents,
        sigmas,
        resolution,
        level,
        chunk_size,
        image_embeds,
        output_type,
        callback_on_step_end_tensor_inputs,
    ):
        """Raises `ValueError` for arguments of `__call__` that cannot be used, before anything is computed."""
        if (image is None) == (image_embeds is None):
            raise ValueError("Exactly one of `image` and `image_embeds` must be given.")
        if image_embeds is not None:
            check_image_embeds(image_embeds, self.transformer.config.joint_attention_dim)
        check_noise(generator, latents)
        check_steps(num_inference_steps, sigmas)
        check_visible_fraction(visible_fraction)
        check_surface(resolution, level, chunk_size, output_type, OUTPUT_TYPES)
        check_integers(
            num_tokens=(1 if num_tokens is None else num_tokens, 1), num_shapes_per_image=(num_shapes_per_image, 1)
        )
        check_guidance_scale(guidance_scale)
        check_scheduler(self.scheduler)
        unknown = set(callback_on_step_end_tensor_inputs or ()) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` has to be in {self._callback_tensor_inputs}, but found"
                f" {sorted(unknown)}."
            )

    def encode_image(
        self, image: PipelineImage, device: torch.device | None = None, num_shapes_per_image: int = 1
    ) -> torch.Tensor:
        r"""
        DINOv2 patch tokens of the condition image; the class token and registers are dropped.

        Args:
            image: whatever [`ViLearnImageProcessor.preprocess`] takes.
            device: where the tokens go; the execution device of the pipeline when `None`.
            num_shapes_per_image: how often the tokens of each image are repeated.

        Returns:
            `(images * num_shapes_per_image, image tokens, channels)`.
        """
        image_embeds = encode_images(
            image, self.image_processor, self.feature_extractor, self.image_encoder, device or self._execution_device
        )
        return image_embeds.repeat_interleave(num_shapes_per_image, dim=0)

    def prepare_latents(
        self,
        batch_size: int,
        num_tokens: int,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Gaussian noise `(batch_size, num_tokens, channels)` in float32, or the `latents` given, checked."""
        shape = (batch_size, num_tokens, self.transformer.config.in_channels)
        return draw_latents(shape, device, generator, latents)

    @torch.no_grad()
    def decode_latents(
        self,
        latents: torch.Tensor,
        resolution: int,
        level: float = 0.0,
        chunk_size: int = 16384,
        output_type: str = "trimesh",
    ):
        r"""
        Meshes, or fields on a grid, of normalised shape tokens. Shapes are decoded one by one: the self-attention of
        the VAE and the keys and values of its last cross-attention are computed once for each.

        Args:
            latents: `(batch, tokens, channels)`, normalised as the transformer predicts them.
            resolution: cells of the grid along each side of the bounds, at least 8.
            level: the field value of the surface.
            chunk_size: how many query points the VAE answers at a time.
            output_type: `"trimesh"` or `"pt"`.

        Returns:
            A list of `trimesh.Trimesh`, or `(batch, resolution + 1, resolution + 1, resolution + 1)`.

        Raises:
            ValueError: for arguments that cannot be used, or a shape without a surface.
        """
        check_noise(None, latents)
        check_surface(resolution, level, chunk_size, output_type, SHAPE_OUTPUT_TYPES)
        return extract_shapes(
            self.vae,
            decode_shapes(self.vae, latents.to(self._execution_device)),
            resolution,
            level,
            chunk_size,
            output_type,
            progress_bar=partial(self._labelled_progress_bar, "meshing", 0),
        )

    def _labelled_progress_bar(self, label: str, total: int):
        """The user's progress bar, with `label` where `set_progress_bar_config` gave no other."""
        progress_bar = self.progress_bar(total=total)
        if "desc" not in self._progress_bar_config:
            progress_bar.set_description(label)
        return progress_bar

    @property
    def guidance_scale(self):
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self):
        return self._guidance_scale > 1

    @property
    def attention_kwargs(self):
        return self._attention_kwargs

    @property
    def num_timesteps(self):
        return self._num_timesteps

    @property
    def current_timestep(self):
        return self._current_timestep

    @property
    def interrupt(self):
        return self._interrupt

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        image: PipelineImage | None = None,
        num_inference_steps: int = 50,
        num_tokens: int | None = None,
        guidance_scale: float = 3.0,
        visible_fraction: float | None = None,
        num_shapes_per_image: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        sigmas: list[float] | None = None,
        resolution: int = 256,
        level: float = 0.0,
        chunk_size: int = 16384,
        image_embeds: torch.Tensor | None = None,
        output_type: str = "trimesh",
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[[Any, int, torch.Tensor, dict], dict]
        | PipelineCallback
        | MultiPipelineCallbacks
        | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006, as in every pipeline of diffusers
    ) -> ViLearnPipelineOutput | tuple:
        r"""
        Generates meshes of the objects in images.

        Args:
            image (`PIL.Image.Image`, `str`, `Path`, `np.ndarray`, `torch.Tensor` or a list of these, *optional*):
                The object on a transparent background (RGBA, the alpha channel is the mask), at any size and place.
                Arrays are `(height, width, 4)` or `(batch, height, width, 4)`, tensors `(4, height, width)` or
                `(batch, 4, height, width)`, floating point in [0, 1] or uint8.
            num_inference_steps (`int`, *optional*, defaults to 50):
                The number of denoising steps.
            num_tokens (`int`, *optional*):
                The number of shape tokens: more for more detail. Defaults to that of `latents`, else to
                `vae.config.num_tokens`.
            guidance_scale (`float`, *optional*, defaults to 3.0):
                Scale of [classifier-free guidance](https://huggingface.co/papers/2207.12598); a higher one follows
                the image more closely. 1 or less turns it off.
            visible_fraction (`float`, *optional*):
                The share of the shape tokens that is declared visible in the image, in [0, 1]: in the paper 1/4
                invents more detail where the image does not show the object, 1/2 less; models differ. Defaults to
                `transformer.config.visible_fraction`.
            num_shapes_per_image (`int`, *optional*, defaults to 1):
                The number of shapes to generate per image.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                One generator, or one per shape, to make generation deterministic.
            latents (`torch.Tensor`, *optional*):
                Noise to start from, `(images * num_shapes_per_image, tokens, channels)`, instead of noise drawn with
                `generator`.
            sigmas (`list[float]`, *optional*):
                Noise levels of the steps in (0, 1], before the scheduler's shift, instead of `num_inference_steps`
                evenly spaced ones.
            resolution (`int`, *optional*, defaults to 256):
                Cells of the grid the surface is extracted from, along each side of the bounds; at least 8.
            level (`float`, *optional*, defaults to 0.0):
                Field value of the surface, between -1 and 1 in units of the truncation; above 0 the object shrinks.
            chunk_size (`int`, *optional*, defaults to 16384):
                How many points of the field the VAE answers at a time.
            image_embeds (`torch.Tensor`, *optional*):
                Image tokens `(images, image tokens, channels)` as `encode_image` returns them, instead of `image`.
            output_type (`str`, *optional*, defaults to `"trimesh"`):
                `"trimesh"` for meshes, `"latent"` for the normalised shape tokens, `"pt"` for the field on the grid.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether or not to return a [`ViLearnPipelineOutput`] instead of a plain tuple.
            attention_kwargs (`dict`, *optional*):
                Passed along to the attention processors of the transformer.
            callback_on_step_end (`Callable`, `PipelineCallback` or `MultiPipelineCallbacks`, *optional*):
                Called at the end of each denoising step as `callback_on_step_end(self, step, timestep,
                callback_kwargs)`; returns a dictionary with the tensors to go on with. The latter two name their
                tensors themselves.
            callback_on_step_end_tensor_inputs (`list`, *optional*, defaults to `["latents"]`):
                The tensors `callback_kwargs` holds, out of `._callback_tensor_inputs` of the pipeline class.

        Examples:

        Returns:
            [`ViLearnPipelineOutput`] or `tuple`: [`ViLearnPipelineOutput`] if `return_dict` is True, otherwise a
            `tuple` whose first element is the list of meshes (or the tensor, see `output_type`).
        """
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs

        # 1. Check the inputs and fill in the checkpoint's defaults
        self.check_inputs(
            image,
            num_inference_steps,
            num_tokens,
            guidance_scale,
            visible_fraction,
            num_shapes_per_image,
            generator,
            latents,
            sigmas,
            resolution,
            level,
            chunk_size,
            image_embeds,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        if num_tokens is None:
            num_tokens = self.vae.config.num_tokens if latents is None else latents.shape[1]
        if visible_fraction is None:
            visible_fraction = self.transformer.config.visible_fraction
        self._guidance_scale = guidance_scale
        self._attention_kwargs = attention_kwargs
        self._current_timestep = None
        self._interrupt = False
        device = self._execution_device

        # 2. Encode the images
        if image_embeds is None:
            image_embeds = self.encode_image(image, device, num_shapes_per_image)
        else:
            image_embeds = image_embeds.to(device).repeat_interleave(num_shapes_per_image, dim=0)
        image_embeds = image_embeds.to(self.transformer.dtype)
        batch_size = image_embeds.shape[0]

        # 3. Draw the noise and declare its first tokens visible
        latents = self.prepare_latents(batch_size, num_tokens, device, generator, latents)
        visible_mask = inference_visible_mask(num_tokens, visible_fraction, device=device)

        # 4. Prepare the timesteps
        timesteps = set_timesteps(self.scheduler, num_inference_steps, num_tokens, device, sigmas)
        self._num_timesteps = len(timesteps)
        step_kwargs = scheduler_step_kwargs(self.scheduler, generator)

        try:
            # 5. Denoise
            with self._labelled_progress_bar("denoising", len(timesteps)) as progress_bar:
                for i, t in enumerate(timesteps):
                    if self.interrupt:
                        continue
                    self._current_timestep = t
                    model_input, condition = latents, image_embeds
                    if self.do_classifier_free_guidance:
                        model_input = torch.cat([latents, latents])
                        condition = torch.cat([torch.zeros_like(image_embeds), image_embeds])
                    # a callback may end the guidance: each of both has its own state in the caches
                    context = "guided" if self.do_classifier_free_guidance else "conditional"
                    velocity = predict_velocity(
                        self.transformer, model_input, condition, t, visible_mask, self.attention_kwargs, context
                    )
                    if self.do_classifier_free_guidance:
                        unconditional, conditional = velocity.chunk(2)
                        velocity = unconditional + self.guidance_scale * (conditional - unconditional)
                    latents = self.scheduler.step(velocity, t, latents, **step_kwargs, return_dict=False)[0]

                    if callback_on_step_end is not None:
                        callback_kwargs = {}
                        for name in callback_on_step_end_tensor_inputs or ():
                            callback_kwargs[name] = locals()[name]
                        callback_outputs = callback_on_step_end(self, i, t, callback_kwargs)
                        latents = callback_outputs.pop("latents", latents)
                        image_embeds = callback_outputs.pop("image_embeds", image_embeds)
                    progress_bar.update()
            self._current_timestep = None

            # 6. Decode
            meshes = latents
            if output_type != "latent":
                meshes = self.decode_latents(latents, resolution, level, chunk_size, output_type)
        finally:
            # a shape without a mesh, or a callback that raises, must not leave the caches in the middle of a schedule
            self.maybe_free_model_hooks()

        if not return_dict:
            return (meshes,)
        return ViLearnPipelineOutput(meshes=meshes)
