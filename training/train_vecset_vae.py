# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Train a `VecSetVAE` on the shapes of a prepared dataset.

    accelerate launch training/train_vecset_vae.py --dataset_name data/tiny --output_dir runs/vae \
        --vae_config training/tiny/vae.json --max_train_steps 10000

The result is in `vae/` of the output folder. The terms of the loss are those of `diffusers_vilearn/losses.py`.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import datasets
from accelerate.utils import DistributedType
from diffusers.utils import check_min_version
from torch import nn
from transformers import AutoImageProcessor, Dinov2Model

from diffusers_vilearn.cards import write_model_card
from diffusers_vilearn.data.alignment_views import QUERIES, AlignmentViews
from diffusers_vilearn.data.clouds import takes_sharp_points
from diffusers_vilearn.data.field_samples import FieldSamples
from diffusers_vilearn.data.image_encoders import load_image_encoder
from diffusers_vilearn.data.latents import load_vae
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.errors import refusals_in_one_line
from diffusers_vilearn.files import read_json_lines
from diffusers_vilearn.losses import HybridLoss, LossWeights
from diffusers_vilearn.models import VecSetVAE
from diffusers_vilearn.models.visibility_adaptor import VisibilityAdaptor
from diffusers_vilearn.training.arguments import add_common_arguments, check_at_least, parse_arguments
from diffusers_vilearn.training.checkpoints import is_sharded, save_models_by_name
from diffusers_vilearn.training.ema import averaged_weights, start_ema, step_ema
from diffusers_vilearn.training.loop import TrainingLoop
from diffusers_vilearn.training.publishing import create_repository, public_name, repository_of, upload
from diffusers_vilearn.training.run import (
    compile_model,
    log_validation,
    make_optimizer,
    start_trackers,
    started,
)
from diffusers_vilearn.training.stream import count_steps
from diffusers_vilearn.training.tables import in_fair_order
from diffusers_vilearn.training.vae import (
    alignment_features,
    check_margin,
    check_num_tokens,
    draw_num_tokens,
    measure_latents,
    validate,
)

check_min_version("0.42.0")

TERMS = {
    "l1": "absolute error of the field",
    "l2": "squared error of the field",
    "normal": "1 - cosine between the field's gradient and the normal on the surface",
    "eikonal": "deviation of the gradient's length from that of a distance, near the surface",
    "kl": "divergence of the posterior from the standard normal, nats per latent number",
    "alignment": "1 - cosine between patch features read from the shape tokens and those of the image",
    "anchor": "regression of each decoder token's own farthest-point anchor; removes an early plateau of small models",
    "anchor_latent": "pull of the first three latent channels to twice the anchor's position",
}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, learning_rate=1e-3)
    parser.add_argument("--dataset_name", required=True, help="Folder or Hub id of a prepared dataset.")
    parser.add_argument(
        "--num_validation_shapes",
        type=int,
        help="Training shapes kept for validation; default: 32, or a tenth where there are fewer than 320.",
    )

    start = parser.add_argument_group("where to start, one of both")
    start.add_argument("--vae_config", help="JSON file with the arguments of a new `VecSetVAE`.")
    start.add_argument("--pretrained_model_name_or_path", help="Folder or Hub id of a `VecSetVAE` to go on with.")
    start.add_argument("--subfolder", help="Of the pretrained model: `vae` for that of a pipeline.")
    start.add_argument("--revision", help="Of the pretrained model on the Hub.")
    start.add_argument("--variant", help="Of the pretrained model's files, such as fp16.")

    samples = parser.add_argument_group("samples")
    samples.add_argument("--num_points", type=int, default=2048, help="Surface points given to the encoder.")
    samples.add_argument(
        "--num_sharp_points", type=int, help="Sharp-edge points, for a VAE that takes them; default: --num_points."
    )
    samples.add_argument("--num_queries", type=int, default=1024, help="Field queries per shape and step.")
    samples.add_argument(
        "--num_normals", type=int, default=256, help="Points of the normal term, and as many of the eikonal term."
    )
    samples.add_argument(
        "--num_tokens", type=int, nargs="+", help="Numbers of shape tokens to draw from each step; default: the VAE's."
    )

    loss = parser.add_argument_group("weights of the loss's terms; 0 is off, and costs nothing")
    for name, text in TERMS.items():
        loss.add_argument(
            f"--{name}_weight", type=float, default=getattr(LossWeights, name), help=f"Default %(default)s: {text}."
        )
    loss.add_argument("--kl_warmup_steps", type=int, default=0, help="Steps over which the KL weight grows from 10%%.")

    alignment = parser.add_argument_group("the visibility alignment term")
    alignment.add_argument("--image_encoder", help="Folder or Hub id of a `Dinov2Model` and its processor.")
    alignment.add_argument("--alignment_queries", choices=QUERIES, default="points")
    alignment.add_argument("--num_alignment_queries", type=int, default=256, help="Visible points per shape and step.")
    alignment.add_argument("--alignment_layers", type=int, choices=[1, 2], default=1, help="Of the adaptor.")
    args = parse_arguments(parser)
    check_at_least(1, args, "num_points", "num_sharp_points", "num_queries", "num_normals", "num_tokens")
    check_at_least(1, args, "num_alignment_queries")
    if (args.vae_config is None) == (args.pretrained_model_name_or_path is None):
        parser.error("exactly one of --vae_config and --pretrained_model_name_or_path is needed.")
    if (args.alignment_weight > 0) != (args.image_encoder is not None):
        parser.error("--alignment_weight and --image_encoder are needed both, or neither.")
    return args


