# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The frame in which a model sees its shapes: `canonical` (the object's own, as in the paper) or `view`.

In the view frame the object is turned about +Y until the condition camera's azimuth is 0, then normalised anew.
"""

import numpy as np

FRAMES = ("canonical", "view")
HALF_SIDE = 0.95


def object_to_frame(frame: str, points: np.ndarray, azimuth: float) -> np.ndarray:
    """The similarity (4, 4) from the object frame to `frame`.

    Args:
        frame (`str`): `canonical` or `view`.
        points (`np.ndarray`): (n, 3) surface points of the object; their bounding box is what gets normalised.
        azimuth (`float`): of the condition camera, degrees.
    """
    if frame not in FRAMES:
        raise ValueError(f"`frame` must be one of {FRAMES}, but is {frame!r}.")
    if frame == "canonical":
        return np.eye(4)
    angle = np.radians(-azimuth)
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    turned = points @ rotation.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    scale = HALF_SIDE / ((high - low).max() / 2)
    similarity = np.eye(4)
    similarity[:3, :3] = scale * rotation
    similarity[:3, 3] = -scale * (low + high) / 2
    return similarity


def transform_points(similarity: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`points` (n, 3) moved by `similarity` (4, 4), float32."""
    return (points @ similarity[:3, :3].T + similarity[:3, 3]).astype(np.float32)


def transform_cloud(similarity: np.ndarray, cloud: np.ndarray) -> np.ndarray:
    """A cloud (n, 6) of xyz and unit normals moved by `similarity` (4, 4), which may mirror, float32."""
    normals = cloud[:, 3:] @ similarity[:3, :3].T / scale_of(similarity)
    return np.concatenate([transform_points(similarity, cloud[:, :3]), normals], axis=1).astype(np.float32)


def scale_of(similarity: np.ndarray) -> float:
    """The factor by which `similarity` (4, 4) stretches lengths."""
    return float(np.cbrt(abs(np.linalg.det(similarity[:3, :3]))))
