# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""One image in, a mesh out."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils import replace_example_docstring
from diffusers.utils.torch_utils import randn_tensor
from transformers import BaseImageProcessor, Dinov2Model

from ..data.images import patch_tokens
from ..models.autoencoder_vecset import VecSetVAE
from ..models.transformer_vilearn import ViLearnTransformer3DModel
from ..visibility import inference_visible_mask
from .image_processor import PipelineImage, ViLearnImageProcessor
from .pipeline_loading_utils import ViLearnDiffusionPipeline
from .pipeline_output import ViLearnPipelineOutput

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

OUTPUT_TYPES = ("trimesh", "latent", "pt")


def calculate_shift(num_tokens: int, base_num_tokens: int = 256, base_shift: float = 1.0) -> float:
    """Timestep shift for `num_tokens` shape tokens: `base_shift` * sqrt(N / N0), as the paper's schedule grows N."""
    return base_shift * math.sqrt(num_tokens / base_num_tokens)


class ViLearnImageTo3DPipeline(ViLearnDiffusionPipeline):
    r"""
    Image-to-3D generation with ViLearn: a rectified-flow MM-DiT over the shape tokens of a VecSet VAE, conditioned on
    DINOv2 patch tokens, with visibility-aware positional encoding.

    This model inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    implemented for all pipelines (downloading, saving, running on a particular device, etc.).

    Args:
        vae ([`VecSetVAE`]):
            Decodes shape tokens into a field that is positive inside the object.
        transformer ([`ViLearnTransformer3DModel`]):
            Denoises the normalised shape tokens.
        scheduler ([`FlowMatchEulerDiscreteScheduler`]):
            A flow-matching scheduler; others of the same convention, such as [`FlowMatchHeunDiscreteScheduler`], work
            as well.
        image_encoder ([`~transformers.Dinov2Model`], *optional*):
            Its patch tokens are the condition. Not needed when `image_embeds` are passed.
        feature_extractor ([`~transformers.BitImageProcessor`], *optional*):
            Its `crop_size` is the size of the condition image; it normalises the colours. Not needed when
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
        image_encoder: Dinov2Model | None = None,
        feature_extractor: BaseImageProcessor | None = None,
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
        if image is not None and (self.image_encoder is None or self.feature_extractor is None):
            raise ValueError(
                "`image` needs the components `image_encoder` and `feature_extractor`, which this pipeline was loaded"
                " without; pass `image_embeds` instead."
            )
        channels = self.transformer.config.joint_attention_dim
        if image_embeds is not None and (image_embeds.ndim != 3 or image_embeds.shape[-1] != channels):
            raise ValueError(
                f"`image_embeds` must be (images, tokens, {channels}), but its shape is {tuple(image_embeds.shape)}."
            )
        if latents is not None and latents.ndim != 3:
            raise ValueError(f"`latents` must be (shapes, tokens, channels), but its shape is {tuple(latents.shape)}.")
        if latents is not None and not torch.isfinite(latents).all():
            raise ValueError("`latents` must be finite, but is not.")
        generators = generator if isinstance(generator, list) else [generator]
        if generator is not None and not all(isinstance(one, torch.Generator) for one in generators):
            raise ValueError(f"`generator` must be a `torch.Generator` or a list of them, but is {generator!r}.")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"`output_type` must be one of {OUTPUT_TYPES}, but is {output_type!r}.")
        for name, value, smallest in (
            ("num_inference_steps", num_inference_steps, 1),
            ("num_tokens", 1 if num_tokens is None else num_tokens, 1),
            ("num_shapes_per_image", num_shapes_per_image, 1),
            ("resolution", resolution, 8),
            ("chunk_size", chunk_size, 1),
        ):
            if not isinstance(value, Integral) or value < smallest:
                raise ValueError(f"`{name}` must be an integer of at least {smallest}, but is {value!r}.")
        if not 0 <= guidance_scale < math.inf:
            raise ValueError(f"`guidance_scale` must be at least 0 and finite, but is {guidance_scale!r}.")
        if visible_fraction is not None and not 0 <= visible_fraction <= 1:
            raise ValueError(f"`visible_fraction` must lie in [0, 1], but is {visible_fraction!r}.")
        if not -1 < level < 1:
            raise ValueError(f"`level` must lie between -1 and 1, but is {level!r}.")
        if sigmas is not None and (len(sigmas) == 0 or not all(0 < sigma <= 1 for sigma in sigmas)):
            raise ValueError(f"`sigmas` must be a non-empty list of numbers in (0, 1], but is {sigmas!r}.")
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
        device = device or self._execution_device
        squares = self.image_processor.preprocess(image, self.feature_extractor.crop_size["height"])
        pixels = self.feature_extractor(
            squares, do_resize=False, do_center_crop=False, return_tensors="pt"
        ).pixel_values
        return patch_tokens(self.image_encoder, pixels.to(device)).repeat_interleave(num_shapes_per_image, dim=0)

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
        if latents is not None:
            if tuple(latents.shape) != shape:
                raise ValueError(f"`latents` must be {shape}, but its shape is {tuple(latents.shape)}.")
            return latents.to(device=device, dtype=torch.float32)
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(
                f"`generator` must be one generator or {batch_size} of them, one per shape, but has {len(generator)}."
            )
        return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)

    def prepare_timesteps(
        self, num_inference_steps: int, num_tokens: int, device: torch.device, sigmas: list[float] | None = None
    ) -> torch.Tensor:
        """Sets the scheduler's timesteps: `sigmas` before the shift, evenly spaced from 1 to 1 / steps by default."""
        accepted = inspect.signature(self.scheduler.set_timesteps).parameters
        if sigmas is not None and "sigmas" not in accepted:
            raise ValueError(f"`sigmas` must be None, because {type(self.scheduler).__name__} takes no custom sigmas.")
        kwargs = {}
        config = self.scheduler.config
        if config.get("use_dynamic_shifting", False):
            shift = calculate_shift(num_tokens, config.get("base_image_seq_len", 256), config.get("shift", 1.0))
            kwargs["mu"] = shift if config.get("time_shift_type", "exponential") == "linear" else math.log(shift)
        if sigmas is None and "sigmas" in accepted and not config.get("use_flow_sigmas", False):
            # left alone, FlowMatchEulerDiscreteScheduler would shift its smallest sigma twice
            sigmas = torch.linspace(1, 1 / num_inference_steps, num_inference_steps).tolist()
        if sigmas is not None:
            self.scheduler.set_timesteps(sigmas=sigmas, device=device, **kwargs)
        else:
            self.scheduler.set_timesteps(num_inference_steps, device=device, **kwargs)
        return self.scheduler.timesteps

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
        """
        # trimesh loads a ray caster, which importing the package must not
        from ..geometry.extraction import extract_mesh, field_grid

        config = self.vae.config
        shapes = []
        for index, shape in enumerate(latents.split(1)):
            hidden = self.vae.decode(self.vae.denormalize_latents(shape).to(self.vae.dtype))
            field = partial(self._field, keys_values=self.vae.project_key_value(hidden))
            # the total grows as the surface is found
            with self._labelled_progress_bar("meshing", 0) as progress_bar:
                common = {
                    "bounds": config.bounds,
                    "resolution": resolution,
                    "chunk_size": chunk_size,
                    "progress": progress_bar,
                    "device": hidden.device,
                }
                if output_type == "pt":
                    shapes.append(field_grid(field, **common))
                    continue
                try:
                    shapes.append(extract_mesh(field, level=level, truncation=config.truncation, **common))
                except ValueError as error:
                    raise ValueError(f"shape {index} of {len(latents)} has no mesh: {error}") from error
        return torch.stack(shapes) if output_type == "pt" else shapes

    def _labelled_progress_bar(self, label: str, total: int):
        """The user's progress bar, with `label` where `set_progress_bar_config` gave no other."""
        progress_bar = self.progress_bar(total=total)
        if "desc" not in self._progress_bar_config:
            progress_bar.set_description(label)
        return progress_bar

    def _field(self, xyz: torch.Tensor, keys_values: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Field of one shape at `(points, 3)`."""
        return self.vae.query(xyz[None], keys_values)[0, :, 0].float()

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
        guidance_scale: float = 2.0,
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
        callback_on_step_end: Callable[[Any, int, torch.Tensor, dict], dict] | None = None,
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
            guidance_scale (`float`, *optional*, defaults to 2.0):
                Scale of [classifier-free guidance](https://huggingface.co/papers/2207.12598); a higher one follows
                the image more closely. 1 or less turns it off.
            visible_fraction (`float`, *optional*):
                The share of the shape tokens that is declared visible in the image, in [0, 1]: 1/4 invents more
                detail where the image does not show the object, 1/2 less. Defaults to
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
            callback_on_step_end (`Callable`, *optional*):
                Called at the end of each denoising step as `callback_on_step_end(self, step, timestep,
                callback_kwargs)`; returns a dictionary with the tensors to go on with.
            callback_on_step_end_tensor_inputs (`list`, *optional*, defaults to `["latents"]`):
                The tensors `callback_kwargs` holds, out of `._callback_tensor_inputs` of the pipeline class.

        Examples:

        Returns:
            [`ViLearnPipelineOutput`] or `tuple`: [`ViLearnPipelineOutput`] if `return_dict` is True, otherwise a
            `tuple` whose first element is the list of meshes (or the tensor, see `output_type`).
        """
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
        timesteps = self.prepare_timesteps(num_inference_steps, num_tokens, device, sigmas)
        self._num_timesteps = len(timesteps)
        # spares a synchronisation with the device at each step
        self.scheduler.set_begin_index(0)
        step_kwargs = {}
        if "generator" in inspect.signature(self.scheduler.step).parameters:
            step_kwargs["generator"] = generator

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
                with self.transformer.cache_context("guided"):
                    velocity = self.transformer(
                        hidden_states=model_input.to(self.transformer.dtype),
                        encoder_hidden_states=condition,
                        timestep=t.expand(model_input.shape[0]).float(),
                        visible_mask=visible_mask.expand(model_input.shape[0], -1),
                        attention_kwargs=self.attention_kwargs,
                        return_dict=False,
                    )[0].float()
                if self.do_classifier_free_guidance:
                    unconditional, conditional = velocity.chunk(2)
                    velocity = unconditional + self.guidance_scale * (conditional - unconditional)
                latents = self.scheduler.step(velocity, t, latents, **step_kwargs, return_dict=False)[0]

                if callback_on_step_end is not None:
                    callback_kwargs = {}
                    for name in callback_on_step_end_tensor_inputs:
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
        self.maybe_free_model_hooks()

        if not return_dict:
            return (meshes,)
        return ViLearnPipelineOutput(meshes=meshes)
