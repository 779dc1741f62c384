# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""One stored shape -> one training sample of the VAE: a point cloud, and query points with their field."""

import numpy as np
import torch
from torch.utils.data import Dataset

from .frames import FRAMES, object_to_frame, scale_of, transform_cloud, transform_points


class FieldSamples(Dataset):
    """Random clouds and field queries of stored shapes; indexed by `(epoch, index)`, the same for the same seed.

    Args:
        shapes (`datasets.Dataset`): rows of `SHAPE_FEATURES`.
        frame (`str`): `canonical`, or `view` for a random azimuth a sample.
        truncation (`float`): distance at which the field saturates.
        bounds (`float`): half-side of the cube that queries cover.
        num_points (`int`): size of the cloud given to the encoder.
        num_queries (`int`): field queries; half of them near the surface, half in the volume.
        seed (`int`): of all randomness.
    """

    def __init__(self, shapes, *, frame, truncation, bounds, num_points, num_queries, seed):
        if frame not in FRAMES:
            raise ValueError(f"`frame` must be one of {FRAMES}, but is {frame!r}.")
        self.uids = shapes.select_columns("uid")
        self.shapes = shapes.with_format("numpy", ["uid", "surface", "field_near", "field_volume", "field_box"])
        self.frame = frame
        self.truncation = truncation
        self.bounds = bounds
        self.num_points = num_points
        self.num_queries = num_queries
        self.seed = seed

    def __len__(self):
        return len(self.shapes)

    def uid_of(self, index: int) -> str:
        return self.uids[index]["uid"]

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        row = self.shapes[index]
        similarity = object_to_frame(self.frame, row["surface"][:, :3], rng.uniform(-180, 180))
        cloud = transform_cloud(similarity, row["surface"][rng.permutation(len(row["surface"]))[: self.num_points]])
        near = draw(row["field_near"], self.num_queries // 2, rng)
        volume = draw(row["field_volume"], self.num_queries - len(near), rng)
        near = move_field(similarity, near)
        volume = cover_cube(similarity, row["field_box"], move_field(similarity, volume), self.bounds, rng)
        samples = np.concatenate([near, volume])
        return {
            "uid": str(row["uid"]),
            "points": torch.from_numpy(cloud),
            "xyz": torch.from_numpy(samples[:, :3].copy()),
            "field": torch.from_numpy((samples[:, 3:] / self.truncation).clip(-1, 1)),
        }


def draw(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` random rows."""
    return rows[rng.integers(len(rows), size=count)]


def move_field(similarity: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Field samples (n, 4) in the frame of `similarity` (4, 4): positions moved, distances scaled."""
    distance = samples[:, 3:] * scale_of(similarity)
    return np.concatenate([transform_points(similarity, samples[:, :3]), distance], axis=1).astype(np.float32)


def cover_cube(
    similarity: np.ndarray, box: np.ndarray, samples: np.ndarray, bounds: float, rng: np.random.Generator
) -> np.ndarray:
    """Field samples (n, 4) uniform in the cube of half-side `bounds`, out of `samples` (n, 4) uniform in `box`.

    A random point of the cube that lies outside the box is certainly outside the shape, by more than the truncation;
    one that lies inside is replaced by a stored sample.
    """
    points = rng.uniform(-bounds, bounds, (len(samples), 3))
    in_object_frame = transform_points(np.linalg.inv(similarity), points)
    in_box = ((in_object_frame >= box[0]) & (in_object_frame <= box[1])).all(axis=1)
    covered = np.concatenate([points, np.full((len(points), 1), -np.inf)], axis=1).astype(np.float32)
    in_cube = (np.abs(samples[:, :3]) <= bounds).all(axis=1)
    covered[in_box] = draw(samples[in_cube], in_box.sum(), rng)
    return covered
