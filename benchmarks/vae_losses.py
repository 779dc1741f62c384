# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What the terms on the field's gradient cost a training step of the VAE, and what they do to its reconstructions.

    python benchmarks/vae_losses.py --dataset_name data/mine --vae_config vae.json --output_dir runs/vae-losses \\
        --seeds 0 1 --output vae_losses.json -- --max_train_steps 1000 --train_batch_size 8

What follows `--` goes to `training/train_vecset_vae.py`; every run validates on the same held-out shapes, and runs of
one seed see the same samples in the same order. Seconds are processor time of one thread, of whole steps (forward,
backward and optimiser) of the same batch, the variants in turn.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import disable_progress_bars
from transformers import AutoImageProcessor

from diffusers_vilearn.data.alignment_views import AlignmentViews
from diffusers_vilearn.data.field_samples import FieldSamples
from diffusers_vilearn.data.image_encoders import load_image_encoder
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.losses import HybridLoss, LossWeights
from diffusers_vilearn.models import VecSetVAE
from diffusers_vilearn.models.visibility_adaptor import VisibilityAdaptor
from diffusers_vilearn.training.vae import alignment_features

TRAINER = Path(__file__).parents[1] / "training" / "train_vecset_vae.py"
VARIANTS = {
    "neither": {"normal": 0.0, "eikonal": 0.0},
    "normals 10": {"normal": 10.0, "eikonal": 0.0},
    "normals 1": {"normal": 1.0, "eikonal": 0.0},
    "eikonal 0.1": {"normal": 0.0, "eikonal": 0.1},
    "both (10, 0.1)": {"normal": 10.0, "eikonal": 0.1},
}
ALIGNMENT = "alignment 0.5"
SCORES = ("iou", "l1", "normal_angle")


def train(args, variant: str, seed: int) -> dict[str, float]:
    """The last validation of one run."""
    folder = args.output_dir / f"{list(VARIANTS).index(variant)}-{seed}"
    weights = [word for name, value in VARIANTS[variant].items() for word in (f"--{name}_weight", str(value))]
    common = ["--dataset_name", args.dataset_name, "--vae_config", args.vae_config, "--output_dir", str(folder)]
    command = [sys.executable, str(TRAINER), *common, "--seed", str(seed), *weights, *args.training]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = json.loads((folder / "validation_log.jsonl").read_text().splitlines()[-1])
    return {name: last[name] for name in SCORES}


def time_steps(args, batch_size: int = 8, num_queries: int = 1024, num_points: int = 1024) -> dict[str, list[float]]:
    """Processor seconds of each step, by variant; with `--image_encoder` also of one with the alignment term."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae = VecSetVAE(**json.loads(Path(args.vae_config).read_text()))
    losses = {
        variant: HybridLoss(vae, LossWeights(**weights), vae.config.truncation)
        for variant, weights in VARIANTS.items()
    }
    image_encoder = views = None
    if args.image_encoder is not None:
        image_encoder = load_image_encoder(args.image_encoder)
        processor = AutoImageProcessor.from_pretrained(args.image_encoder)
        table = load_table(args.dataset_name, "views", split="train")
        views = AlignmentViews(table, processor, num_queries=256, queries="points")
        width, heads = vae.config.decoder_width, vae.config.decoder_heads
        adaptor = VisibilityAdaptor(width, image_encoder.config.hidden_size, heads=heads)
        weights = LossWeights(normal=0, eikonal=0, alignment=0.5)
        losses[ALIGNMENT] = HybridLoss(vae, weights, vae.config.truncation, adaptor)
    clouds = dict(num_points=num_points, num_sharp_points=num_points, num_queries=num_queries, num_normals=256)
    shapes = load_table(args.dataset_name, "shapes", split="train")
    samples = FieldSamples(shapes, vae.config, seed=0, **clouds, num_tokens=vae.config.num_tokens, views=views)
    rows = [samples[0, index] for index in range(batch_size)]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "uid"}
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-4)
    seconds = {variant: [] for variant in losses}
    for _ in range(args.timed_steps):
        for variant, loss_of in losses.items():
            start = time.process_time()
            if variant == ALIGNMENT:
                batch["alignment_features"] = alignment_features(image_encoder, batch)
            loss, _ = loss_of(batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds[variant].append(time.process_time() - start)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", required=True)
    parser.add_argument("--vae_config", required=True)
    parser.add_argument("--output_dir", type=Path, required=True, help="Of the runs.")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="None: only the seconds.")
    parser.add_argument("--image_encoder", help="Also time the alignment term, with this `Dinov2Model`.")
    parser.add_argument("--timed_steps", type=int, default=10)
    parser.add_argument("--output", type=Path)
    parser.add_argument("training", nargs="*", help="Arguments of the trainer.")
    args = parser.parse_args()
    disable_progress_bars()
    seconds = time_steps(args)
    scores = {variant: [] for variant in VARIANTS}
    for seed in args.seeds:
        for variant in VARIANTS:
            scores[variant].append(train(args, variant, seed))
    print("| terms | s a step | " + " | ".join(SCORES) + " |")
    print("| --- | ---: |" + " ---: |" * len(SCORES))
    for variant, values in seconds.items():
        columns = [" / ".join(f"{run[name]:.3f}" for run in scores.get(variant, [])) for name in SCORES]
        print(f"| {variant} | {np.median(values):.3f} | " + " | ".join(columns) + " |")
    print(f"one column entry a seed; {platform.processor()}, torch {torch.__version__}")
    if args.output:
        args.output.write_text(json.dumps({"seconds": seconds, "scores": scores}, indent=1))


if __name__ == "__main__":
    main()
