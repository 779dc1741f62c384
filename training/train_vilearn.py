# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Train a `ViLearnTransformer3DModel` on a prepared dataset, from nothing or from any checkpoint, whole or by LoRA.

    accelerate launch training/train_vilearn.py --config training/configs/small.yaml --dataset_name data/mine \\
        --vae VAE --image_encoder DINOV2 --output_dir runs/vilearn --resume_from_checkpoint latest

The result in `--output_dir` is a whole `ViLearnImageTo3DPipeline`, or with `--rank` its LoRA layers. Ends with a
checkpoint and status 0 when asked to by SIGTERM or SIGINT; the same command goes on, to the same weights.
"""

import argparse
from functools import partial
from statistics import fmean

import datasets
import torch
from accelerate.utils import gather_object
from diffusers.training_utils import cast_training_params
from diffusers.utils import check_min_version

from diffusers_vilearn.data.command import votes
from diffusers_vilearn.errors import refusals_in_one_line
from diffusers_vilearn.geometry.extraction import MIN_RESOLUTION
from diffusers_vilearn.models import ViLearnTransformer3DModel
from diffusers_vilearn.training.arguments import (
    FLAG,
    add_common_arguments,
    check_at_least,
    check_shares,
    parse_arguments,
)
from diffusers_vilearn.training.checkpoints import save_lora, save_lora_by_name, save_models_by_name, whole_model
from diffusers_vilearn.training.components import (
    FrozenModels,
    add_lora,
    adopt_schedule,
    chosen_configuration,
    chosen_parts,
    make_transformer,
)
from diffusers_vilearn.training.ema import averaged_weights, start_ema, step_ema
from diffusers_vilearn.training.flow_matching import flow_matching_loss
from diffusers_vilearn.training.loop import TrainingLoop
from diffusers_vilearn.training.publishing import create_repository, publish
from diffusers_vilearn.training.run import (
    compile_model,
    log_validation,
    make_optimizer,
    start_trackers,
    started,
)
from diffusers_vilearn.training.samples import WEIGHTING_SCHEMES
from diffusers_vilearn.training.schedule import Schedule
from diffusers_vilearn.training.sources import CachedLatents, OnlineLatents
from diffusers_vilearn.training.stream import count_steps, whole_batches
from diffusers_vilearn.training.validation import ValidationSamples, make_pipeline

check_min_version("0.42.0")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, learning_rate=1e-4)

    data = parser.add_argument_group("the data")
    data.add_argument("--dataset_name", required=True, help="Folder or Hub id of a prepared dataset.")
    data.add_argument("--latents", default="latents", help="Name of its latents table.")
    data.add_argument("--streaming", **FLAG, help="Read the table from where it lies, without a copy.")
    data.add_argument("--online_encoding", **FLAG, help="Make latents of `shapes` and `views`.")
    data.add_argument(
        "--min_votes", type=votes, default="balanced", help="For --online_encoding; see `prepare latents`."
    )
    data.add_argument(
        "--num_points", type=int, default=4096, help="For --online_encoding; of each cloud given to the VAE."
    )
    data.add_argument("--mirror", **FLAG, help="For --online_encoding: mirror half of the samples.")
    data.add_argument("--image_augmentation", **FLAG, help="For --online_encoding: jitter the colours.")
    data.add_argument("--resolution", type=int, help="Of the condition image; default: the image processor's.")
    data.add_argument("--num_tokens", type=int, help="Shape tokens; default: those of the table, or of the VAE.")
    data.add_argument("--condition_dropout", type=float, default=0.1, help="Per sample, for guidance.")
    data.add_argument(
        "--mask_dropout",
        type=float,
        default=0.0,
        help="Per sample: declare as many tokens visible as inference does, whichever they are.",
    )

    model = parser.add_argument_group("the model")
    model.add_argument("--pretrained_model_name_or_path", help="Pipeline to finetune: folder or Hub id.")
    model.add_argument("--revision", help="Of that pipeline.")
    model.add_argument("--variant", help="Of that pipeline, such as fp16.")
    model.add_argument("--vae", help="The `VecSetVAE` that made the latents; default: the pipeline's.")
    model.add_argument("--image_encoder", help="The `Dinov2Model` of the image tokens; default: the pipeline's.")
    model.add_argument("--transformer_config", help="JSON or YAML file: arguments of a new transformer.")
    model.add_argument("--visibility_encoding", choices=["va_rope", "va_lpe", "va_rope_lpe", "rope", "none"])
    model.add_argument("--visible_position", type=float, help="VA-RoPE position of image and visible tokens (0).")
    model.add_argument("--invisible_position", type=float, help="VA-RoPE position of invisible tokens (50).")
    model.add_argument("--rank", type=int, help="Train LoRA layers of this rank instead of all weights.")
    model.add_argument("--lora_alpha", type=int, help="Default: the rank.")

    objective = parser.add_argument_group("the objective")
    objective.add_argument("--weighting_scheme", default="logit_normal", choices=WEIGHTING_SCHEMES)
    objective.add_argument("--logit_mean", type=float, default=0.0)
    objective.add_argument("--logit_std", type=float, default=1.0)
    objective.add_argument("--mode_scale", type=float, default=1.29)
    objective.add_argument(
        "--timestep_shift",
        type=float,
        help="Of the noise schedule, here and in the scheduler; with stages that of the first, then growing with the"
        " square root of the number of tokens. Default: the pipeline's, or 1.",
    )
    objective.add_argument(
        "--stochastic_sampling",
        action=FLAG["action"],
        help="Of the scheduler: each step of inference draws new noise, which forgives the errors of the steps before."
        " For models that are precise, such as of few objects learned by heart. Default: the pipeline's, or not.",
    )

    validation = parser.add_argument_group("validation")
    validation.add_argument(
        "--validation_fraction",
        type=float,
        default=0.03,
        help="Share of the training objects kept for the validation loss.",
    )
    validation.add_argument("--num_validation_images", type=int, default=0, help="Views to make shapes of, drawn.")
    validation.add_argument("--validation_split", default="heldout", help="Of the tables `shapes` and `views`.")
    validation.add_argument("--validation_inference_steps", type=int, default=25)
    validation.add_argument("--validation_guidance_scale", type=float, default=3.0)
    validation.add_argument("--validation_resolution", type=int, default=96, help="Cells of the grid per axis.")

    args = parse_arguments(parser, structured=("stages", "transformer"))
    if args.streaming and args.online_encoding:
        raise ValueError("`--streaming` reads latents; it cannot be combined with `--online_encoding`.")
    if (args.mirror or args.image_augmentation) and not args.online_encoding:
        raise ValueError(
            "`--mirror` and `--image_augmentation` need `--online_encoding`: the table `latents` holds no images."
        )
    if args.rank is not None and args.pretrained_model_name_or_path is None:
        raise ValueError("`--rank` needs `--pretrained_model_name_or_path`, the pipeline that LoRA layers are for.")
    if args.rank is not None and args.use_ema:
        raise ValueError("`--use_ema` cannot be combined with `--rank`.")
    if args.rank is not None and (chosen := [*chosen_configuration(args), *chosen_parts(args)]):
        raise ValueError(
            f"`--{chosen[0]}` changes the pipeline that LoRA layers are for; it cannot be combined with `--rank`."
        )
    if args.lora_alpha is not None and args.rank is None:
        raise ValueError("`--lora_alpha` needs `--rank`.")
    if args.stages is not None:
        _check_no_stages(args, "num_train_epochs", "num_tokens", "scale_lr")
    check_shares(args, "condition_dropout", "mask_dropout", "validation_fraction")
    check_at_least(
        1, args, "num_tokens", "num_points", "resolution", "rank", "lora_alpha", "validation_inference_steps"
    )
    check_at_least(0, args, "num_validation_images", "validation_guidance_scale")
    check_at_least(MIN_RESOLUTION, args, "validation_resolution")
    if args.timestep_shift is not None and not args.timestep_shift > 0:
        raise ValueError(f"`--timestep_shift` is {args.timestep_shift}; it must be above 0.")
    return args


def _check_no_stages(args: argparse.Namespace, *names: str) -> None:
    if given := [name for name in names if getattr(args, name)]:
        raise ValueError(f"`stages` cannot be combined with `--{given[0]}`, which is one for the whole run.")


@torch.no_grad()
def validate(model, source, samples, losses_of, stage, args, accelerator, name) -> float:
    """Mean flow-matching loss over the validation rows, always at the same noise, shared by all processes. A
    diagnostic, not a quality."""
    share = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
    losses = {}
    for batch in whole_batches(
        samples, stage.batch_size, accelerator.device, num_workers=args.dataloader_num_workers, name=name, **share
    ):
        with accelerator.autocast():
            values = losses_of(model, source.encode(batch, stage), stage)
        losses.update(zip(batch["uids"], values.tolist(), strict=True))
    return fmean(dict(gather_object(list(losses.items()))).values())


def save_result(args, accelerator, transformer, models, ema, schedule: Schedule) -> None:
    """Write the pipeline or the LoRA layers, and the card; publish them if that is wanted."""
    if ema is not None:
        ema.copy_to(transformer.parameters())
    if args.rank is not None:
        save_lora(accelerator, transformer, args.output_dir)
        result = accelerator.unwrap_model(transformer)
    else:
        result = whole_model(accelerator, transformer, ViLearnTransformer3DModel).eval()
        if accelerator.is_main_process:
            make_pipeline(args, result, models, schedule.last).save_pretrained(args.output_dir)
    if accelerator.is_main_process:
        publish(args, schedule, result)


def train(args, accelerator):
    if args.push_to_hub and accelerator.is_main_process:
        create_repository(args)

    adopt_schedule(args)
    models = FrozenModels.from_arguments(args)
    models.vae.to(accelerator.device)
    models.image_encoder.to(accelerator.device)
    source = OnlineLatents(args, models) if args.online_encoding else CachedLatents(args, models)
    if args.stages is not None and args.max_train_steps is None:
        max_train_steps = source.schedule.num_steps
    else:
        max_train_steps = count_steps(args, source.num_rows, accelerator)
    schedule = source.schedule.ending_at(max_train_steps)
    samples = ValidationSamples(args, models, accelerator) if args.num_validation_images else None

    transformer = make_transformer(
        args,
        models,
        frame=source.frame,
        visible_fraction=source.visible_fraction,
        dtype=torch.bfloat16 if args.rank is not None and accelerator.mixed_precision == "bf16" else torch.float32,
    )
    visible_fraction = transformer.config.visible_fraction
    if args.rank is not None:
        add_lora(transformer, args.rank, args.lora_alpha)
        cast_training_params(transformer)
    if args.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    if args.torch_compile:
        compile_model(transformer.compile, accelerator)
    ema = start_ema(args, transformer, accelerator)
    trained = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    optimizer, lr_scheduler = make_optimizer(args, trained, accelerator, max_train_steps)
    transformer, optimizer, lr_scheduler = accelerator.prepare(transformer, optimizer, lr_scheduler)
    if args.rank is not None:
        save_lora_by_name(accelerator)
    else:
        save_models_by_name(accelerator, {ViLearnTransformer3DModel: "transformer"}, ema)
    start_trackers(accelerator, "train_vilearn", args)
    loop = TrainingLoop(args, accelerator, [transformer], optimizer, lr_scheduler, max_train_steps)
    loop.resume()

    def losses_of(model, batch, stage):
        return flow_matching_loss(model, models.vae, batch, stage.shift, args.weighting_scheme)

    def report(step, stage, validation_samples):
        """Validation, with the average of the weights in their place."""
        model = accelerator.unwrap_model(transformer).eval()
        results = {}
        with averaged_weights(ema, transformer):
            if validation_samples is not None:
                name = partial(loop.unreadable.name, step=step)
                results["loss"] = validate(
                    model, source, validation_samples, losses_of, stage, args, accelerator, name
                )
            if samples is not None:
                results |= samples.make(model, stage, step)
        model.train()
        log_validation(accelerator, args.output_dir, step, results)

    transformer.train()
    with loop:
        for stage in schedule.remaining(loop.progress.step):
            stage_samples = source.samples(stage, visible_fraction)

            def loss_of(batch, stage=stage):
                loss = losses_of(transformer, source.encode(batch, stage), stage).mean()
                return loss, {"loss": loss}

            steps = loop.steps(stage_samples.train, loss_of, until=stage.stop, batch_size=stage.batch_size)
            for step in steps:
                step_ema(args, ema, transformer, accelerator)
                if step % args.validation_steps == 0 or step == max_train_steps:
                    report(step, stage, stage_samples.validation)
            if loop.interrupted:
                break
    if not loop.interrupted:
        save_result(args, accelerator, transformer, models, ema, schedule)
        accelerator.print(f"The {'pipeline is' if args.rank is None else 'LoRA layers are'} in {args.output_dir}.")


def main(args):
    with started(args) as accelerator:
        train(args, accelerator)


if __name__ == "__main__":
    datasets.disable_progress_bars()
    with refusals_in_one_line():
        main(parse_args())
