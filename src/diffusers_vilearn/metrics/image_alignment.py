# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""IS-AS, the paper's image-shape alignment score: does some view of a shape show what the image shows?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import Dinov2Model

from ..data.images import patch_tokens
from .normal_maps import FOREGROUND, NormalEstimator, estimated_normal_picture
from .rendered_views import RenderedViews

IMAGE_ENCODER = "facebook/dinov2-large"

# Of ImageNet, in which all DINOv2 models take their pixels.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Alignment(NamedTuple):
    """IS-AS in [-1, 1], and the index of the view that reaches it."""

    score: float
    view: int


def image_shape_alignment(
    image: Image.Image,
    views: RenderedViews,
    image_encoder: Dinov2Model,
    normal_estimator: NormalEstimator,
    *,
    foreground: float = FOREGROUND,
    batch_size: int = 32,
) -> Alignment:
    """IS-AS of one shape: the normal map that is estimated from the image, against normal maps of the shape.

    For each view the cosine between the DINOv2 tokens of both pictures, patch by patch, meaned over all patches of the
    square; then the maximum over the views.

    Args:
        image (`PIL.Image.Image`): RGBA, what the shape was made from.
        views (`RenderedViews`): of the shape.
        image_encoder (`Dinov2Model`): the paper's is `facebook/dinov2-large`; on the device to compute on.
        normal_estimator (`NormalEstimator`): the paper's is `MoGeNormalEstimator`.
        foreground (`float`): share of the square that the object takes, the same as in `views`.
        batch_size (`int`): pictures at a time.
    """
    size = views.pictures.shape[1]
    estimated = np.asarray(estimated_normal_picture(image, normal_estimator, size, foreground))
    (wanted,) = unit_patch_tokens(image_encoder, estimated[None], batch_size)
    batches = unit_patch_tokens(image_encoder, views.pictures, batch_size)
    scores = torch.cat([(tokens * wanted).sum(dim=-1).mean(dim=-1) for tokens in batches])
    best = int(scores.argmax())
    return Alignment(scores[best].item(), best)


def unit_patch_tokens(image_encoder: Dinov2Model, pictures: np.ndarray, batch_size: int) -> Iterator[torch.Tensor]:
    """Patch tokens of unit length, batch by batch (batch, patches, channels) float32 on the encoder's device.

    Args:
        image_encoder (`Dinov2Model`): on any device.
        pictures (`np.ndarray`): (n, size, size, 3) uint8.
        batch_size (`int`): pictures at a time.
    """
    for pixels in encoder_pixels(image_encoder, pictures, batch_size):
        yield F.normalize(patch_tokens(image_encoder, pixels).float(), dim=-1)


def check_multiple_of_patches(name: str, side: int, image_encoder: Dinov2Model) -> None:
    """Raises `ValueError` unless pictures of this side are whole patches of the encoder."""
    patch_size = image_encoder.config.patch_size
    if side % patch_size:
        raise ValueError(f"`{name}` must be a multiple of the encoder's patch size, {patch_size}, but is {side}.")


def encoder_pixels(image_encoder: Dinov2Model, pictures: np.ndarray, batch_size: int) -> Iterator[torch.Tensor]:
    """What the encoder takes, batch by batch: normalised pixels (batch, 3, size, size) float32 on its device."""
    for side in pictures.shape[1:3]:
        check_multiple_of_patches("pictures.shape", side, image_encoder)
    mean, deviation = (
        torch.tensor(values, device=image_encoder.device)[:, None, None] for values in (_MEAN, _DEVIATION)
    )
    for start in range(0, len(pictures), batch_size):
        batch = torch.tensor(pictures[start : start + batch_size], device=image_encoder.device)
        yield (batch.permute(0, 3, 1, 2) / 255 - mean) / deviation
