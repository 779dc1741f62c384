# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The condition image: the object at a fixed share of a white square, the same for training and for inference."""

import math

import torch
import torch.nn.functional as F
from PIL import Image, ImageChops
from transformers import BaseImageProcessor, Dinov2Model

# A pixel belongs to the object from this alpha on; the soft fringe around it does not move the bounding box.
OBJECT_ALPHA = 128


def prepare_condition_image(image: Image.Image, size: int, foreground: float = 0.9) -> Image.Image:
    """Centre the object of `image` on a white square, the longer side of its bounding box at `foreground` of it.

    The square is resampled once, antialiased, on premultiplied colours: what lies under transparent pixels never
    bleeds into the edge of the object.

    Args:
        image: RGBA image, any size; the alpha channel is the mask of the object.
        size: side of the result in pixels.
        foreground: longer side of the object's bounding box as a share of the side of the square, in (0, 1].

    Returns:
        RGB image of `size` x `size`.

    Raises:
        ValueError: `image` is not RGBA, is empty, or its alpha tells no object from a background; `size` or
            `foreground` is out of range.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"`size` must be a positive number of pixels, but is {size!r}.")
    left, top, side = condition_square(image, foreground)
    whole_left, whole_top, whole_side = math.floor(left), math.floor(top), math.ceil(side) + 1
    # `crop` fills what lies outside the image with transparent pixels.
    square = image.crop((whole_left, whole_top, whole_left + whole_side, whole_top + whole_side)).convert("RGBa")
    left, top = left - whole_left, top - whole_top
    square = square.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    *premultiplied, alpha = square.split()
    white = ImageChops.invert(alpha)
    return Image.merge("RGB", [ImageChops.add(colour, white) for colour in premultiplied])


def condition_square(image: Image.Image, foreground: float = 0.9) -> tuple[float, float, float]:
    """Left, top and side, in pixels of `image`, of the square that `prepare_condition_image` cuts out.

    It may reach beyond the image; arguments and errors are those of `prepare_condition_image`.
    """
    if not isinstance(image, Image.Image) or image.mode != "RGBA":
        raise ValueError(f"`image` must be a PIL image of mode RGBA, but is {getattr(image, 'mode', type(image))}.")
    if image.width == 0 or image.height == 0:
        raise ValueError(f"`image` must have pixels, but its size is {image.size}.")
    if not 0 < foreground <= 1:
        raise ValueError(f"`foreground` must lie in (0, 1], but is {foreground!r}.")
    left, top, right, bottom = _object_box(image)
    side = max(right - left, bottom - top) / foreground
    return (left + right - side) / 2, (top + bottom - side) / 2, side


def _object_box(image: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels of the object in an RGBA image; `right` and `bottom` are exclusive."""
    alpha = image.getchannel("A")
    darkest, brightest = alpha.getextrema()
    if brightest < OBJECT_ALPHA:
        raise ValueError("`image` shows no object: its alpha channel is transparent everywhere.")
    if darkest >= OBJECT_ALPHA:
        raise ValueError(
            "`image` must be RGBA with a transparent background, but it is opaque everywhere, so the object cannot be"
            " told from its background. Remove the background first: `pip install 'diffusers-vilearn[rembg]'`, then"
            " `image = rembg.remove(image)`; or pass `--remove-background` on the command line."
        )
    return alpha.point(lambda value: 255 if value >= OBJECT_ALPHA else 0).getbbox()


def pixel_values(image_processor: BaseImageProcessor, squares: list[Image.Image]) -> torch.Tensor:
    """Normalised pixels (images, 3, size, size) of condition images, which have their size already."""
    return image_processor(squares, do_resize=False, do_center_crop=False, return_tensors="pt").pixel_values


@torch.no_grad()
def patch_tokens(image_encoder: Dinov2Model, pixel_values: torch.Tensor) -> torch.Tensor:
    """The patch tokens (batch, patches, channels) of normalised images (batch, 3, height, width).

    The class token and registers are dropped: they have no place in the image.
    """
    num_other_tokens = 1 + getattr(image_encoder.config, "num_register_tokens", 0)
    return image_encoder(pixel_values.to(image_encoder.dtype)).last_hidden_state[:, num_other_tokens:]


def patch_tokens_at(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Patch tokens at positions in the image, bilinear between the centres of the patches.

    Args:
        tokens: (batch, patches, channels) of square images, row by row, as `patch_tokens` gives them.
        positions: (batch, points, 2), (x, y) in [-1, 1] from the left to the right and from the top to the bottom
            border of the image; beyond the outermost centres the nearest patch counts.

    Returns:
        (batch, points, channels).
    """
    side = math.isqrt(tokens.shape[1])
    if side**2 != tokens.shape[1]:
        raise ValueError(f"`tokens` has {tokens.shape[1]} patches, it must be the square of a number.")
    grid = tokens.transpose(1, 2).unflatten(2, (side, side)).float()
    sampled = F.grid_sample(grid, positions[:, None].float(), padding_mode="border", align_corners=False)
    return sampled[:, :, 0].transpose(1, 2)
