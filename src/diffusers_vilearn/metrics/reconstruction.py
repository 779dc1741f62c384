# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""How close a shape is to the true one: volume IoU, Chamfer distance, F-score, floaters."""

from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree


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
