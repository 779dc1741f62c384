# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
# Written by pipelines/build_hub_files.py from src/diffusers_vilearn/pipelines/stages.py; edit that file instead.
"""The stages from an image to a mesh, and what each refuses; the classic and the modular pipeline both call them."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from transformers import BaseImageProcessor, Dinov2Model, Dinov2WithRegistersModel

from .vilearn_images import patch_tokens, pixel_values
from diffusers import ModelMixin as KeyValue, ModelMixin as VecSetVAE  # a type hint; the class comes from the component's own folder
from diffusers import ModelMixin as ViLearnTransformer3DModel  # a type hint; the class comes from the component's own folder
from .vilearn_image_processor import PipelineImage, ViLearnImageProcessor

SHAPE_OUTPUT_TYPES = ("trimesh", "pt")


def calculate_shift(num_tokens: int, base_num_tokens: int = 256, base_shift: float = 1.0) -> float:
    """Timestep shift for `num_tokens` shape tokens: `base_shift` * sqrt(N / N0), as the paper's schedule grows N."""
    return base_shift * math.sqrt(num_tokens / base_num_tokens)


def check_integers(**values: tuple[Any, int]) -> None:
    """Raises `ValueError` unless each value is an integer of at least the number beside it."""
    for name, (value, smallest) in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < smallest:
            raise ValueError(f"`{name}` must be an integer of at least {smallest}, but is {value!r}.")


def check_number(name: str, value: Any, allowed: Callable[[float], bool], what: str) -> None:
    """Raises `ValueError` unless `value` is a number that is `allowed`: `what` one must be."""
    if not isinstance(value, Real) or isinstance(value, bool) or not allowed(value):
        raise ValueError(f"`{name}` must be {what}, but is {value!r}.")


def check_tokens(name: str, tokens: torch.Tensor, sizes: str) -> None:
    """Raises `ValueError` unless `tokens` is a finite, non-empty tensor of the three `sizes`."""
    if not isinstance(tokens, torch.Tensor):
        raise ValueError(f"`{name}` must be a tensor {sizes}, but is of type {type(tokens).__name__}.")
    if tokens.ndim != 3 or 0 in tokens.shape:
        raise ValueError(f"`{name}` must be {sizes}, but its shape is {tuple(tokens.shape)}.")
    if not torch.isfinite(tokens).all():
        raise ValueError(f"`{name}` must be finite, but is not.")


def check_image_embeds(image_embeds: torch.Tensor, channels: int) -> None:
    """Raises `ValueError` unless `image_embeds` is (images, image tokens, channels) and finite."""
    sizes = f"(images, tokens, {channels})"
    check_tokens("image_embeds", image_embeds, sizes)
    if image_embeds.shape[-1] != channels:
        raise ValueError(f"`image_embeds` must be {sizes}, but its shape is {tuple(image_embeds.shape)}.")


def check_noise(generator: torch.Generator | list[torch.Generator] | None, latents: torch.Tensor | None) -> None:
    """Raises `ValueError` for a `generator` that is none, or `latents` that are not finite shape tokens."""
    if latents is not None:
        check_tokens("latents", latents, "(shapes, tokens, channels)")
    generators = generator if isinstance(generator, list) else [generator]
    if generator is not None and not all(isinstance(one, torch.Generator) for one in generators):
        raise ValueError(f"`generator` must be a `torch.Generator` or a list of them, but is {generator!r}.")


def check_visible_fraction(visible_fraction: float | None) -> None:
    """Raises `ValueError` unless `visible_fraction` lies in [0, 1] or is `None`."""
    if visible_fraction is not None:
        check_number("visible_fraction", visible_fraction, lambda value: 0 <= value <= 1, "a number in [0, 1]")


def check_visible_mask(visible_mask: torch.Tensor, num_shapes: int) -> None:
    """Raises `ValueError` unless `visible_mask` is (tokens,) or (num_shapes or 1, tokens), bool or in [0, 1]."""
    what = f"`visible_mask` must be (tokens,) or ({num_shapes}, tokens), bool or numbers in [0, 1]"
    if not isinstance(visible_mask, torch.Tensor):
        raise ValueError(f"{what}, but is of type {type(visible_mask).__name__}.")
    shape = tuple(visible_mask.shape)
    if not (len(shape) == 1 or (len(shape) == 2 and shape[0] in (1, num_shapes))) or shape[-1] == 0:
        raise ValueError(f"{what}, but its shape is {shape}.")
    if visible_mask.dtype == torch.bool:
        return
    # written so that NaN fails it
    if not visible_mask.is_floating_point() or not ((visible_mask >= 0) & (visible_mask <= 1)).all():
        raise ValueError(f"{what}, but has others, or is of dtype {visible_mask.dtype}.")


