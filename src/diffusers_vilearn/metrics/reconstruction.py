# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""How close a shape is to the true one: volume IoU, Chamfer distance, F-score, normal consistency, recall by side."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import trimesh

from ..geometry.extraction import NoSurfaceError, extract_mesh
from ..geometry.field import winding_number
from ..geometry.mesh import surface_bounds
from ..geometry.sampling import sample_surface
from .floaters import count_components
from .neighbours import nearest

# Distances of F-scores and recalls, in the model's frame, where the longest half-side of an object is 0.95.
THRESHOLDS = (0.02, 0.05)
# Components of a smaller share of the largest one's area are specks.
SPECK_SHARE = 1e-3


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


def volume_iou(mesh: trimesh.Trimesh, other: trimesh.Trimesh, num_points: int = 1 << 17, seed: int = 0) -> float:
    """Intersection over union of the solids of two closed meshes, in [0, 1].

    By `num_points` points uniform in the box about both; a point is inside where the generalised winding number is
    above one half, which small holes hardly change. The standard error is at most `0.5 / sqrt(points in the union)`.

    Raises:
        ValueError: a mesh encloses nothing, faces inwards, or is too small in that box for any point to lie in it.
    """
    lows, highs = np.swapaxes([surface_bounds(mesh), surface_bounds(other)], 0, 1)
    for name, solid in (("mesh", mesh), ("other", other)):
        # About its own centre: of a mesh with holes, the volume would depend on where it lies.
        volume = np.linalg.det(solid.triangles - solid.bounds.mean(axis=0)).sum() / 6
        if volume <= 0:
            raise ValueError(f"`{name}` must be closed and face outwards, but encloses {volume:.3g}.")
    if (lows.max(axis=0) >= highs.min(axis=0)).any():
        return 0.0
    points = np.random.default_rng(seed).uniform(lows.min(axis=0), highs.max(axis=0), (num_points, 3))
    inside = [torch.from_numpy(winding_number(solid, points) > 0.5) for solid in (mesh, other)]
    if not (inside[0] | inside[1]).any():
        raise ValueError(f"None of {num_points} points in the box about both meshes lies in either; take more.")
    return occupancy_iou(*inside).item()


@dataclass
class SurfaceDistances:
    """What lies between surface samples of predicted and true shapes; all results have the leading shape (...).

    Args:
        to_truth (`torch.Tensor`): from each predicted point to the nearest true one, (..., n).
        to_predicted (`torch.Tensor`): from each true point to the nearest predicted one, (..., m).
        cosine_to_truth, cosine_to_predicted (`torch.Tensor`, *optional*): absolute cosines between the normals of
            these pairs, of the same shapes.
    """

    to_truth: torch.Tensor
    to_predicted: torch.Tensor
    cosine_to_truth: torch.Tensor | None = None
    cosine_to_predicted: torch.Tensor | None = None

    @classmethod
    def between(cls, predicted: torch.Tensor | np.ndarray, truth: torch.Tensor | np.ndarray) -> "SurfaceDistances":
        """Of point clouds `predicted` (..., n, 3 or 6) and `truth` (..., m, 3 or 6): xyz, and unit normals of both or
        of neither. Tensors stay on their device.

        Raises:
            ValueError: the shapes do not fit together, or a cloud is empty.
        """
        predicted, truth = torch.as_tensor(predicted), torch.as_tensor(truth)
        if predicted.shape[-1] != truth.shape[-1] or truth.shape[-1] not in (3, 6):
            raise ValueError(
                "`predicted` and `truth` must both have 3 channels, xyz, or both 6, xyz and unit normal, but their"
                f" shapes are {tuple(predicted.shape)} and {tuple(truth.shape)}."
            )
        to_truth, true_index = nearest(predicted[..., :3], truth[..., :3])
        to_predicted, predicted_index = nearest(truth[..., :3], predicted[..., :3])
        if predicted.shape[-1] == 3:
            return cls(to_truth, to_predicted)
        return cls(
            to_truth,
            to_predicted,
            _absolute_cosine(predicted, truth, true_index),
            _absolute_cosine(truth, predicted, predicted_index),
        )

    def chamfer(self) -> torch.Tensor:
        """Chamfer L1: the mean of both mean distances."""
        return (self.to_truth.mean(dim=-1) + self.to_predicted.mean(dim=-1)) / 2

    def chamfer_l2(self) -> torch.Tensor:
        """Chamfer L2: the mean of both mean *squared* distances; others publish their sum, twice this."""
        return (self.to_truth.square().mean(dim=-1) + self.to_predicted.square().mean(dim=-1)) / 2

    def f_score(self, threshold: float) -> torch.Tensor:
        """Harmonic mean of precision and recall at a distance `threshold`, in [0, 1]."""
        precision, recall = ((d < threshold).double().mean(dim=-1) for d in (self.to_truth, self.to_predicted))
        return 2 * precision * recall / (precision + recall).clamp(min=1e-12)

    def recall(self, threshold: float, of: torch.Tensor) -> torch.Tensor:
        """The share of the true points in `of` (m,) bool that a predicted one is nearer to than `threshold`.

        In [0, 1]; NaN where `of` is empty.
        """
        return (self.to_predicted[..., of] < threshold).double().mean(dim=-1)

    def normal_consistency(self) -> torch.Tensor:
        """Mean absolute cosine between the normals of nearest points, over both directions, in [0, 1]."""
        if self.cosine_to_truth is None:
            raise ValueError("Normal consistency needs clouds of 6 channels, xyz and normal; these have 3.")
        return (self.cosine_to_truth.mean(dim=-1) + self.cosine_to_predicted.mean(dim=-1)) / 2


