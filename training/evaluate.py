# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Score pipelines on held-out views: their VAE's reconstructions, and the shapes they generate from images.

    python training/evaluate.py --checkpoint checkpoints/vilearn-tiny --dataset_name data/tiny-heldout \\
        --output_dir runs/eval
    accelerate launch --num_processes 8 training/evaluate.py --checkpoint none=runs/none va_rope=runs/va_rope \\
        --dataset_name data/heldout --output_dir runs/compare --metrics geometry is_as

Writes one JSON line a view to `<output_dir>/<method>.jsonl` (run it again to resume, or to add views), then
`summary.json`, `summary.csv`, `summary.md`, and a contact sheet of the best, median and worst shapes of each method.
The method is `generation` or `reconstruction`, with several checkpoints `<name>.generation`. Other methods' files in
the same folder are compared as well, paired by view. docs/metrics.md defines the columns.
"""

import argparse
import inspect
import json
import shlex
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from tqdm.auto import tqdm

from diffusers_vilearn import VecSetVAE, ViLearnImageTo3DPipeline
from diffusers_vilearn.data.clouds import sharp_cloud, takes_sharp_points, with_flag
from diffusers_vilearn.data.evaluation_views import EvaluationViews
from diffusers_vilearn.data.images import prepare_condition_image
from diffusers_vilearn.data.preparation import object_rng
from diffusers_vilearn.errors import noted, refusals_in_one_line
from diffusers_vilearn.files import write_atomically
from diffusers_vilearn.metrics.image_alignment import IMAGE_ENCODER
from diffusers_vilearn.metrics.reconstruction import THRESHOLDS, decoded_field, extract_and_score
from diffusers_vilearn.metrics.rendered_views import NUM_VIEWS, RESOLUTION
from diffusers_vilearn.metrics.score_files import ScoreFile, check_comparable, methods_of, write_scores
from diffusers_vilearn.metrics.suite import METRICS, MetricSuite, check_options
from diffusers_vilearn.metrics.summary import best_median_worst, metrics_of, write_summary
from diffusers_vilearn.pipelines.preview import contact_sheet, render_views

SHEET_PICTURE = 160


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        required=True,
        help="Folders or Hub ids of pipelines, each with a name before it (name=folder) if you like.",
    )
    parser.add_argument("--dataset_name", required=True, help="Prepared dataset with the views.")
    parser.add_argument("--split", default="heldout")
    parser.add_argument("--views_per_object", type=int, default=1)
    parser.add_argument("--max_views", type=int, help="Only so many views, spread evenly over the table.")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--num_points", type=int, default=4096, help="Points of each cloud that the VAE reconstructs.")
    parser.add_argument("--num_inference_steps", type=int, default=25)
    parser.add_argument("--guidance_scale", type=float, default=3.0)
    parser.add_argument("--visible_fraction", type=float, help="Of the shape tokens; by default the transformer's.")
    parser.add_argument("--resolution", type=int, default=128, help="Cells per axis of the meshes.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--reference",
        nargs="*",
        help="Methods that all others are subtracted from; by default those that generate, if any.",
    )
    parser.add_argument("--sheet_rows", type=int, default=3, help="Best, median and worst shapes to draw; 0 for none.")
    parser.add_argument("--rank_by", help="Metric that tells the best from the worst; the last F-score by default.")

    metrics = parser.add_argument_group("metrics")
    metrics.add_argument(
        "--metrics",
        nargs="+",
        choices=METRICS,
        default=["geometry"],
        help="`geometry` needs nothing and is always computed; the others need models, renders or the true meshes.",
    )
    metrics.add_argument("--f_score_thresholds", type=float, nargs="+", default=list(THRESHOLDS))
    metrics.add_argument("--objects", type=Path, help="List of the dataset's objects, for metrics with true meshes.")
    metrics.add_argument("--root", type=Path, help="Folder that its paths are relative to.")
    metrics.add_argument("--metric_encoder", default=IMAGE_ENCODER, help="DINOv2 of `is_as` and `normal_fd`.")
    metrics.add_argument(
        "--normal_estimator",
        default="Ruicheng/moge-2-vitl-normal",
        help="MoGe-2 of `is_as`; `true` for the true normals of the condition view (needs --objects).",
    )
    metrics.add_argument("--num_metric_views", type=int, default=NUM_VIEWS, help="Normal maps a shape.")
    metrics.add_argument("--metric_resolution", type=int, default=RESOLUTION, help="Side of the normal maps.")
    metrics.add_argument("--num_feature_views", type=int, default=8, help="Of these, how many `normal_fd` looks at.")
    metrics.add_argument("--render_resolution", type=int, default=256, help="Side of the pictures of `renders`.")
    metrics.add_argument("--metric_batch_size", type=int, default=32, help="Pictures at a time.")
    metrics.add_argument("--renderer", choices=("embree", "nvdiffrast"), default="embree")
    metrics.add_argument("--hi3deval", type=Path, help="Your git checkout of 3DTopia/Hi3DEval.")
    metrics.add_argument(
        "--hi3deval_launcher",
        type=shlex.split,
        help="In quotes, the `torchrun --standalone` of its environment, where it has one of its own.",
    )
    args = parser.parse_args()
    check_options(args)
    return args


def reconstruct(pipeline, view, args) -> torch.Tensor:
    """Normalised latents of the true shape."""
    vae, flagged = pipeline.vae, pipeline.vae.config.sharp_flag
    clouds = [with_flag(view.surface[: args.num_points], 0.0, flagged)]
    if takes_sharp_points(vae.config):
        rng = object_rng(view.uid, "reconstruction")
        clouds.append(sharp_cloud(np.eye(4), view.sharp_edges, view.surface, args.num_points, rng, flagged=flagged))
    posterior = vae.encode(*(torch.from_numpy(cloud)[None].to(vae.device) for cloud in clouds)).latent_dist
    return vae.normalize_latents(posterior.mode())


def generate(pipeline, view, args) -> torch.Tensor:
    """Normalised latents sampled from the image, from noise that is each view's own and the same in every run."""
    return pipeline(
        view.image,
        num_inference_steps=args.num_inference_steps,
        guidance_scale=args.guidance_scale,
        visible_fraction=args.visible_fraction,
        generator=torch.Generator().manual_seed(view.noise_seed(args.seed)),
        output_type="latent",
    ).meshes


