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
from tqdm.auto import tqdm

from diffusers_vilearn.data.field_samples import FieldSamples
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.metrics.reconstruction import occupancy_iou
from diffusers_vilearn.models import VecSetVAE
from diffusers_vilearn.models.autoencoder_vecset import DiagonalGaussianDistribution
from diffusers_vilearn.training_utils import (
    add_common_arguments,
    append_json_line,
    batches_of,
    collate_rows,
    make_loader,
    make_optimizer,
    resume_from,
    save_checkpoint,
    start_accelerator,
)


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
    return parser.parse_args()


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
    for indices in batches_of(len(samples), batch_size):
        batch = collate_rows(samples, indices, device)
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
    for indices in batches_of(len(samples), batch_size):
        points = collate_rows(samples, indices, device)["points"]
        latents.append(vae.encode(points).latent_dist.sample(generator).float().flatten(0, 1))
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
    optimizer, lr_scheduler = make_optimizer(args, parameters, accelerator)
    vae, anchor_head, optimizer, lr_scheduler = accelerator.prepare(vae, anchor_head, optimizer, lr_scheduler)
    if accelerator.log_with:
        accelerator.init_trackers("train_vecset_vae", config=vars(args))
    first_step = resume_from(accelerator, args.output_dir, args.resume_from_checkpoint)

    loader = make_loader(args, train_samples, first_step, accelerator)
    step = first_step
    progress = tqdm(
        total=args.max_train_steps, initial=step, desc="Steps", disable=not accelerator.is_local_main_process
    )
    vae.train()
    for batch in loader:
        kl_weight = args.kl_weight * max(0.1, min(1.0, step / max(1, args.kl_warmup_steps)))
        with accelerator.accumulate(vae, anchor_head):
            with accelerator.autocast():
                loss, parts = vae_loss(vae, anchor_head, batch, kl_weight, args)
            if not torch.isfinite(loss):
                raise RuntimeError(f"The loss is {loss.item()} at step {step}; the last checkpoint is intact.")
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(parameters, args.max_grad_norm)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad(set_to_none=True)
        if not accelerator.sync_gradients:
            continue
        step += 1
        progress.update(1)
        if step % 50 == 0:
            logs = {name: part.item() for name, part in parts.items()}
            progress.set_postfix({name: f"{value:.4f}" for name, value in logs.items()})
            accelerator.log({f"train/{name}": value for name, value in logs.items()}, step=step)
            append_json_line(output_dir / "train_log.jsonl", {"step": step, **logs})
        if step % args.checkpointing_steps == 0:
            save_checkpoint(accelerator, args.output_dir, step, args.checkpoints_total_limit)
        if step % args.validation_steps == 0 or step == args.max_train_steps:
            model = accelerator.unwrap_model(vae).eval()
            with accelerator.autocast():
                result = validate(model, validation_samples, args.train_batch_size, accelerator.device)
            model.train()
            accelerator.log({f"validation/{name}": value for name, value in result.items()}, step=step)
            accelerator.print(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in result.items()))
            append_json_line(output_dir / "validation_log.jsonl", {"step": step, **result})

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
