# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Normal-FID (TripoSG): the Fréchet distance between features of normal maps, of generated and of true shapes.

It compares two sets, not shape by shape. The features are an argument. The default is the class token of a DINOv2,
which the other metrics load anyway, which needs no torchvision, and which ranks generative models more like people do
than Inception does (Stein et al. 2023): call the result FD-DINOv2. It is **not comparable with numbers from
Inception**; for these give a function that answers with Inception's pooled features.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import Dinov2Model

from .image_alignment import encoder_pixels
from .rendered_views import RenderedViews

# Pictures (n, size, size, 3) uint8 -> features (n, channels).
FeatureExtractor = Callable[[np.ndarray], torch.Tensor]


class Dinov2Features:
    """The class tokens of pictures, after the last layer norm.

    Args:
        image_encoder (`Dinov2Model`): on the device to compute on.
        batch_size (`int`): pictures at a time.
    """

    def __init__(self, image_encoder: Dinov2Model, batch_size: int = 32):
        self.image_encoder = image_encoder
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray) -> torch.Tensor:
        batches = encoder_pixels(self.image_encoder, pictures, self.batch_size)
        return torch.cat([self.image_encoder(pixels).pooler_output.float() for pixels in batches])


def normal_frechet_distance(
    generated: Sequence[RenderedViews], true: Sequence[RenderedViews], features: FeatureExtractor
) -> float:
    """`frechet_distance` between the pictures of two sets of shapes; use the same cameras for all."""
    return frechet_distance(
        *(torch.cat([features(views.pictures) for views in shapes]) for shapes in (generated, true))
    )


def frechet_distance(features: torch.Tensor, others: torch.Tensor) -> float:
    """Squared Fréchet distance between the normal distributions that fit two sets of features, at least 0.

    |m - m'|² + tr(C + C' - 2 (C C')^½) with means m and unbiased covariances C. It grows as the sets shrink: compare
    only numbers from sets of equal size.

    Args:
        features, others (`torch.Tensor`): (n, channels) and (m, channels), at least two rows each, on one device.
    """
    if (
        features.ndim != 2
        or others.ndim != 2
        or features.shape[1] != others.shape[1]
        or min(map(len, (features, others))) < 2
    ):
        raise ValueError(
            "`features` and `others` must be (n, channels) and (m, channels) with n and m above 1, but their shapes"
            f" are {tuple(features.shape)} and {tuple(others.shape)}."
        )
    first, second = features.double(), others.double()
    shift = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    root, other_root = _root_of_covariance(first), _root_of_covariance(second)
    # With C = AᵀA and C' = BᵀB the trace of (C C')^½ is the sum of the singular values of ABᵀ.
    cross = torch.linalg.svdvals(root @ other_root.T).sum()
    return (shift + root.square().sum() + other_root.square().sum() - 2 * cross).clamp(min=0).item()


def _root_of_covariance(features: torch.Tensor) -> torch.Tensor:
    """A matrix A (at most channels, channels) with AᵀA the unbiased covariance of `features` (n, channels)."""
    centred = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(centred) > centred.shape[1] else centred
