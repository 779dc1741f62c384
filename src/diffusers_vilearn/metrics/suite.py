# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Which metrics `training/evaluate.py` computes, what they need, and what their scores depend on."""

import argparse
import math
from collections.abc import Iterable
from typing import Any

import torch
import trimesh

from ..data.evaluation_views import EvaluationView, EvaluationViews
from ..data.image_encoders import load_image_encoder
from ..data.latents import fingerprint
from ..data.true_meshes import TrueMeshes
from ..geometry.cameras import sphere_cameras
from ..pipelines.stages import check_guidance_scale, check_integers, check_number, check_visible_fraction
from .frechet import Dinov2Features
from .hi3deval import Hi3DEval
from .image_alignment import check_multiple_of_patches
from .normal_maps import MoGeNormalEstimator
from .render_similarity import load_lpips
from .rendered_views import DISTANCE, VERTICAL_FOV, spread_views
from .score_files import MEASURED_WITH
from .scorers import AlignmentScorer, DetailScorer, FrechetScorer, RenderScorer, ScoredShape, Scorer, TurntableScorer

# The columns of each metric.
METRICS = {
    "geometry": ("iou", "chamfer", "chamfer_l2", "normal_consistency", "floaters", "components", "large_components"),
    "detail": ("area_behind", "roughness_behind"),
    "is_as": ("is_as",),
    "renders": ("psnr", "ssim"),
    "lpips": ("psnr", "ssim", "lpips"),
    # of all shapes at once
    "normal_fd": (),
    "hi3deval": ("gp", "gd"),
}
# Those of `geometry` that there are of every threshold.
THRESHOLDED = ("f_score", "visible_recall", "invisible_recall")
# Of the integers among the options.
SMALLEST = {
    **dict.fromkeys(("views_per_object", "max_views", "num_points", "num_inference_steps"), 1),
    **dict.fromkeys(("num_metric_views", "num_feature_views", "metric_resolution", "metric_batch_size"), 1),
    "sheet_rows": 0,
    "resolution": 8,
    # the window of SSIM
    "render_resolution": 11,
}
# In place of the name of a normal estimator: the normals of the true mesh.
TRUE_NORMALS = "true"


def check_options(args: argparse.Namespace) -> None:
    """Raise `ValueError` for a number out of its range, for a metric whose needs are not given, and for a ranking by
    what is not measured."""
    given = {name: (getattr(args, name), smallest) for name, smallest in SMALLEST.items()}
    check_integers(**{name: pair for name, pair in given.items() if pair[0] is not None})
    check_guidance_scale(args.guidance_scale)
    check_visible_fraction(args.visible_fraction)
    for threshold in args.f_score_thresholds:
        check_number("f_score_thresholds", threshold, lambda value: 0 < value < math.inf, "positive numbers")
    if (needy := metrics_of_true_meshes(args)) and not (args.objects and args.root):
        raise ValueError(f"{', '.join(needy)} needs the true meshes: `--objects` and `--root`.")
    if "normal_fd" in args.metrics and args.num_feature_views > args.num_metric_views:
        raise ValueError(
            f"`--num_feature_views` is {args.num_feature_views}, but there are only {args.num_metric_views} of"
            " `--num_metric_views` to take them from."
        )
    if "hi3deval" in args.metrics and not args.hi3deval:
        raise ValueError("hi3deval needs `--hi3deval`, your git checkout of 3DTopia/Hi3DEval.")
    columns = [column for metric in dict.fromkeys(("geometry", *args.metrics)) for column in METRICS[metric]]
    columns += [f"{name}@{threshold}" for name in THRESHOLDED for threshold in args.f_score_thresholds]
    if args.rank_by not in (None, *columns):
        raise ValueError(f"`--rank_by` must be one of {', '.join(columns)}, but is {args.rank_by!r}.")


def metrics_of_true_meshes(args: argparse.Namespace) -> list[str]:
    """The chosen metrics that look at the true meshes."""
    needy = [name for name in ("renders", "lpips", "normal_fd") if name in args.metrics]
    with_true_normals = "is_as" in args.metrics and args.normal_estimator == TRUE_NORMALS
    return [*needy, *(["is_as with true normals"] if with_true_normals else [])]


