# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Train a `ViLearnTransformer3DModel` on the latents of a prepared dataset.

    accelerate launch training/train_vilearn.py --dataset_name data/tiny --vae runs/vae/vae --image_encoder DINOV2 \
        --transformer_config training/tiny/transformer.json --output_dir runs/vilearn --max_train_steps 30000 --use_ema

The result in `--output_dir` is a whole `ViLearnImageTo3DPipeline`.
"""

import argparse
import json
from pathlib import Path

import datasets
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import EMAModel
from transformers import AutoImageProcessor, Dinov2Model

from diffusers_vilearn import ViLearnImageTo3DPipeline
from diffusers_vilearn.data.latents import METADATA_FILE, fingerprint
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.data.records import uid_key
from diffusers_vilearn.files import append_json_line
from diffusers_vilearn.models import VecSetVAE, ViLearnTransformer3DModel
from diffusers_vilearn.training.arguments import add_common_arguments, parse_arguments
from diffusers_vilearn.training.checkpoints import save_models_by_name
from diffusers_vilearn.training.loop import TrainingLoop
from diffusers_vilearn.training.run import make_optimizer, start_accelerator
from diffusers_vilearn.training.samples import LatentSamples, SampleOptions
from diffusers_vilearn.training.stream import count_steps, whole_batches


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, learning_rate=1e-4)
    parser.add_argument("--dataset_name", required=True, help="Folder of a prepared dataset.")
    parser.add_argument("--latents", default="latents", help="Name of its latents table.")
    parser.add_argument("--vae", required=True, help="The `VecSetVAE` that made the latents.")
    parser.add_argument("--image_encoder", required=True, help="The `Dinov2Model` that made the image tokens.")
    parser.add_argument("--transformer_config", required=True, help="JSON file: arguments of the transformer.")
    parser.add_argument(
        "--visibility_encoding", default=None, choices=["va_rope", "va_lpe", "va_rope_lpe", "rope", "none"]
    )
    parser.add_argument("--condition_dropout", type=float, default=0.1, help="Per sample, for guidance.")
    parser.add_argument("--logit_mean", type=float, default=0.0)
    parser.add_argument("--logit_std", type=float, default=1.0)
    parser.add_argument(
        "--timestep_shift", type=float, default=1.0, help="Shift of the noise schedule, here and in the scheduler."
    )
    parser.add_argument("--use_ema", action="store_true")
    parser.add_argument("--ema_decay", type=float, default=0.999)
    parser.add_argument(
        "--validation_fraction",
        type=float,
        default=0.03,
        help="Share of the training objects kept for the validation loss.",
    )
    parser.add_argument("--validation_steps", type=int, default=1000)
    return parse_arguments(parser)


def check_latents(dataset_name: str, table: str, vae, image_encoder) -> dict:
    """The metadata of a latents table, or an error if another VAE or image encoder made it."""
    metadata = json.loads((Path(dataset_name) / table / METADATA_FILE).read_text())
    for name, model in (("vae", vae), ("image_encoder", image_encoder)):
        if metadata[name] != fingerprint(model):
            raise ValueError(f"The latents {dataset_name}/{table} were made by another `--{name}`; encode them anew.")
    return metadata


def split_by_object(latents: datasets.Dataset, fraction: float) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Rows of most objects, and rows of the `fraction` of objects, at least one, whose hashed ids come first."""
    keys = np.array([uid_key(uid) for uid in latents["uid"]], np.uint64)
    objects = np.unique(keys)
    validation = keys < objects[max(1, round(fraction * len(objects)))]
    return latents.select(np.flatnonzero(~validation)), latents.select(np.flatnonzero(validation))


def flow_matching_loss(transformer, vae, batch, shift: float):
    """Rectified flow: x_sigma = (1 - sigma) x_0 + sigma eps, the model predicts eps - x_0. One loss a sample."""
    sigma = batch["density"]
    sigma = shift * sigma / (1 + (shift - 1) * sigma)
    latents = vae.normalize_latents(batch["latents"])
    noise = batch["noise"]
    blend = sigma[:, None, None]
    prediction = transformer(
        (1 - blend) * latents + blend * noise,
        encoder_hidden_states=batch["image_embeds"],
        timestep=1000 * sigma,
        visible_mask=batch["visible_mask"],
        return_dict=False,
    )[0]
    return (prediction.float() - (noise - latents)).square().mean(dim=(1, 2))


