# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Everything a user may hand over as the image, made into the condition images the model was trained on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.image_processor import CONFIG_NAME
from PIL import Image, ImageOps

from ..data.images import prepare_condition_image

PipelineImage = Image.Image | str | Path | np.ndarray | torch.Tensor | Sequence


class ViLearnImageProcessor(ConfigMixin):
    """Turns RGBA images of any kind into white squares with the object at `foreground` of the side.

    Args:
        foreground: longer side of the object's bounding box as a share of the side of the square, in (0, 1].
    """

    config_name = CONFIG_NAME

    @register_to_config
    def __init__(self, foreground: float = 0.9):
        super().__init__()

    def preprocess(self, image: PipelineImage, size: int) -> list[Image.Image]:
        """Condition images of the pipeline, one per image.

        Args:
            image: a PIL image, a path, an array `(height, width, 4)` or `(batch, height, width, 4)`, a tensor
                `(4, height, width)` or `(batch, 4, height, width)`, or a list of these. Arrays and tensors are
                uint8, or floating point in [0, 1].
            size: side of the result in pixels.

        Returns:
            RGB images of `size` x `size`.

        Raises:
            ValueError: `image` is none of these, cannot be read, or its alpha tells no object from a background.
        """
        rgba = self.load(image)
        if len(rgba) == 1:
            return [prepare_condition_image(rgba[0], size, self.config.foreground)]
        squares = []
        for index, one in enumerate(rgba):
            try:
                squares.append(prepare_condition_image(one, size, self.config.foreground))
            except ValueError as error:
                raise ValueError(f"image {index} of {len(rgba)}: {error}") from error
        return squares

    def load(self, image: PipelineImage) -> list[Image.Image]:
        """RGBA images of whatever `preprocess` takes, at their own size."""
        if isinstance(image, Image.Image):
            return [_from_pil(image)]
        if isinstance(image, (str, Path)):
            return [_from_path(image)]
        if isinstance(image, torch.Tensor):
            return _from_tensor(image)
        if isinstance(image, np.ndarray):
            return _from_array(image)
        if isinstance(image, (list, tuple)) and image:
            return [rgba for one in image for rgba in self.load(one)]
        raise ValueError(
            "`image` must be a PIL image, a path, an array (height, width, 4), a tensor (4, height, width), or a"
            f" non-empty list of these, but is {image!r:.80}."
        )


def _from_pil(image: Image.Image) -> Image.Image:
    if image.width == 0 or image.height == 0:
        raise ValueError(f"`image` must have pixels, but its size is {image.size}.")
    try:
        image = ImageOps.exif_transpose(image)
        # by way of RGB, because some modes turn straight into transparent RGBA
        return (image if image.has_transparency_data else image.convert("RGB")).convert("RGBA")
    except (ValueError, OSError) as error:
        raise ValueError(f"`image` cannot be read as RGBA: its mode is {image.mode} ({error}).") from error


def _from_path(path: str | Path) -> Image.Image:
    if "://" in str(path) or str(path).startswith("data:"):
        raise ValueError(f"`image` must be a path, not a URL, but is {str(path)!r:.80}. Download the file first.")
    try:
        with Image.open(path) as image:
            return _from_pil(image)
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"`image` must be the path of a picture, but {str(path)!r:.300} is none: {error}") from error


def _from_tensor(tensor: torch.Tensor) -> list[Image.Image]:
    if tensor.ndim not in (3, 4):
        raise ValueError(
            "`image` must be (4, height, width) or (batch, 4, height, width) when it is a tensor, but its shape is"
            f" {tuple(tensor.shape)}."
        )
    tensor = tensor.detach().movedim(-3, -1)
    # numpy has no bfloat16
    return _from_array((tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy())


def _from_array(array: np.ndarray) -> list[Image.Image]:
    if array.ndim not in (3, 4) or 0 in array.shape or array.shape[-1] not in (3, 4):
        raise ValueError(
            "`image` must have four channels (RGBA): an array (height, width, 4) or (batch, height, width, 4), a"
            f" tensor (4, height, width) or (batch, 4, height, width); but its shape, channels last, is {array.shape}."
        )
    if np.issubdtype(array.dtype, np.floating):
        # written so that NaN fails it
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(
                f"`image` must lie in [0, 1] when it is floating point, but spans [{array.min()}, {array.max()}]."
            )
        array = np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"`image` must be floating point or uint8, but its dtype is {array.dtype}.")
    batch = array if array.ndim == 4 else array[None]
    return [Image.fromarray(np.ascontiguousarray(one)).convert("RGBA") for one in batch]