METHODS = {"reconstruction": reconstruct, "generation": generate}
# What the shapes of a method are made with: components of the pipeline, and options.
MADE_WITH = {
    "reconstruction": (("vae",), ("num_points",)),
    "generation": (
        ("vae", "transformer", "scheduler", "image_encoder", "feature_extractor"),
        ("num_inference_steps", "guidance_scale", "visible_fraction", "seed"),
    ),
}


@torch.no_grad()
def make_shape(pipeline, view, method: str, args):
    """Mesh (`None` if it failed) and geometric scores of one view."""
    field = decoded_field(pipeline.vae, METHODS[method](pipeline, view, args))
    return extract_and_score(field, view, pipeline.vae.config, args.resolution, args.f_score_thresholds)


def named_checkpoints(words: list[str]) -> dict[str, str]:
    """Name -> checkpoint; a single one without a name is called nothing."""
    checkpoints = {}
    for word in words:
        name, _, path = word.partition("=")
        if not path or "/" in name or Path(word).is_dir():
            name, path = "" if len(words) == 1 else Path(word).name, word
        if name in checkpoints:
            raise ValueError(f"`--checkpoint` has two named {name!r}; give them other names (name=folder).")
        checkpoints[name] = path
    return checkpoints


def score_method(pipeline, method: str, label: str, views, suite: MetricSuite, accelerator: Accelerator, args) -> None:
    """Score one method on all views; the processes share those that lack scores, the main one keeps the file."""
    file = ScoreFile(args.output_dir, label, accelerator.process_index)
    if accelerator.is_main_process:
        components, options = MADE_WITH[method]
        file.join()
        file.check_settings(suite.settings(views, {name: getattr(pipeline, name) for name in components}, options))
        check_comparable(args.output_dir, {label})
    accelerator.wait_for_everyone()
    done = file.read()
    accelerator.wait_for_everyone()

    count = min(args.max_views or len(views), len(views))
    chosen = np.linspace(0, len(views) - 1, count).round().astype(int)
    missing = [index for index in chosen if views.keys[index] not in done]
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    scorers = suite.of_method(label)
    for index in tqdm(mine, desc=label, disable=not accelerator.is_main_process):
        view = views[index]
        with noted(f"While {label} was scored on view {view.view} of {view.uid}."):
            mesh, scores = make_shape(pipeline, view, method, args)
            file.append(view.uid, view.view, scores | suite.score(scorers, mesh, view))
    accelerator.wait_for_everyone()

    if accelerator.is_main_process:
        file.join()
        finish_method(file, label, scorers, args)
        draw_sheet(args.output_dir / f"{label}.png", file.read(), views, pipeline, method, args)