@torch.no_grad()
def validate(transformer, vae, samples: LatentSamples, batch_size: int, shift: float, accelerator) -> float:
    """Mean flow-matching loss over the validation rows, always at the same noise. A diagnostic, not a quality."""
    losses = []
    for batch in whole_batches(samples, batch_size, accelerator.device):
        with accelerator.autocast():
            losses.append(flow_matching_loss(transformer, vae, batch, shift))
    return torch.cat(losses).mean().item()


def main(args):
    accelerator = start_accelerator(args)
    output_dir = Path(args.output_dir)

    vae = VecSetVAE.from_pretrained(args.vae).eval()
    image_encoder = Dinov2Model.from_pretrained(args.image_encoder)
    metadata = check_latents(args.dataset_name, args.latents, vae, image_encoder)
    latents, validation_latents = split_by_object(
        load_table(args.dataset_name, args.latents, split="train"), args.validation_fraction
    )
    options = dict(logit_mean=args.logit_mean, logit_std=args.logit_std)
    num_tokens = metadata["num_tokens"]
    train_samples = LatentSamples(
        latents,
        num_tokens,
        SampleOptions(condition_dropout=args.condition_dropout, seed=args.seed, **options),
    )
    validation_samples = LatentSamples(
        validation_latents, num_tokens, SampleOptions(condition_dropout=0.0, seed=0, **options)
    )
    visible_fraction = float(np.mean([len(row) for row in latents["visible_tokens"]]) / metadata["num_tokens"])

    config = json.loads(Path(args.transformer_config).read_text())
    if args.visibility_encoding is not None:
        config["visibility_encoding"] = args.visibility_encoding
    transformer = ViLearnTransformer3DModel(
        **config,
        in_channels=vae.config.latent_channels,
        joint_attention_dim=image_encoder.config.hidden_size,
        visible_fraction=visible_fraction,
        frame=metadata["frame"],
    )
    if args.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    max_train_steps = count_steps(args, len(train_samples), accelerator)
    optimizer, lr_scheduler = make_optimizer(args, transformer.parameters(), accelerator, max_train_steps)
    transformer, optimizer, lr_scheduler = accelerator.prepare(transformer, optimizer, lr_scheduler)
    vae.to(accelerator.device)
    ema = None
    if args.use_ema:
        ema = EMAModel(
            transformer.parameters(),
            decay=args.ema_decay,
            model_cls=ViLearnTransformer3DModel,
            model_config=accelerator.unwrap_model(transformer).config,
        )
        ema.to(accelerator.device)
    save_models_by_name(accelerator, {ViLearnTransformer3DModel: "transformer"}, ema)
    if accelerator.log_with:
        accelerator.init_trackers("train_vilearn", config=vars(args))
    loop = TrainingLoop(args, accelerator, [transformer], optimizer, lr_scheduler, max_train_steps)
    loop.resume()

    def loss_of(batch):
        loss = flow_matching_loss(transformer, vae, batch, args.timestep_shift).mean()
        return loss, {"loss": loss}

    transformer.train()
    with loop:
        for step in loop.steps(train_samples, loss_of):
            if args.use_ema:
                ema.step(transformer.parameters())
            if step % args.validation_steps == 0 or step == max_train_steps:
                if args.use_ema:
                    ema.store(transformer.parameters())
                    ema.copy_to(transformer.parameters())
                model = accelerator.unwrap_model(transformer).eval()
                result = validate(
                    model, vae, validation_samples, args.train_batch_size, args.timestep_shift, accelerator
                )
                model.train()
                if args.use_ema:
                    ema.restore(transformer.parameters())
                accelerator.log({"validation/loss": result}, step=step)
                accelerator.print(f"step {step}: validation loss {result:.4f}")
                if accelerator.is_main_process:
                    append_json_line(output_dir / "validation_log.jsonl", {"step": step, "loss": result})
    if loop.interrupted:
        accelerator.end_training()
        return

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if args.use_ema:
            ema.copy_to(transformer.parameters())
        pipeline = ViLearnImageTo3DPipeline(
            vae=vae,
            transformer=accelerator.unwrap_model(transformer).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=args.timestep_shift),
            image_encoder=image_encoder,
            feature_extractor=AutoImageProcessor.from_pretrained(args.image_encoder),
        )
        pipeline.save_pretrained(output_dir)
    accelerator.end_training()


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(parse_args())
