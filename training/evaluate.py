# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Score a pipeline on held-out views: its VAE's reconstructions, and the shapes it generates from images.

    python training/evaluate.py --checkpoint checkpoints/vilearn-tiny --dataset_name data/tiny-heldout \\
        --output_dir runs/eval

Writes one JSON line a view to `<output_dir>/<method>.jsonl` (run it again to resume), then `summary.json` and
`summary.md`. Files of other methods in the same folder are compared as well, paired by view.
"""

import argparse
import json
from pathlib import Path

import datasets
import torch
from tqdm.auto import tqdm

from diffusers_vilearn import ViLearnImageTo3DPipeline
from diffusers_vilearn.data.evaluation_views import EvaluationViews
from diffusers_vilearn.files import append_json_line
from diffusers_vilearn.metrics.reconstruction import decoded_field, score_shape
from diffusers_vilearn.metrics.summary import markdown_table, paired_differences, read_scores, summarise


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="Folder or Hub id of a `ViLearnImageTo3DPipeline`.")
    parser.add_argument("--dataset_name", required=True, help="Prepared dataset with the views.")
    parser.add_argument("--split", default="heldout")
    parser.add_argument("--views_per_object", type=int, default=1)
    parser.add_argument("--methods", nargs="*", default=["reconstruction", "generation"])
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--num_points", type=int, default=4096, help="Points of the cloud that the VAE reconstructs.")
    parser.add_argument("--num_inference_steps", type=int, default=25)
    parser.add_argument("--guidance_scale", type=float, default=2.0)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def reconstruct(pipeline, view, args) -> torch.Tensor:
    """Normalised latents of the true shape."""
    cloud = torch.from_numpy(view.surface[: args.num_points])[None].to(args.device)
    return pipeline.vae.normalize_latents(pipeline.vae.encode(cloud).latent_dist.mode())


def generate(pipeline, view, args) -> torch.Tensor:
    """Normalised latents sampled from the image; the same noise for every view."""
    return pipeline(
        view.image,
        num_inference_steps=args.num_inference_steps,
        guidance_scale=args.guidance_scale,
        generator=torch.Generator().manual_seed(args.seed),
        output_type="latent",
    ).meshes


METHODS = {"reconstruction": reconstruct, "generation": generate}


@torch.no_grad()
def score_latents(vae, latents: torch.Tensor, view, resolution: int) -> dict[str, float]:
    """Decode one shape and measure it against the truth of `view`."""
    return score_shape(decoded_field(vae, latents), view, vae.config, resolution)


def write_summary(output_dir: Path) -> None:
    """Tables of all methods in a folder: scores, and each one's difference to `generation`, paired by view."""
    scores = {path.stem: read_scores(path) for path in sorted(output_dir.glob("*.jsonl"))}
    summary = {"scores": {method: summarise(rows) for method, rows in scores.items()}, "generation_minus": {}}
    text = "Mean [95% interval] (median).\n\n" + markdown_table(summary["scores"])
    if "generation" in scores:
        for method, rows in scores.items():
            if method != "generation":
                summary["generation_minus"][method] = paired_differences(scores["generation"], rows)
    if summary["generation_minus"]:
        text += "\n\nGeneration minus the others, paired by view: mean [95% interval].\n\n"
        text += markdown_table(summary["generation_minus"])
    (output_dir / "summary.json").write_text(json.dumps(summary, indent=1))
    (output_dir / "summary.md").write_text(text + "\n")
    print(text)


def main(args):
    args.output_dir.mkdir(parents=True, exist_ok=True)
    pipeline = ViLearnImageTo3DPipeline.from_pretrained(args.checkpoint).to(args.device)
    pipeline.set_progress_bar_config(disable=True)
    vae = pipeline.vae
    views = EvaluationViews(
        args.dataset_name,
        args.split,
        frame=vae.config.frame,
        bounds=vae.config.bounds,
        views_per_object=args.views_per_object,
    )
    for method in args.methods:
        path = args.output_dir / f"{method}.jsonl"
        done = read_scores(path) if path.exists() else {}
        for index in tqdm(range(len(views)), desc=method):
            view = views[index]
            if view.key in done:
                continue
            latents = METHODS[method](pipeline, view, args)
            append_json_line(
                path, {"uid": view.uid, "view": view.view, **score_latents(vae, latents, view, args.resolution)}
            )
    write_summary(args.output_dir)


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(parse_args())