def check_steps(num_inference_steps: int, sigmas: list[float] | None) -> None:
    """Raises `ValueError` for a number of steps, or noise levels, that no scheduler can take."""
    check_integers(num_inference_steps=(num_inference_steps, 1))
    if sigmas is not None and not _are_sigmas(sigmas):
        raise ValueError(
            f"`sigmas` must be a list of numbers in (0, 1], each below the one before, but is {sigmas!r}."
        )


def _are_sigmas(sigmas: Any) -> bool:
    if not isinstance(sigmas, (list, tuple, np.ndarray, torch.Tensor)):
        return False
    try:
        sigmas = np.array([float(sigma) for sigma in sigmas])
    except (TypeError, ValueError, RuntimeError):
        return False
    return len(sigmas) > 0 and bool(((sigmas > 0) & (sigmas <= 1)).all() and (np.diff(sigmas) < 0).all())


def check_guidance_scale(guidance_scale: float) -> None:
    """Raises `ValueError` unless `guidance_scale` is at least 0 and finite."""
    check_number(
        "guidance_scale", guidance_scale, lambda value: 0 <= value < math.inf, "a finite number of at least 0"
    )


def check_scheduler(scheduler) -> None:
    """Raises `ValueError` for a scheduler that would read the velocity as something else."""
    flow_match = any(kind.__name__.startswith("FlowMatch") for kind in type(scheduler).__mro__)
    config = scheduler.config
    as_flow = config.get("use_flow_sigmas", False) and config.get("prediction_type") == "flow_prediction"
    if not flow_match and not as_flow:
        raise ValueError(
            "`scheduler` must be one for flow matching, a FlowMatch... class or one with `use_flow_sigmas=True` and"
            f' `prediction_type="flow_prediction"`, but is {type(scheduler).__name__} with'
            f" `use_flow_sigmas={config.get('use_flow_sigmas')}` and"
            f" `prediction_type={config.get('prediction_type')!r}`."
        )
    if config.get("invert_sigmas", False):
        raise ValueError("`scheduler` must lead from noise to data, but has `invert_sigmas=True`.")
    # `from_config` keeps what a scheduler does not read: the shift of another one
    if as_flow and config.get("flow_shift", 1.0) == 1.0 != config.get("shift", 1.0):
        raise ValueError(
            f"{type(scheduler).__name__} does not read `shift`, which its configuration has as {config['shift']}; make"
            f" it with `flow_shift={config['shift']}`, or without `shift`."
        )


def check_surface(resolution: int, level: float, chunk_size: int, output_type: str, output_types: tuple) -> None:
    """Raises `ValueError` for a surface that cannot be extracted, or an output that is none of `output_types`."""
    check_integers(resolution=(resolution, 8), chunk_size=(chunk_size, 1))
    check_number("level", level, lambda value: -1 < value < 1, "a number between -1 and 1")
    if output_type not in output_types:
        raise ValueError(f"`output_type` must be one of {output_types}, but is {output_type!r}.")


def encode_images(
    image: PipelineImage,
    image_processor: ViLearnImageProcessor,
    feature_extractor: BaseImageProcessor,
    image_encoder: Dinov2Model | Dinov2WithRegistersModel,
    device: torch.device,
) -> torch.Tensor:
    """DINOv2 patch tokens `(images, image tokens, channels)` of the condition images; no class token, no registers."""
    if image_encoder is None or feature_extractor is None:
        raise ValueError(
            "`image` needs the components `image_encoder` and `feature_extractor`, which this pipeline was loaded"
            " without; pass `image_embeds` instead."
        )
    squares = image_processor.preprocess(image, feature_extractor.crop_size["height"])
    return patch_tokens(image_encoder, pixel_values(feature_extractor, squares).to(device))


