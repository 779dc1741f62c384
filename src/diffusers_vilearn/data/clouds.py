# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The point clouds that a VAE's encoder is given."""

import numpy as np

from .frames import transform_cloud


def takes_sharp_points(config) -> bool:
    """Whether a `VecSetVAE` of this configuration encodes a second cloud, on sharp edges (Dora)."""
    return config.dual_cross_attention or config.sharp_flag


def encoder_clouds(
    config,
    similarity: np.ndarray,
    surface: np.ndarray,
    sharp_edges: np.ndarray,
    num_points: int,
    num_sharp_points: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Random rows of the stored clouds of an object, in the frame of the latents.

    Args:
        config: of the `VecSetVAE`; says whether it takes sharp-edge points and whether points carry a flag.
        similarity (`np.ndarray`): (4, 4), from the object frame to that of the latents.
        surface (`np.ndarray`): (n, 6), xyz and unit normals, uniform on the surface.
        sharp_edges (`np.ndarray`): (m, 6), on sharp edges; surface points take their place where there are none.
        num_points (`int`): rows of `surface` at most.
        num_sharp_points (`int`): rows of `sharp_edges`, repeated where there are fewer.
        rng (`np.random.Generator`): draws the rows.

    Returns:
        `tuple`: (points, point channels) float32, and (sharp points, point channels) float32, or None for a VAE that
        does not take them. The flag, where there is one, is 0 in the first and 1 in the second.
    """
    points = surface[rng.permutation(len(surface))[:num_points]]
    points = _with_flag(config, transform_cloud(similarity, points), 0.0)
    if not takes_sharp_points(config):
        return points, None
    sharp_edges = sharp_edges if len(sharp_edges) else surface
    rows = np.resize(rng.permutation(len(sharp_edges)), num_sharp_points)
    return points, _with_flag(config, transform_cloud(similarity, sharp_edges[rows]), 1.0)


def _with_flag(config, cloud: np.ndarray, flag: float) -> np.ndarray:
    if not config.sharp_flag:
        return cloud
    return np.concatenate([cloud, np.full((len(cloud), 1), flag, np.float32)], axis=1)
