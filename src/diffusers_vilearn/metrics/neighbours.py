# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The nearest of a set of points: a k-d tree on the CPU, brute force in chunks elsewhere, the same answers."""

import torch
from scipy.spatial import cKDTree

# Distances that brute force holds at a time: 256 MiB in float32.
_CHUNK = 1 << 26


def nearest(points: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest of `others` to each of `points`, shape by shape.

    Args:
        points (`torch.Tensor`): (..., n, 3).
        others (`torch.Tensor`): (..., m, 3), of the same leading shape and device.

    Returns:
        `tuple`: distances (..., n) in the dtype of `points`, and indices (..., n) int64 into `others`.
    """
    if points.shape[:-2] != others.shape[:-2] or 0 in (points.shape[-2], others.shape[-2]):
        raise ValueError(
            f"`points` (..., n, 3) and `others` (..., m, 3) must have the same leading shape, n > 0 and m > 0, but"
            f" their shapes are {tuple(points.shape)} and {tuple(others.shape)}."
        )
    search = k_d_tree if points.device.type == "cpu" else brute_force
    pairs = [
        search(*pair) for pair in zip(points.reshape(-1, *points.shape[-2:]), others.reshape(-1, *others.shape[-2:]))
    ]
    distances, indices = (torch.stack(columns).reshape(points.shape[:-1]) for columns in zip(*pairs))
    return distances, indices


def k_d_tree(points: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`nearest` of one shape, (n, 3) and (m, 3), on the CPU."""
    points_array, others_array = (tensor.detach().double().numpy() for tensor in (points, others))
    distances, indices = cKDTree(others_array).query(points_array)
    return torch.from_numpy(distances).to(points.dtype), torch.from_numpy(indices)


def brute_force(points: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`nearest` of one shape, (n, 3) and (m, 3), on any device."""
    rows = max(1, _CHUNK // len(others))
    # There are no distances in half precision, and none between two precisions.
    common = torch.promote_types(torch.promote_types(points.dtype, others.dtype), torch.float32)
    converted, others = points.to(common), others.to(common)
    # Products of matrices would lose what is small beside the coordinates.
    exact = "donot_use_mm_for_euclid_dist"
    chunks = [torch.cdist(chunk, others, compute_mode=exact).min(dim=-1) for chunk in converted.split(rows)]
    distances, indices = (torch.cat([chunk[part] for chunk in chunks]) for part in (0, 1))
    return distances.to(points.dtype), indices
