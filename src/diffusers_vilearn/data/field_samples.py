# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""One stored shape -> one training sample of the VAE: point clouds, query points with their field, normals, a view."""

import numpy as np
import torch
from torch.utils.data import Dataset

from .alignment_views import AlignmentViews
from .clouds import sharp_cloud, surface_cloud, takes_sharp_points
from .frames import FRAMES, object_to_frame, scale_of, transform_cloud, transform_points


class FieldSamples(Dataset):
    """Random clouds and field queries of stored shapes; indexed by `(epoch, index)`, the same for the same seed.

    A sample holds

    - `uid` of the shape;
    - `points` (num_points, point channels), and `sharp_points` (num_sharp_points, point channels) for a VAE that takes
      them;
    - `xyz` (num_queries, 3) and `field` (num_queries, 1), half near the surface, half in the volume;
    - with `num_normals`: `surface_xyz` and `surface_normals` (num_normals, 3), and `band_xyz` (num_normals, 3), points
      nearer to the surface than the truncation, where the true field is not saturated;
    - with `num_tokens`: `posterior_noise` (num_tokens, latent channels), standard normal;
    - with `views`: what `AlignmentViews.sample` gives of a random view.

    Args:
        shapes (`datasets.Dataset`): rows of `SHAPE_FEATURES`.
        vae_config: of the `VecSetVAE`: its `frame` (in the view frame: that of the drawn view, a random azimuth
            without views), `truncation`, `bounds`, and which clouds it takes.
        num_points, num_sharp_points (`int`): size of the clouds given to the encoder.
        num_queries (`int`): field queries.
        seed (`int`): of all randomness.
        num_normals (`int`): surface points with normals, and as many points around the surface; 0 for none.
        num_tokens (`int`): rows of the noise that the posterior is sampled with; 0 for none.
        views (`AlignmentViews`, *optional*): condition views of these shapes.
    """

    def __init__(
        self,
        shapes,
        vae_config,
        *,
        num_points,
        num_sharp_points,
        num_queries,
        seed,
        num_normals=0,
        num_tokens=0,
        views: AlignmentViews | None = None,
    ):
        if vae_config.frame not in FRAMES:
            raise ValueError(f"`frame` must be one of {FRAMES}, but is {vae_config.frame!r}.")
        check_cube(vae_config.bounds)
        self.uids = shapes.select_columns("uid")
        columns = ["surface", "sharp_edges", "field_near", "field_volume", "field_box"]
        self.shapes = shapes.with_format("numpy", ["uid", *columns])
        self.vae_config = vae_config
        self.num_points = num_points
        self.num_sharp_points = num_sharp_points
        self.num_queries = num_queries
        self.seed = seed
        self.num_normals = num_normals
        self.num_tokens = num_tokens
        self.views = views

    def __len__(self):
        return len(self.shapes)

    def uid_of(self, index: int) -> str:
        return self.uids[index]["uid"]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor | str]:
        epoch, index = key
        config = self.vae_config
        rng = np.random.default_rng((self.seed, epoch, index))
        # Of their own, so that normals, views and numbers of tokens change nothing of the rest of a sample.
        extras_rng, noise_rng = (np.random.default_rng((self.seed, epoch, index, purpose)) for purpose in (1, 2))
        row = self.shapes[index]
        azimuth = rng.uniform(-180, 180)
        if self.views is not None:
            view = self.views.draw(row["uid"], extras_rng)
            azimuth = view["azimuth"]
        similarity = object_to_frame(config.frame, row["surface"][:, :3], azimuth)
        flagged = config.sharp_flag
        sample = {"points": surface_cloud(similarity, row["surface"], self.num_points, rng, flagged=flagged)}
        if takes_sharp_points(config):
            sample["sharp_points"] = sharp_cloud(
                similarity, row["sharp_edges"], row["surface"], self.num_sharp_points, rng, flagged=flagged
            )
        near = draw(row["field_near"], self.num_queries // 2, rng)
        volume = draw(row["field_volume"], self.num_queries - len(near), rng)
        near = move_field(similarity, near)
        volume = cover_cube(similarity, row["field_box"], move_field(similarity, volume), config.bounds, rng)
        samples = np.concatenate([near, volume])
        sample |= {"xyz": samples[:, :3], "field": (samples[:, 3:] / config.truncation).clip(-1, 1)}
        if self.num_tokens:
            sample["posterior_noise"] = noise_rng.standard_normal((self.num_tokens, config.latent_channels))
        if self.num_normals:
            surface = transform_cloud(similarity, draw(row["surface"], self.num_normals, extras_rng))
            sample["surface_xyz"], sample["surface_normals"] = np.split(surface, 2, axis=1)
            sample["band_xyz"] = displace(surface, config.truncation, extras_rng)
        if self.views is not None:
            sample |= self.views.sample(view, similarity, extras_rng)
        lacking = [name for name, value in sample.items() if not np.isfinite(value).all()]
        if lacking:
            raise ValueError(f"{', '.join(lacking)} of the row hold numbers that are not finite")
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in sample.items()}
        return {"uid": str(row["uid"]), **tensors}


def draw(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` random rows."""
    return rows[rng.integers(len(rows), size=count)]


def displace(surface: np.ndarray, distance: float, rng: np.random.Generator) -> np.ndarray:
    """Points (n, 3) of `surface` (n, 6) moved along their normals, either way, by less than `distance`.

    None is farther than that from the surface, wherever the surface goes.
    """
    return surface[:, :3] + rng.uniform(-distance, distance, (len(surface), 1)) * surface[:, 3:]


def move_field(similarity: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Field samples (n, 4) in the frame of `similarity` (4, 4): positions moved, distances scaled."""
    distance = samples[:, 3:] * scale_of(similarity)
    return np.concatenate([transform_points(similarity, samples[:, :3]), distance], axis=1).astype(np.float32)


def check_cube(bounds: float | list[float]) -> None:
    """Raise `ValueError` for the bounds of a VAE that are no half-side of a cube: prepared volumes are for cubes."""
    if not isinstance(bounds, (int, float)):
        raise ValueError(f"`bounds` of the VAE must be one number, the half-side of a cube, but is {bounds!r}.")


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