class MetricSuite:
    """The chosen metrics, the models of those beyond `geometry` loaded once.

    Args:
        args: of `evaluate.py`.
        device (`torch.device`): of the models.

    Raises:
        ValueError: the encoder does not take pictures of `args.metric_resolution`.
    """

    def __init__(self, args: argparse.Namespace, device: torch.device):
        self.args = args
        self.truth = TrueMeshes(args.objects, args.root, args.split) if metrics_of_true_meshes(args) else None
        self.cameras = sphere_cameras(args.num_metric_views, distance=DISTANCE, vertical_fov=VERTICAL_FOV)
        chosen = set(args.metrics)
        if "normal_fd" in chosen:
            few = spread_views(len(self.cameras), args.num_feature_views)
            # Only `is_as` looks at the others.
            self.cameras = self.cameras if "is_as" in chosen else [self.cameras[index] for index in few]
        # What the scores depend on and a name or path does not tell.
        self.identities = {"objects": self.truth and self.truth.digest()}
        if chosen & {"is_as", "normal_fd"}:
            self.encoder = load_image_encoder(args.metric_encoder).to(device)
            check_multiple_of_patches("metric_resolution", args.metric_resolution, self.encoder)
            self.identities["metric_encoder"] = fingerprint(self.encoder)
        self.everywhere = [DetailScorer()] if "detail" in chosen else []
        if "is_as" in chosen:
            estimator = None
            if args.normal_estimator != TRUE_NORMALS:
                estimator = MoGeNormalEstimator.from_pretrained(args.normal_estimator, device)
                self.identities["normal_estimator"] = fingerprint(estimator.model)
            self.everywhere.append(AlignmentScorer(self.encoder, estimator, args.metric_batch_size))
        if chosen & {"renders", "lpips"}:
            lpips = load_lpips(device=device) if "lpips" in chosen else None
            self.everywhere.append(RenderScorer(lpips, args.render_resolution))
        if "hi3deval" in chosen:
            launcher = {"launcher": args.hi3deval_launcher} if args.hi3deval_launcher else {}
            self.hi3deval = Hi3DEval(args.hi3deval, **launcher)
            self.identities["hi3deval"] = self.hi3deval.identity()

    def settings(self, views: EvaluationViews, components: dict[str, Any], options: Iterable[str]) -> dict:
        """Everything that the scores of a method depend on, but for which views there are scores of.

        Args:
            views (`EvaluationViews`): of the whole split.
            components (`dict`): of the pipeline by name, that the method's shapes are made with.
            options (`Iterable[str]`): of `args`, that they are made with.
        """
        metrics = sorted({"geometry", *self.args.metrics})
        known = vars(self.args) | {"dataset": views.digest, "frame": views.frame, "bounds": views.bounds}
        known |= self.identities
        names = [*options, *(name for metric in metrics for name in MEASURED_WITH.get(metric, ()))]
        names += ["objects"] if metrics_of_true_meshes(self.args) else []
        settings = {name: known[name] for name in names} | {"metrics": metrics}
        for name, component in components.items():
            settings[name] = {"class": type(component).__name__, "config": _configuration(component)}
            if isinstance(component, torch.nn.Module):
                settings[name]["weights"] = fingerprint(component)
        return settings

    def of_method(self, method: str) -> list[Scorer]:
        """The scorers of one method; some leave files of their own."""
        args, scorers = self.args, list(self.everywhere)
        if "normal_fd" in args.metrics:
            features = Dinov2Features(self.encoder, args.metric_batch_size)
            folder = args.output_dir / "normal-features" / method
            scorers.append(FrechetScorer(folder, features, args.num_feature_views))
        if "hi3deval" in args.metrics:
            scorers.append(TurntableScorer(args.output_dir / "turntables" / method, self.hi3deval))
        return scorers

    def score(self, scorers: list[Scorer], mesh: trimesh.Trimesh | None, view: EvaluationView) -> dict[str, float]:
        """What the scorers say of one shape, `None` for one that failed."""
        shape = ScoredShape(
            mesh,
            view,
            cameras=self.cameras,
            resolution=self.args.metric_resolution,
            truth=self.truth,
            backend=self.args.renderer,
        )
        return {name: value for scorer in scorers for name, value in scorer.add(shape).items()}


def _configuration(component) -> dict:
    """What a component's own file says of it, but for what depends on where it lies and on the installed versions."""
    config = getattr(component, "config", component)
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {name: value for name, value in values.items() if name[0] != "_" and name != "transformers_version"}
