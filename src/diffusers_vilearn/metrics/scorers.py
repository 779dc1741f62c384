# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The metrics that need renders, models or the true mesh, each as a step of `training/evaluate.py`."""

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image

from ..data.evaluation_views import EvaluationView
from ..data.true_meshes import TrueMeshes
from ..files import write_atomically
from ..geometry.cameras import Camera
from ..geometry.rendering import make_renderer
from .detail import detail_behind
from .frechet import FeatureExtractor, frechet_distance
from .hi3deval import HEADS, Hi3DEval, Turntable, write_turntable
from .image_alignment import image_shape_alignment
from .normal_maps import NormalEstimator, camera_normals
from .render_similarity import PerceptualDistance, orbit_pictures, render_similarity
from .rendered_views import RenderedViews
from .score_files import Scores


class ScoredShape:
    """A generated shape beside what it should be; what several metrics look at is made once.

    Args:
        mesh (`trimesh.Trimesh`, *optional*): in the frame of the model; `None` for a shape that failed.
        view (`EvaluationView`): what it was made from.
        cameras (`Sequence[Camera]`): that its normal maps are rendered with.
        resolution (`int`): of its normal maps.
        truth (`TrueMeshes`, *optional*): for metrics that need the true mesh.
        backend (`str`): `embree` or `nvdiffrast`.
    """

    def __init__(
        self,
        mesh: trimesh.Trimesh | None,
        view: EvaluationView,
        *,
        cameras: Sequence[Camera],
        resolution: int,
        truth: TrueMeshes | None = None,
        backend: str = "embree",
    ):
        self.mesh, self.view, self.cameras, self.resolution = mesh, view, cameras, resolution
        self.truth, self.backend = truth, backend

    @cached_property
    def views(self) -> RenderedViews:
        """Normal maps of the generated mesh."""
        return RenderedViews.of(self.mesh, self.cameras, resolution=self.resolution, backend=self.backend)

    @cached_property
    def true_mesh(self) -> trimesh.Trimesh:
        """In the frame of the model."""
        return self.truth.in_frame_of(self.view)


class Scorer(ABC):
    """One metric, or a few that come together."""

    @abstractmethod
    def add(self, shape: ScoredShape) -> dict[str, float]:
        """Scores of one shape; none where it only leaves a file for `finish`."""

    def finish(self, scores: Scores) -> tuple[Scores, dict[str, dict]]:
        """Called by one process when all shapes of a method are done.

        Returns:
            `tuple`: `scores`, perhaps with more columns; and what was measured of all shapes at once, metric ->
            `mean`, and `n` and `views`, the numbers of objects and views.
        """
        return scores, {}


class AlignmentScorer(Scorer):
    """`is_as`; 0 for a shape that failed.

    Args:
        image_encoder (`Dinov2Model`): see `image_shape_alignment`.
        normal_estimator (`NormalEstimator`, *optional*): left out, the true normals of the condition view take the
            place of estimated ones: the score then is free of the estimator's errors, and not the paper's.
        batch_size (`int`): pictures at a time.
    """

    def __init__(self, image_encoder, normal_estimator: NormalEstimator | None = None, batch_size: int = 32):
        self.image_encoder, self.normal_estimator, self.batch_size = image_encoder, normal_estimator, batch_size

    @torch.no_grad()
    def add(self, shape: ScoredShape) -> dict[str, float]:
        if shape.mesh is None:
            return {"is_as": 0.0}
        estimate = self.normal_estimator or (lambda image: true_normals(shape))
        view = shape.view
        alignment = image_shape_alignment(
            view.image, shape.views, self.image_encoder, estimate, batch_size=self.batch_size
        )
        return {"is_as": alignment.score}


def true_normals(shape: ScoredShape) -> np.ndarray:
    """(height, width, 3): normals of the true mesh in the camera's frame, at the pixels of the condition image."""
    view = shape.view
    rendering = make_renderer(shape.truth[view.uid], shape.backend).render(view.camera, view.image.size[::-1])
    return camera_normals(rendering, view.camera)


