# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Train a `VecSetVAE` on the shapes of a prepared dataset.

    accelerate launch training/train_vecset_vae.py --dataset_name data/tiny --output_dir runs/vae \
        --vae_config training/tiny/vae.json --max_train_steps 10000
"""

import argparse
import json
from pathlib import Path

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from diffusers_vilearn.data.field_samples import FieldSamples
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.files import append_json_line
from diffusers_vilearn.metrics.reconstruction import occupancy_iou
from diffusers_vilearn.models import VecSetVAE
from diffusers_vilearn.models.autoencoder_vecset import DiagonalGaussianDistribution
from diffusers_vilearn.training.arguments import add_common_arguments, parse_arguments
from diffusers_vilearn.training.checkpoints import save_models_by_name
from diffusers_vilearn.training.loop import TrainingLoop
from diffusers_vilearn.training.run import make_optimizer, start_accelerator
from diffusers_vilearn.training.stream import count_steps, whole_batches


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, learning_rate=1e-3)
    parser.add_argument("--dataset_name", required=True, help="Folder or Hub id of a prepared dataset.")
    parser.add_argument("--vae_config", required=True, help="JSON file with the arguments of `VecSetVAE`.")
    parser.add_argument("--num_points", type=int, default=2048, help="Points of the cloud given to the encoder.")
    parser.add_argument("--num_queries", type=int, default=1024, help="Field queries per shape and step.")
    parser.add_argument(
        "--kl_weight", type=float, default=1e-3, help="Final weight of the KL term (nats per channel)."
    )
    parser.add_argument(
        "--kl_warmup_steps", type=int, default=0, help="Steps over which the KL weight grows from 10%%."
    )
    parser.add_argument(
        "--anchor_weight",
        type=float,
        default=0.0,
        help="Weight of regressing each decoder token's own farthest-point anchor; removes an early plateau.",
    )
    parser.add_argument(
        "--anchor_latent_weight",
        type=float,
        default=0.0,
        help="Weight of pulling the first three latent channels to twice the anchor's position.",
    )
    parser.add_argument("--num_validation_shapes", type=int, default=32, help="Training shapes kept for validation.")
    parser.add_argument("--validation_steps", type=int, default=500)
    return parse_arguments(parser)


def vae_loss(vae, anchor_head, batch, kl_weight, args):
    """The training objective and its parts (DESIGN: TSDF L1 + L2, KL, anchors)."""
    field, moments, hidden, anchors = vae(batch["points"], batch["xyz"], return_dict=False)
    posterior = DiagonalGaussianDistribution(moments)
    parts = {
        "l1": F.l1_loss(field, batch["field"]),
        "l2": F.mse_loss(field, batch["field"]),
        "kl": posterior.kl().mean(),
    }
    loss = parts["l1"] + parts["l2"] + kl_weight * parts["kl"]
    if args.anchor_weight:
        parts["anchor"] = F.mse_loss(anchor_head(hidden).float(), anchors)
        loss = loss + args.anchor_weight * parts["anchor"]
    if args.anchor_latent_weight:
        parts["anchor_latent"] = F.mse_loss(posterior.mean[..., :3].float(), 2 * anchors)
        loss = loss + args.anchor_latent_weight * parts["anchor_latent"]
    return loss, parts


@torch.no_grad()
def validate(vae, samples: FieldSamples, batch_size: int, device) -> dict[str, float]:
    """Mean IoU of the sign over volume queries, and mean absolute error, posterior mode."""
    ious, errors = [], []
    for batch in whole_batches(samples, batch_size, device):
        field = vae(batch["points"], batch["xyz"], sample_posterior=False, return_dict=False)[0].float()
        volume = slice(samples.num_queries // 2, None)
        ious.extend(occupancy_iou(field[:, volume, 0] > 0, batch["field"][:, volume, 0] > 0).tolist())
        errors.append((field - batch["field"]).abs().mean().item())
    return {"iou": float(np.mean(ious)), "median_iou": float(np.median(ious)), "l1": float(np.mean(errors))}


@torch.no_grad()
def measure_latents(vae, samples: FieldSamples, batch_size: int, device) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of sampled latents over the training shapes, one pass."""
    generator = torch.Generator(device).manual_seed(0)
    latents = []
    for batch in whole_batches(samples, batch_size, device):
        latents.append(vae.encode(batch["points"]).latent_dist.sample(generator).float().flatten(0, 1))
    latents = torch.cat(latents)
    return latents.mean(dim=0).tolist(), latents.std(dim=0).tolist()


def main(args):
    accelerator = start_accelerator(args)
    output_dir = Path(args.output_dir)

    config = json.loads(Path(args.vae_config).read_text())
    vae = VecSetVAE(**config)
    if args.gradient_checkpointing:
        vae.enable_gradient_checkpointing()
    anchor_head = nn.Linear(vae.config.decoder_width, 3)

    shapes = load_table(args.dataset_name, "shapes", split="train")
    held = args.num_validation_shapes
    if len(shapes) <= held:
        raise ValueError(
            f"`--num_validation_shapes` is {held}, but {args.dataset_name} has only {len(shapes)} shapes."
        )
    # Rows are written in the order of their shuffled ids, so the first ones are a fair sample.
    options = dict(
        frame=vae.config.frame, truncation=vae.config.truncation, bounds=vae.config.bounds, num_points=args.num_points
    )
    train_samples = FieldSamples(
        shapes.select(range(held, len(shapes))), num_queries=args.num_queries, seed=args.seed, **options
    )
    validation_samples = FieldSamples(shapes.select(range(held)), num_queries=16384, seed=0, **options)

    parameters = [*vae.parameters(), *anchor_head.parameters()]
    max_train_steps = count_steps(args, len(train_samples), accelerator)
    optimizer, lr_scheduler = make_optimizer(args, parameters, accelerator, max_train_steps)
    vae, anchor_head, optimizer, lr_scheduler = accelerator.prepare(vae, anchor_head, optimizer, lr_scheduler)
    if accelerator.log_with:
        accelerator.init_trackers("train_vecset_vae", config=vars(args))
    save_models_by_name(accelerator, {VecSetVAE: "vae"})
    loop = TrainingLoop(args, accelerator, [vae, anchor_head], optimizer, lr_scheduler, max_train_steps)
    loop.resume()

    def loss_of(batch):
        kl_weight = args.kl_weight * max(0.1, min(1.0, loop.progress.step / max(1, args.kl_warmup_steps)))
        return vae_loss(vae, anchor_head, batch, kl_weight, args)

    vae.train()
    with loop:
        for step in loop.steps(train_samples, loss_of):
            if step % args.validation_steps == 0 or step == max_train_steps:
                model = accelerator.unwrap_model(vae).eval()
                with accelerator.autocast():
                    result = validate(model, validation_samples, args.train_batch_size, accelerator.device)
                model.train()
                accelerator.log({f"validation/{name}": value for name, value in result.items()}, step=step)
                accelerator.print(
                    f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in result.items())
                )
                if accelerator.is_main_process:
                    append_json_line(output_dir / "validation_log.jsonl", {"step": step, **result})
    if loop.interrupted:
        accelerator.end_training()
        return

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        model = accelerator.unwrap_model(vae).eval()
        mean, std = measure_latents(model, train_samples, args.train_batch_size, accelerator.device)
        model.register_to_config(shift_factor=mean, scaling_factor=[1 / value for value in std])
        model.save_pretrained(output_dir / "vae")
    accelerator.end_training()


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(parse_args())