def _absolute_cosine(cloud: torch.Tensor, other: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """|cosine| (..., n) between the normals of `cloud` (..., n, 6) and those of `other` (..., m, 6) at `index`."""
    normals = other[..., 3:].take_along_dim(index[..., None], dim=-2)
    return (cloud[..., 3:] * normals).sum(dim=-1).abs()


def surface_metrics(
    mesh: trimesh.Trimesh,
    truth: np.ndarray,
    seed: int = 0,
    *,
    seen: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, float]:
    """How near `mesh` is to a true surface, and in how many pieces it is.

    Args:
        mesh (`trimesh.Trimesh`): as many points are sampled on it as the truth has.
        truth (`np.ndarray`): (n, 3) or (n, 6) surface samples, xyz and unit normal.
        seed (`int`): of the samples.
        seen (`np.ndarray`, *optional*): (n,) bool, which of `truth` the condition view sees.
        thresholds (`Sequence[float]`): distances of F-scores and recalls.

    Returns:
        `dict`: `chamfer` (L1), `chamfer_l2`, `f_score@<threshold>`, `components`, `floaters` (one less),
        `large_components` (of at least 0.1% of the area of the largest); with normals `normal_consistency`; with
        `seen` `visible_recall@<threshold>` and `invisible_recall@<threshold>`, left out without such points.
    """
    predicted = sample_surface(mesh, len(truth), np.random.default_rng(seed))[:, : truth.shape[1]]
    distances = SurfaceDistances.between(predicted, truth.astype(np.float64))
    scores = {"chamfer": distances.chamfer(), "chamfer_l2": distances.chamfer_l2()}
    scores |= {f"f_score@{threshold}": distances.f_score(threshold) for threshold in thresholds}
    if truth.shape[1] == 6:
        scores["normal_consistency"] = distances.normal_consistency()
    for name, points in _sides(seen).items():
        scores |= {f"{name}_recall@{t}": distances.recall(t, torch.from_numpy(points)) for t in thresholds}
    components = count_components(mesh)
    counts = {"components": components, "large_components": count_components(mesh, SPECK_SHARE)}
    return {name: value.item() for name, value in scores.items()} | {"floaters": components - 1} | counts


def _sides(seen: np.ndarray | None) -> dict[str, np.ndarray]:
    """The points that the condition view sees and those that it does not, where there are any."""
    sides = {} if seen is None else {"visible": seen, "invisible": ~seen}
    return {name: points for name, points in sides.items() if points.any()}


def no_surface_metrics(view, bounds: float, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, float]:
    """What `surface_metrics` gives for a shape without a surface: scores 0, distances the cube's half-diagonal. There
    is nothing to count: no component would look better than one."""
    scores = {"chamfer": math.sqrt(3) * bounds, "chamfer_l2": 3 * bounds**2}
    scores |= {f"f_score@{threshold}": 0.0 for threshold in thresholds} | {"normal_consistency": 0.0}
    return scores | {f"{side}_recall@{threshold}": 0.0 for side in _sides(view.seen) for threshold in thresholds}


def extract_and_score(
    field: Callable[[torch.Tensor], torch.Tensor],
    view,
    vae_config,
    resolution: int,
    thresholds: Sequence[float] = THRESHOLDS,
) -> tuple[trimesh.Trimesh | None, dict[str, float]]:
    """The mesh of one predicted shape, and all its metrics.

    Args:
        field (`Callable`): (n, 3) -> (n,), positive inside.
        view (`EvaluationView`): the truth.
        vae_config: `bounds` and `truncation` of the field.
        resolution (`int`): cells per axis of the extracted mesh.
        thresholds (`Sequence[float]`): distances of F-scores and recalls.

    Returns:
        `tuple`: the mesh; and `iou`, what `surface_metrics` measures, and `failed`, 0 or 1. A field without a surface
        has failed: it has no mesh (`None`) and the scores of `no_surface_metrics`. Two shapes so thin that none of the
        view's points lies in either have no `iou`.
    """
    try:
        mesh = extract_mesh(field, bounds=vae_config.bounds, truncation=vae_config.truncation, resolution=resolution)
    except NoSurfaceError:
        scores = no_surface_metrics(view, vae_config.bounds, thresholds)
        return None, {"iou": 0.0, **scores, "failed": 1}
    inside, truly_inside = field(torch.from_numpy(view.xyz)) > 0, torch.from_numpy(view.inside)
    has_iou = (inside | truly_inside).any()
    iou = {"iou": occupancy_iou(inside, truly_inside).item()} if has_iou else {}
    return mesh, {**iou, **surface_metrics(mesh, view.surface, seen=view.seen, thresholds=thresholds), "failed": 0}