def first_vae(args) -> VecSetVAE:
    """A new VAE, or the one to go on with."""
    if args.vae_config is not None:
        try:
            return VecSetVAE(**json.loads(Path(args.vae_config).read_text()))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{args.vae_config} is no JSON file of arguments of a VecSetVAE: {error}.") from error
    options = {name: getattr(args, name) for name in ("subfolder", "revision", "variant", "cache_dir")}
    return load_vae(args.pretrained_model_name_or_path, **options)


def load_samples(args, vae_config, weights: LossWeights, num_tokens: list[int]) -> tuple[FieldSamples, FieldSamples]:
    """Samples to train on and samples to validate on, of different shapes."""
    shapes = in_fair_order(load_table(args.dataset_name, "shapes", split="train", cache_dir=args.cache_dir))
    if args.num_validation_shapes is None:
        args.num_validation_shapes = max(1, min(32, len(shapes) // 10))
    held = args.num_validation_shapes
    if not 0 < held < len(shapes):
        raise ValueError(
            f"`--num_validation_shapes` is {held}; it must be above 0 and below {len(shapes)}, the number of shapes in"
            f" {args.dataset_name}."
        )
    check_margin(shapes, vae_config.truncation, vae_config.frame)
    views = None
    if weights.alignment:
        views = AlignmentViews(
            load_table(args.dataset_name, "views", split="train", cache_dir=args.cache_dir),
            AutoImageProcessor.from_pretrained(args.image_encoder, cache_dir=args.cache_dir),
            num_queries=args.num_alignment_queries,
            queries=args.alignment_queries,
        )
        views.check(shapes["uid"])
    clouds = dict(num_points=args.num_points, num_sharp_points=args.num_sharp_points or args.num_points)
    train_samples = FieldSamples(
        shapes.select(range(held, len(shapes))),
        vae_config,
        **clouds,
        num_queries=args.num_queries,
        seed=args.seed,
        num_normals=args.num_normals if weights.need_gradient else 0,
        num_tokens=max(num_tokens),
        views=views,
    )
    validation_shapes = shapes.select(range(held))
    return train_samples, FieldSamples(
        validation_shapes, vae_config, **clouds, num_queries=16384, seed=0, num_normals=1024
    )


def make_heads(args, weights: LossWeights, vae_config, image_encoder: Dinov2Model | None) -> dict[str, nn.Module]:
    """The modules that serve the loss only, by their names in `HybridLoss`."""
    heads = {}
    if weights.anchor:
        heads["anchor_head"] = nn.Linear(vae_config.decoder_width, 3)
    if weights.alignment:
        heads["adaptor"] = VisibilityAdaptor(
            vae_config.decoder_width,
            image_encoder.config.hidden_size,
            num_layers=args.alignment_layers,
            heads=vae_config.decoder_heads,
            queries=args.alignment_queries,
        )
    return heads


def write_card(args, folder: Path, vae: VecSetVAE, num_shapes: int, num_tokens: list[int], steps: int) -> None:
    """The card of the result, with its last validation, if it ever came to one."""
    validations = read_json_lines(Path(args.output_dir) / "validation_log.jsonl")
    write_model_card(
        folder,
        "vae_run",
        name=repository_of(args),
        config=vae.config,
        parameters=f"{vae.num_parameters() / 1e6:.1f}M",
        num_tokens=num_tokens,
        takes_sharp_points=takes_sharp_points(vae.config),
        dataset=public_name(args.dataset_name),
        num_shapes=num_shapes,
        num_validation_shapes=args.num_validation_shapes,
        max_train_steps=steps,
        pretrained=public_name(args.pretrained_model_name_or_path),
        ema=args.use_ema,
        weights={name: getattr(args, f"{name}_weight") for name in TERMS},
        validation=validations[-1] if validations else None,
    )


def train(args, accelerator):
    output_dir = Path(args.output_dir)
    if is_sharded(accelerator):
        raise ValueError("Each process needs the whole VAE: use DDP or DeepSpeed ZeRO-2, not FSDP or ZeRO-3.")
    weights = LossWeights(**{name: getattr(args, f"{name}_weight") for name in TERMS})
    if accelerator.distributed_type == DistributedType.DEEPSPEED and (weights.anchor or weights.alignment):
        raise ValueError("DeepSpeed trains one model: use DDP for `--anchor_weight` and `--alignment_weight`.")
    if args.push_to_hub and accelerator.is_main_process:
        create_repository(args)

    vae = first_vae(args)
    config = vae.config
    num_tokens = args.num_tokens or [config.num_tokens]
    train_samples, validation_samples = load_samples(args, config, weights, num_tokens)
    check_num_tokens(vae, train_samples, num_tokens)
    if args.gradient_checkpointing:
        vae.enable_gradient_checkpointing()
    if args.torch_compile:
        # Not the geometry head: what is compiled cannot be differentiated twice.
        compile_model(vae.compile_repeated_blocks, accelerator)

    image_encoder = None
    if weights.alignment:
        image_encoder = load_image_encoder(args.image_encoder, cache_dir=args.cache_dir)
        image_encoder.requires_grad_(False).to(accelerator.device)
    heads = make_heads(args, weights, config, image_encoder)
    parameters = [parameter for model in (vae, *heads.values()) for parameter in model.parameters()]
    max_train_steps = count_steps(args, len(train_samples), accelerator)
    ema = start_ema(args, vae, accelerator)
    optimizer, lr_scheduler = make_optimizer(args, parameters, accelerator, max_train_steps)
    vae, optimizer, lr_scheduler = accelerator.prepare(vae, optimizer, lr_scheduler)
    heads = {name: accelerator.prepare(head) for name, head in heads.items()}
    save_models_by_name(accelerator, {VecSetVAE: "vae"}, ema)
    start_trackers(accelerator, "train_vecset_vae", args)
    loop = TrainingLoop(args, accelerator, [vae, *heads.values()], optimizer, lr_scheduler, max_train_steps)
    loop.resume()
    hybrid_loss = HybridLoss(vae, weights, config.truncation, **heads)

    def loss_of(batch):
        step = loop.progress.step
        if weights.alignment:
            batch["alignment_features"] = alignment_features(image_encoder, batch)
        kl_scale = max(0.1, min(1.0, step / args.kl_warmup_steps)) if args.kl_warmup_steps else 1.0
        return hybrid_loss(batch, draw_num_tokens(num_tokens, args.seed, step), kl_scale)

    def validate_now(step):
        model = accelerator.unwrap_model(vae).eval()
        results, name = {}, partial(loop.unreadable.name, step=step)
        with averaged_weights(ema, vae), accelerator.autocast():
            for count in num_tokens:
                suffix = f"@{count}" if len(num_tokens) > 1 else ""
                values = validate(model, validation_samples, args.train_batch_size, count, accelerator, name)
                results |= {name + suffix: value for name, value in values.items()}
        model.train()
        log_validation(accelerator, output_dir, step, results)

    vae.train()
    with loop:
        for step in loop.steps(train_samples, loss_of):
            step_ema(args, ema, vae, accelerator)
            if step % args.validation_steps == 0 or step == max_train_steps:
                validate_now(step)
    if loop.interrupted:
        return

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if ema is not None:
            ema.copy_to(vae.parameters())
        model = accelerator.unwrap_model(vae).eval()
        if config.num_tokens not in num_tokens:
            # What the result makes by default is what it was trained on.
            model.register_to_config(num_tokens=max(num_tokens))
        mean, std = measure_latents(model, train_samples, args.train_batch_size)
        model.register_to_config(shift_factor=mean, scaling_factor=[1 / value for value in std])
        model.save_pretrained(output_dir / "vae")
        write_card(args, output_dir / "vae", model, len(train_samples), num_tokens, max_train_steps)
        if args.push_to_hub:
            upload(args, output_dir / "vae")
    accelerator.print(f"The VAE is in {output_dir / 'vae'}.")


def main(args):
    with started(args) as accelerator:
        train(args, accelerator)


if __name__ == "__main__":
    datasets.disable_progress_bars()
    with refusals_in_one_line():
        main(parse_args())
