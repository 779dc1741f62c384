# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The arguments that both trainers share, from the command line and from a YAML file."""

import argparse
import sys
from pathlib import Path

import yaml
from diffusers.optimization import SchedulerType

# A switch that a file may set and the command line unset: `--use_ema`, `--no-use_ema`.
FLAG = {"action": argparse.BooleanOptionalAction, "default": False}
# All of diffusers' that need no rules of their own.
SCHEDULES = [kind.value for kind in SchedulerType if kind is not SchedulerType.PIECEWISE_CONSTANT]


def add_common_arguments(parser: argparse.ArgumentParser, learning_rate: float) -> None:
    """The arguments that diffusers' training examples have in common.

    Args:
        parser: to add them to.
        learning_rate (`float`): its default.
    """
    run = parser.add_argument_group("the run")
    run.add_argument("--config", type=Path, help="YAML file of arguments; those on the command line win.")
    run.add_argument("--output_dir", required=True, help="Where checkpoints, logs and the final weights go.")
    run.add_argument("--seed", type=int, default=0, help="Of initial weights, data order and noise.")
    run.add_argument("--cache_dir", help="Where models and datasets of the Hub are kept.")
    run.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], help="Default: that of accelerate.")
    run.add_argument(
        "--allow_tf32", **FLAG, help="Faster float32 matrix products on Ampere and newer, for the VAE too."
    )
    run.add_argument("--torch_compile", **FLAG, help="Compile the model, without graph breaks but for FSDP's.")

    steps = parser.add_argument_group("steps")
    steps.add_argument("--train_batch_size", type=int, default=16, help="Samples per device and forward pass.")
    steps.add_argument("--num_train_epochs", type=int, help="Used where --max_train_steps is not given.")
    steps.add_argument("--max_train_steps", type=int, help="Optimiser steps in all.")
    steps.add_argument("--gradient_accumulation_steps", type=int, default=1)
    steps.add_argument("--gradient_checkpointing", **FLAG)
    steps.add_argument("--dataloader_num_workers", type=int, default=0)
    steps.add_argument(
        "--max_unreadable_rows",
        type=int,
        default=100,
        help="Rows of the dataset that may turn out unreadable in a process before the run stops. Each is named in"
        " unreadable_rows.jsonl and left out of its batch, never replaced by another.",
    )

    optimiser = parser.add_argument_group("the optimiser")
    optimiser.add_argument("--learning_rate", type=float, default=learning_rate)
    optimiser.add_argument(
        "--scale_lr", **FLAG, help="Multiply the learning rate by batch, accumulation and processes."
    )
    optimiser.add_argument("--lr_scheduler", default="cosine", choices=SCHEDULES)
    optimiser.add_argument("--lr_warmup_steps", type=int, default=200)
    optimiser.add_argument("--lr_num_cycles", type=int, default=1, help="Of cosine_with_restarts.")
    optimiser.add_argument("--lr_power", type=float, default=1.0, help="Of polynomial.")
    optimiser.add_argument("--use_8bit_adam", **FLAG, help="AdamW of bitsandbytes.")
    optimiser.add_argument("--adam_beta1", type=float, default=0.9)
    optimiser.add_argument("--adam_beta2", type=float, default=0.99)
    optimiser.add_argument("--adam_weight_decay", type=float, default=1e-2)
    optimiser.add_argument("--adam_epsilon", type=float, default=1e-8)
    optimiser.add_argument("--max_grad_norm", type=float, default=1.0)

    average = parser.add_argument_group("the average of the weights")
    average.add_argument("--use_ema", **FLAG, help="Validate and publish an average of the weights.")
    average.add_argument("--ema_decay", type=float, default=0.999)
    average.add_argument("--offload_ema", **FLAG, help="Keep it on the CPU between steps.")
    average.add_argument("--foreach_ema", **FLAG, help="Update it with fewer, larger kernels.")

    checkpoints = parser.add_argument_group("checkpoints")
    checkpoints.add_argument("--checkpointing_steps", type=int, default=500)
    checkpoints.add_argument(
        "--checkpoints_total_limit", type=int, help="The oldest are deleted, once a new one is whole."
    )
    checkpoints.add_argument("--resume_from_checkpoint", help="`latest` or the name of a checkpoint folder.")

    reports = parser.add_argument_group("reports")
    reports.add_argument("--logging_dir", default="logs")
    reports.add_argument("--validation_steps", type=int, default=1000, help="Steps between two validations.")
    reports.add_argument("--logging_steps", type=int, default=50, help="Steps that one line of the log averages.")
    reports.add_argument(
        "--report_to", default="none", choices=["tensorboard", "wandb", "trackio", "all", "none"], help="Trackers."
    )
    reports.add_argument("--push_to_hub", **FLAG, help="Publish the result with its card.")
    reports.add_argument("--hub_model_id", help="Repository on the Hub; default: the name of --output_dir.")
    reports.add_argument("--hub_token", help="Rather log in with `hf auth login`.")