def draw_latents(
    shape: tuple[int, int, int],
    device: torch.device,
    generator: torch.Generator | list[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gaussian noise of `shape` (shapes, tokens, channels) in float32, or the `latents` given, checked."""
    if latents is not None:
        if tuple(latents.shape) != shape:
            raise ValueError(f"`latents` must be {shape}, but its shape is {tuple(latents.shape)}.")
        return latents.to(device=device, dtype=torch.float32)
    if isinstance(generator, list) and len(generator) != shape[0]:
        raise ValueError(
            f"`generator` must be one generator or {shape[0]} of them, one per shape, but has {len(generator)}."
        )
    return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)


def set_timesteps(
    scheduler, num_inference_steps: int, num_tokens: int, device: torch.device, sigmas: list[float] | None = None
) -> torch.Tensor:
    """Sets the scheduler's timesteps: `sigmas` before the shift, evenly spaced from 1 to 1 / steps by default."""
    accepted = inspect.signature(scheduler.set_timesteps).parameters
    if sigmas is not None and "sigmas" not in accepted:
        raise ValueError(f"`sigmas` must be None, because {type(scheduler).__name__} takes no custom sigmas.")
    kwargs = {}
    config = scheduler.config
    if config.get("use_dynamic_shifting", False):
        if "mu" not in accepted:
            raise ValueError(
                f"{type(scheduler).__name__} cannot shift by the number of tokens, but its configuration has"
                " `use_dynamic_shifting=True`; make it with `use_dynamic_shifting=False` and a `shift` of its own."
            )
        shift = calculate_shift(num_tokens, config.get("base_image_seq_len", 256), config.get("shift", 1.0))
        kwargs["mu"] = shift if config.get("time_shift_type", "exponential") == "linear" else math.log(shift)
    if sigmas is None and "sigmas" in accepted and not config.get("use_flow_sigmas", False):
        # left alone, FlowMatchEulerDiscreteScheduler would shift its smallest sigma twice
        sigmas = torch.linspace(1, 1 / num_inference_steps, num_inference_steps).tolist()
    if sigmas is not None:
        # an array of its own: UniPCMultistepScheduler computes with it, and in place
        scheduler.set_timesteps(sigmas=np.array([float(sigma) for sigma in sigmas]), device=device, **kwargs)
    else:
        scheduler.set_timesteps(num_inference_steps, device=device, **kwargs)
    if (last := float(scheduler.sigmas[-1])) > 0:
        raise ValueError(
            f"`scheduler` must end at noise level 0, but {type(scheduler).__name__} as it is configured ends at"
            f" {last:.3g}, and would leave that much noise in the shapes."
        )
    # spares a synchronisation with the device at each step
    scheduler.set_begin_index(0)
    return scheduler.timesteps


def scheduler_step_kwargs(scheduler, generator: torch.Generator | list[torch.Generator] | None) -> dict[str, Any]:
    """`generator` for the schedulers that draw noise at each step."""
    return {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}


def predict_velocity(
    transformer: ViLearnTransformer3DModel,
    latents: torch.Tensor,
    image_embeds: torch.Tensor,
    timestep: torch.Tensor,
    visible_mask: torch.Tensor,
    attention_kwargs: dict[str, Any] | None,
    context: str,
) -> torch.Tensor:
    """The velocity in float32, `(batch, tokens, channels)`; the caches keep a state for each `context`.

    `visible_mask` is (tokens,) or (batch or 1, tokens).
    """
    with transformer.cache_context(context):
        return transformer(
            hidden_states=latents.to(transformer.dtype),
            encoder_hidden_states=image_embeds,
            timestep=timestep.expand(latents.shape[0]).float(),
            visible_mask=visible_mask.expand(latents.shape[0], -1),
            attention_kwargs=attention_kwargs,
            return_dict=False,
        )[0].float()


def decode_shapes(vae: VecSetVAE, latents: torch.Tensor) -> Iterator[KeyValue]:
    """What answers the field of each shape of `latents` (shapes, tokens, channels), normalised: the keys and values of
    the VAE's last cross-attention, decoded when they are asked for."""
    for shape in latents.split(1):
        hidden = vae.decode(vae.denormalize_latents(shape).to(vae.dtype))
        yield vae.project_key_value(hidden)


def extract_shapes(
    vae: VecSetVAE,
    shapes: Iterable[KeyValue],
    resolution: int,
    level: float,
    chunk_size: int,
    output_type: str,
    progress_bar: Callable = nullcontext,
):
    """Meshes, or fields on a grid, of the shapes of `decode_shapes`.

    Args:
        vae, shapes: what answers the field.
        resolution: cells of the grid along each side of the bounds, at least 8.
        level: the field value of the surface.
        chunk_size: how many query points the VAE answers at a time.
        output_type: one of `SHAPE_OUTPUT_TYPES`.
        progress_bar: makes a tqdm bar for each shape, whose total grows as the surface is found.

    Returns:
        A list of `trimesh.Trimesh`, or `(shapes, resolution + 1, resolution + 1, resolution + 1)`.
    """
    # trimesh loads a ray caster, which importing the package must not
    from .vilearn_extraction import extract_mesh, field_grid

    results = []
    for index, keys_values in enumerate(shapes):
        field = partial(_field, vae, keys_values)
        with progress_bar() as bar:
            common = {
                "bounds": vae.config.bounds,
                "resolution": resolution,
                "chunk_size": chunk_size,
                "progress": bar,
                "device": keys_values[0].device,
            }
            if output_type == "pt":
                results.append(field_grid(field, **common))
                continue
            try:
                results.append(extract_mesh(field, level=level, truncation=vae.config.truncation, **common))
            except ValueError as error:
                raise ValueError(
                    f'shape {index} has no mesh: {error} `output_type="latent"` keeps all shapes, to mesh one by one.'
                ) from error
    return torch.stack(results) if output_type == "pt" else results


def _field(vae: VecSetVAE, keys_values: KeyValue, xyz: torch.Tensor) -> torch.Tensor:
    """Field of one shape at `(points, 3)`."""
    return vae.query(xyz[None], keys_values)[0, :, 0].float()