def finish_method(file: ScoreFile, label: str, scorers: list, args) -> None:
    """What is measured of all shapes at once."""
    scores, of_set = file.read(), {}
    for scorer in scorers:
        scores, measured = scorer.finish(scores)
        of_set |= measured
    write_scores(file.path, scores)
    path = args.output_dir / "sets" / f"{label}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(of_set).encode())


def draw_sheet(path: Path, scores, views, pipeline, method: str, args) -> None:
    """Input beside four sides of the mesh, for the best, the median and the worst shapes."""
    if not args.sheet_rows:
        return
    rank_by = args.rank_by or f"f_score@{args.f_score_thresholds[-1]}"
    row_of = {key: row for row, key in enumerate(views.keys)}
    # There may be scores of more views than were asked for this time.
    scores = {key: row for key, row in scores.items() if key in row_of}
    if rank_by not in metrics_of(scores):
        print(f"No {path.name}: no shape has a value of {rank_by}.")
        return
    rows, labels = [], []
    for place, keys in best_median_worst(scores, rank_by, args.sheet_rows).items():
        for key in keys:
            view = views[row_of[key]]
            mesh, _ = make_shape(pipeline, view, method, args)
            rows.append([prepare_condition_image(view.image, SHEET_PICTURE), *render_views(mesh, size=SHEET_PICTURE)])
            labels.append(f"{place}: {rank_by} {scores[key][rank_by]:.3f}, {key[0]}, view {key[1]}")
    contact_sheet(rows, labels, ("input", "front", "right", "back", "left")).save(path, optimize=True)


def common_frame(checkpoints: dict[str, str]) -> dict[str, str | float]:
    """`frame` and `bounds` of the shapes of all checkpoints.

    Raises:
        ValueError: they do not lie alike.
    """
    configs = {name: VecSetVAE.load_config(path, subfolder="vae") for name, path in checkpoints.items()}
    common = {}
    for option in ("frame", "bounds"):
        default = inspect.signature(VecSetVAE.__init__).parameters[option].default
        values = {name: config.get(option, default) for name, config in configs.items()}
        common[option] = next(iter(values.values()))
        if any(value != common[option] for value in values.values()):
            raise ValueError(
                f"The checkpoints do not compare: the `{option}` of their VAEs is"
                f" {', '.join(f'{value!r} for {name}' for name, value in values.items())}. Score them one by one."
            )
    return common


def check_points(args, views: EvaluationViews) -> None:
    """Raise `ValueError` if a VAE is to reconstruct clouds of more points than there are."""
    if "reconstruction" in args.methods and args.num_points > (stored := len(views[0].surface)):
        raise ValueError(f"`--num_points` must be at most {stored}, as many as are stored, but is {args.num_points}.")


def label_of(name: str, method: str) -> str:
    """Of a method of the checkpoint that is called `name`, in tables and file names."""
    return f"{name}.{method}" if name else method


def references_of(args, names: Iterable[str]) -> list[str]:
    """The methods that others are subtracted from.

    Raises:
        ValueError: `--reference` names one that is neither to be scored nor in the folder.
    """
    if args.reference is None:
        methods = ["generation"] if "generation" in args.methods else args.methods
        return [label_of(name, method) for name in names for method in methods]
    known = {*(label_of(name, method) for name in names for method in args.methods), *methods_of(args.output_dir)}
    if unknown := set(args.reference) - known:
        raise ValueError(f"`--reference` must be of {sorted(known)}, but has {sorted(unknown)}.")
    return args.reference


def main(args):
    # The others wait while the main process finishes a method.
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))])
    args.output_dir.mkdir(parents=True, exist_ok=True)
    checkpoints = named_checkpoints(args.checkpoint)
    references = references_of(args, checkpoints)
    views = EvaluationViews(
        args.dataset_name, args.split, views_per_object=args.views_per_object, **common_frame(checkpoints)
    )
    check_points(args, views)
    suite = MetricSuite(args, accelerator.device)
    for name, checkpoint in checkpoints.items():
        pipeline = ViLearnImageTo3DPipeline.from_pretrained(checkpoint).to(accelerator.device)
        pipeline.set_progress_bar_config(disable=True)
        for method in args.methods:
            score_method(pipeline, method, label_of(name, method), views, suite, accelerator, args)
    if accelerator.is_main_process:
        print(write_summary(args.output_dir, references))
    accelerator.end_training()


if __name__ == "__main__":
    datasets.disable_progress_bars()
    with refusals_in_one_line():
        main(parse_args())
