# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Validation that shows: held-out images, the shapes that the model makes of them, and how far these are off."""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from ..data.evaluation_views import EvaluationView, EvaluationViews
from ..files import append_json_line
from ..metrics.reconstruction import decoded_field, extract_and_score
from ..models import ViLearnTransformer3DModel
from ..pipelines.pipeline_vilearn import ViLearnImageTo3DPipeline
from ..pipelines.preview import contact_sheet, render_views
from .components import FrozenModels
from .schedule import Stage
from .stream import UNREADABLE

PICTURE_SIZE = 192


def make_pipeline(
    args: argparse.Namespace, transformer: ViLearnTransformer3DModel, models: FrozenModels, stage: Stage
) -> ViLearnImageTo3DPipeline:
    """The pipeline of a run at a stage: its number of tokens, its image size, its timestep shift and its sampling."""
    models.vae.register_to_config(num_tokens=stage.num_tokens)
    return ViLearnImageTo3DPipeline(
        vae=models.vae,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=stage.shift, stochastic_sampling=args.stochastic_sampling),
        image_encoder=models.image_encoder,
        feature_extractor=models.image_processor(stage.image_size),
    )


class ValidationSamples:
    """Shapes made of the first `--num_validation_images` views of a split, always from the same noise.

    Args:
        args: of `train_vilearn.py`.
        models (`FrozenModels`): of the run.
        accelerator (`Accelerator`): whose processes share the views.

    Raises:
        ValueError: one of the views cannot be read.
    """

    def __init__(self, args: argparse.Namespace, models: FrozenModels, accelerator: Accelerator):
        self.args, self.models, self.accelerator = args, models, accelerator
        self.folder = Path(args.output_dir) / "samples"
        config = models.vae.config
        self.views = EvaluationViews(
            args.dataset_name,
            args.validation_split,
            frame=config.frame,
            bounds=config.bounds,
            cache_dir=args.cache_dir,
        )
        self.count = min(args.num_validation_images, len(self.views))
        for index, (uid, view) in enumerate(self.views.keys[: self.count]):
            try:
                self.views[index]
            except UNREADABLE as error:
                raise ValueError(
                    f"View {view} of {uid}, split {args.validation_split} of {args.dataset_name}, cannot be read:"
                    f" {error!r}. Prepare it anew, or leave out `--num_validation_images`."
                ) from error

    @torch.no_grad()
    def make(self, transformer: ViLearnTransformer3DModel, stage: Stage, step: int) -> dict[str, float]:
        """Sample, score and draw; all processes must call this. Returns the mean of each metric over the views.

        `samples/step-<step>.png` shows each image beside four views of its mesh, `samples/scores.jsonl` has a line a
        view, and the trackers get the picture and the means.
        """
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        # Every process takes equally many, since sharded models need all of them: the last ones may come twice.
        rounds = math.ceil(self.count / world_size)
        pipeline = make_pipeline(self.args, transformer, self.models, stage)
        pipeline.set_progress_bar_config(disable=True)
        mine = []
        for number in range(rounds):
            index = (number * world_size + rank) % self.count
            mine.append((index, *self._sample(pipeline, self.views[index])))
        results = {index: result for index, *result in gather_object(mine)}
        results = [results[index] for index in sorted(results)]
        # A view lacks the recall of points that it has none of.
        names = dict.fromkeys(name for _, scores, _ in results for name in scores)
        means = {name: float(np.mean([row[name] for _, row, _ in results if name in row])) for name in names}
        if self.accelerator.is_main_process:
            self._report(results, means, step)
        return means

    def _sample(self, pipeline: ViLearnImageTo3DPipeline, view: EvaluationView) -> tuple[str, dict, list[Image.Image]]:
        """Name, scores and pictures of one view."""
        args, vae = self.args, self.models.vae
        with self.accelerator.autocast():
            latents = pipeline(
                view.image,
                num_inference_steps=args.validation_inference_steps,
                guidance_scale=args.validation_guidance_scale,
                generator=torch.Generator().manual_seed(args.seed),
                output_type="latent",
            ).meshes
        mesh, scores = extract_and_score(decoded_field(vae, latents), view, vae.config, args.validation_resolution)
        picture = pipeline.image_processor.preprocess(view.image, PICTURE_SIZE)[0]
        return f"{view.uid}, view {view.view}", scores, [picture, *render_views(mesh, size=PICTURE_SIZE)]

    def _report(self, results: list, means: dict[str, float], step: int) -> None:
        labels = [f"{name}: {_describe(row)}" for name, row, _ in results]
        sheet = contact_sheet(
            [pictures for *_, pictures in results], labels, ("image", "front", "right", "back", "left")
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        sheet.save(self.folder / f"step-{step:08d}.png")
        for name, scores, _ in results:
            append_json_line(self.folder / "scores.jsonl", {"step": step, "view": name, **scores})
        self.accelerator.log({f"samples/{name}": value for name, value in means.items()}, step=step)
        log_picture(self.accelerator, "samples", sheet, step)


def _describe(scores: dict[str, float]) -> str:
    """Of one shape, for the sheet."""
    if scores["failed"]:
        return "no surface"
    words = [f"F-score@0.02 {scores['f_score@0.02']:.2f}", f"{scores['floaters']} floaters"]
    # A thin shape may lie between all points.
    return ", ".join([*words, f"IoU {scores['iou']:.2f}"] if "iou" in scores else words)


def log_picture(accelerator: Accelerator, name: str, picture: Image.Image, step: int) -> None:
    """Give a picture to every tracker."""
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.log_images({name: np.asarray(picture)[None]}, step=step, dataformats="NHWC")
        elif tracker.name == "wandb":
            tracker.log_images({name: [picture]}, step=step)
        elif tracker.name == "trackio":
            import trackio

            tracker.log({name: trackio.Image(picture)}, step=step)