class DetailScorer(Scorer):
    """`area_behind` and `roughness_behind`; 0 for a shape that failed."""

    def add(self, shape: ScoredShape) -> dict[str, float]:
        return detail_behind(shape.mesh, shape.view.towards_camera)


class RenderScorer(Scorer):
    """`psnr`, `ssim`, and `lpips` where a distance is given; a shape that failed is a white picture."""

    def __init__(self, lpips: PerceptualDistance | None = None, resolution: int = 256):
        self.lpips, self.resolution = lpips, resolution

    def add(self, shape: ScoredShape) -> dict[str, float]:
        pictures = (
            orbit_pictures(mesh, resolution=self.resolution, backend=shape.backend)
            for mesh in (shape.mesh, shape.true_mesh)
        )
        return render_similarity(*pictures, self.lpips)


class FrechetScorer(Scorer):
    """`normal_fd`, the Fréchet distance of all generated shapes to the true ones; their features wait in files.

    There is no interval: with resampled objects the distance is biased, since some come twice.

    Args:
        folder (`Path`): of one method's files.
        features (`FeatureExtractor`): see `frechet.py`.
        num_views (`int`): of each shape, spread over its cameras.
    """

    def __init__(self, folder: Path, features: FeatureExtractor, num_views: int = 8):
        self.folder, self.features, self.num_views = folder, features, num_views

    def add(self, shape: ScoredShape) -> dict[str, float]:
        generated = shape.views.spread(self.num_views)
        true = RenderedViews.of(shape.true_mesh, generated.cameras, resolution=shape.resolution, backend=shape.backend)
        arrays = {
            name: self.features(views.pictures).cpu().numpy()
            for name, views in (("generated", generated), ("true", true))
        }
        content = io.BytesIO()
        np.savez(content, **arrays)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"{file_name(shape.view.key)}.npz", content.getvalue())
        return {}

    def finish(self, scores: Scores) -> tuple[Scores, dict[str, dict]]:
        rows = [self._read(key) for key in sorted(scores)]
        sets = [torch.from_numpy(np.concatenate([row[name] for row in rows])) for name in ("generated", "true")]
        num_objects = len({uid for uid, _ in scores})
        return scores, {"normal_fd": {"mean": frechet_distance(*sets), "n": num_objects, "views": len(rows)}}

    def _read(self, key: tuple[str, int]) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{file_name(key)}.npz") as arrays:
            return dict(arrays)


class TurntableScorer(Scorer):
    """`gp` and `gd` by Hi3DEval, of all shapes at once; 0 for a shape that failed.

    Args:
        folder (`Path`): of one method's turntables.
        scorer (`Hi3DEval`): the user's checkout.
    """

    def __init__(self, folder: Path, scorer: Hi3DEval):
        self.folder, self.scorer = folder, scorer

    def add(self, shape: ScoredShape) -> dict[str, float]:
        if shape.mesh is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            turntable = self._turntable(shape.view.key)
            write_turntable(shape.mesh, turntable.video)
            on_white = Image.alpha_composite(Image.new("RGBA", shape.view.image.size, "white"), shape.view.image)
            on_white.convert("RGB").save(turntable.prompt)
        return {}

    def finish(self, scores: Scores) -> tuple[Scores, dict[str, dict]]:
        waiting = [key for key, row in scores.items() if not HEADS.keys() <= row.keys() and not row["failed"]]
        answers = dict(zip(waiting, self.scorer([self._turntable(key) for key in waiting]))) if waiting else {}
        failed = dict.fromkeys(HEADS, 0.0)
        return {key: row | answers.get(key, failed if row["failed"] else {}) for key, row in scores.items()}, {}

    def _turntable(self, key: tuple[str, int]) -> Turntable:
        return Turntable(self.folder / f"{file_name(key)}.gif", self.folder / f"{file_name(key)}.png")


def file_name(key: tuple[str, int]) -> str:
    """A short name, fit for any file system, of a view of an object."""
    uid, view = key
    return f"{hashlib.sha256(uid.encode()).hexdigest()[:24]}-{view}"
