# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""How close a shape is to the true one: volume IoU, Chamfer distance, F-score, floaters."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree

from ..geometry.extraction import NoSurfaceError, extract_mesh


def decoded_field(vae, latents: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The field of normalised `latents` (1, tokens, channels): (points, 3) -> (points,), both on the CPU."""
    key_value = vae.project_key_value(vae.decode(vae.denormalize_latents(latents)))
    return lambda xyz: vae.query(xyz[None].to(latents.device), key_value)[0, :, 0].float().cpu()


def occupancy_iou(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Intersection over union of two occupancies.

    Args:
        predicted, truth (`torch.Tensor`): (..., points) bool at the same points, uniform in the volume.

    Returns:
        `torch.Tensor`: (...) float32 in [0, 1]; 1 where both are empty.
    """
    intersection = (predicted & truth).sum(dim=-1)
    union = (predicted | truth).sum(dim=-1)
    return torch.where(union > 0, intersection / union.clamp(min=1), torch.ones(()))


@dataclass
class SurfaceDistances:
    """Distances between surface samples of two shapes.

    Args:
        to_truth (`np.ndarray`): from each predicted point to the nearest true one, (n,).
        to_predicted (`np.ndarray`): from each true point to the nearest predicted one, (m,).
    """

    to_truth: np.ndarray
    to_predicted: np.ndarray

    @classmethod
    def between(cls, predicted: np.ndarray, truth: np.ndarray) -> "SurfaceDistances":
        """Of point clouds `predicted` (n, 3) and `truth` (m, 3)."""
        return cls(cKDTree(truth).query(predicted)[0], cKDTree(predicted).query(truth)[0])

    def chamfer(self) -> float:
        """Chamfer L1: the mean of both mean distances."""
        return float(self.to_truth.mean() + self.to_predicted.mean()) / 2

    def f_score(self, threshold: float) -> float:
        """Harmonic mean of precision and recall at a distance `threshold`, in [0, 1]."""
        precision, recall = (self.to_truth < threshold).mean(), (self.to_predicted < threshold).mean()
        return float(2 * precision * recall / max(precision + recall, 1e-12))


def count_floaters(mesh: trimesh.Trimesh) -> int:
    """Connected components of a mesh as trimesh counts them, beside the one that is the object."""
    return len(trimesh.graph.connected_components(mesh.face_adjacency, nodes=np.arange(len(mesh.faces)))) - 1


def surface_metrics(mesh: trimesh.Trimesh, truth: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Chamfer, F-score at 0.02 and 0.05, and floaters of `mesh` against surface samples `truth` (n, 3)."""
    predicted = trimesh.sample.sample_surface(mesh, len(truth), seed=seed)[0]
    distances = SurfaceDistances.between(predicted, truth)
    return {
        "chamfer": distances.chamfer(),
        "f_score@0.02": distances.f_score(0.02),
        "f_score@0.05": distances.f_score(0.05),
        "floaters": count_floaters(mesh),
    }


def score_shape(field: Callable[[torch.Tensor], torch.Tensor], view, vae_config, resolution: int) -> dict[str, float]:
    """All metrics of one predicted shape; see `extract_and_score`."""
    return extract_and_score(field, view, vae_config, resolution)[1]


def extract_and_score(
    field: Callable[[torch.Tensor], torch.Tensor], view, vae_config, resolution: int
) -> tuple[trimesh.Trimesh | None, dict[str, float]]:
    """The mesh of one predicted shape, and all its metrics.

    Args:
        field (`Callable`): (n, 3) -> (n,), positive inside.
        view (`EvaluationView`): the truth.
        vae_config: `bounds` and `truncation` of the field.
        resolution (`int`): cells per axis of the extracted mesh.

    Returns:
        `tuple`: the mesh; and `iou`, `chamfer`, `f_score@0.02`, `f_score@0.05`, `floaters`. A field without a surface
        has no mesh (`None`) and scores 0, and the cube's half-diagonal as its Chamfer distance.
    """
    inside = field(torch.from_numpy(view.xyz)) > 0
    iou = occupancy_iou(inside, torch.from_numpy(view.inside)).item()
    try:
        mesh = extract_mesh(field, bounds=vae_config.bounds, truncation=vae_config.truncation, resolution=resolution)
    except NoSurfaceError:
        chamfer = math.sqrt(3) * vae_config.bounds
        return None, {"iou": iou, "chamfer": chamfer, "f_score@0.02": 0.0, "f_score@0.05": 0.0, "floaters": 0}
    return mesh, {"iou": iou, **surface_metrics(mesh, view.surface[:, :3])}