def parse_arguments(
    parser: argparse.ArgumentParser, structured: tuple[str, ...] = (), arguments: list[str] | None = None
) -> argparse.Namespace:
    """Parse the command line after the YAML file that its `--config` names.

    Args:
        parser: with the common arguments.
        structured (`tuple[str]`): further keys that the file may have, which are no arguments; `None` if absent.
        arguments (`list[str]`, *optional*): those of the process if left out.

    Raises:
        ValueError: the file is no mapping or has an unknown key; arguments contradict each other.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    path = finder.parse_known_args(arguments)[0].config
    values = _read_config(path) if path else {}
    own = {name: values.pop(name, None) for name in structured}
    known = {action.dest for action in parser._actions} - {"help", "config"}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{path} has unknown keys: {', '.join(unknown)}.")
    # Of a shortened `--config` the file would not be read.
    parser.allow_abbrev = False
    args = parser.parse_args([*_command_line(values, parser), *arguments])
    for name, value in own.items():
        setattr(args, name, value)
    _check_common(args)
    return args


def _read_config(path: Path) -> dict:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{path} must map names of arguments to values, but is a {type(values).__name__}.")
    if values.get("mixed_precision") is False:
        # YAML reads a bare `no` as false.
        values["mixed_precision"] = "no"
    return values


def _command_line(values: dict, parser: argparse.ArgumentParser) -> list[str]:
    """The same arguments as they would be typed, so that they are checked alike."""
    words = []
    for name, value in values.items():
        if value is False and f"--no-{name}" in parser._option_string_actions:
            words.append(f"--no-{name}")
        if value is None or value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words.extend(map(str, value if isinstance(value, list) else [value]))
    return words


def _check_common(args: argparse.Namespace) -> None:
    if args.report_to in ("wandb", "all") and args.hub_token is not None:
        raise ValueError(
            f"`--report_to {args.report_to}` would publish `--hub_token` with the other arguments; log in with"
            " `hf auth login` instead."
        )
    check_at_least(1, args, "train_batch_size", "gradient_accumulation_steps", "checkpointing_steps", "logging_steps")
    check_at_least(1, args, "validation_steps", "max_train_steps", "num_train_epochs", "checkpoints_total_limit")
    if not args.max_grad_norm > 0:
        raise ValueError(f"`--max_grad_norm` is {args.max_grad_norm}; it must be above 0.")
    check_shares(args, "ema_decay")


def check_at_least(smallest: int, args: argparse.Namespace, *names: str) -> None:
    """Raise `ValueError` for arguments that are given and less than `smallest`, or have a member that is."""
    for name in names:
        value = getattr(args, name)
        if value is not None and not all(one >= smallest for one in (value if isinstance(value, list) else [value])):
            raise ValueError(f"`--{name}` is {value}; it must be at least {smallest}.")


def check_shares(args: argparse.Namespace, *names: str) -> None:
    """Raise `ValueError` for arguments that do not lie in [0, 1]."""
    for name in names:
        if not 0 <= getattr(args, name) <= 1:
            raise ValueError(f"`--{name}` is {getattr(args, name)}; it must lie in [0, 1].")
