# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The point clouds that a VAE's encoder is given: random rows of the stored ones, in the frame of the latents."""

import numpy as np

from .frames import transform_cloud


def takes_sharp_points(config) -> bool:
    """Whether a `VecSetVAE` of this configuration encodes a second cloud, on sharp edges (Dora)."""
    return config.dual_cross_attention or config.sharp_flag


def surface_cloud(
    similarity: np.ndarray, surface: np.ndarray, num_points: int, rng: np.random.Generator, *, flagged: bool
) -> np.ndarray:
    """At most `num_points` rows of the surface.

    Args:
        similarity (`np.ndarray`): (4, 4), from the object frame to that of the latents.
        surface (`np.ndarray`): (n, 6), xyz and unit normals, uniform on the surface.
        num_points (`int`): rows to pick.
        rng (`np.random.Generator`): picks them.
        flagged (`bool`): whether a last channel tells sharp-edge points (1) from these (0).

    Returns:
        `np.ndarray`: (points, 6 or 7) float32.
    """
    rows = rng.permutation(len(surface))[:num_points]
    return with_flag(transform_cloud(similarity, surface[rows]), 0.0, flagged)


def sharp_cloud(
    similarity: np.ndarray,
    sharp_edges: np.ndarray,
    surface: np.ndarray,
    num_points: int,
    rng: np.random.Generator,
    *,
    flagged: bool,
) -> np.ndarray:
    """Exactly `num_points` rows of the sharp edges (m, 6), repeated where there are fewer; rows of the surface where
    there are none. Otherwise as `surface_cloud`."""
    cloud = sharp_edges if len(sharp_edges) else surface
    rows = np.resize(rng.permutation(len(cloud)), num_points)
    return with_flag(transform_cloud(similarity, cloud[rows]), 1.0, flagged)


def with_flag(cloud: np.ndarray, flag: float, flagged: bool) -> np.ndarray:
    """The cloud (n, 6), with `flag` as a last channel if it is `flagged`."""
    return np.concatenate([cloud, np.full((len(cloud), 1), flag, np.float32)], axis=1) if flagged else cloud
