# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The card of a run's result, and its way to the Hub."""

import argparse
import shlex
import sys
from pathlib import Path

from huggingface_hub import HfApi

from ..cards import write_model_card
from .schedule import Schedule


def left_out(args: argparse.Namespace) -> list[str]:
    """Patterns of what is no part of the result: checkpoints, samples by step, logs, hidden (unfinished) files."""
    return ["checkpoint-*", "checkpoint-*/**", "samples/**", f"{args.logging_dir}/**", "*.jsonl", ".*", ".*/**"]


def repository_of(args: argparse.Namespace) -> str:
    """`--hub_model_id`, or the name of the output folder."""
    return args.hub_model_id or Path(args.output_dir).resolve().name


def public_name(source: str | None) -> str | None:
    """A Hub id as it is, of a folder its name only."""
    return Path(source).resolve().name if source is not None and Path(source).is_dir() else source


def create_repository(args: argparse.Namespace) -> None:
    """Make the repository, or find it: at the start of a run, so that a wrong name or token costs no training.

    `args.hub_model_id` becomes its whole name, that of the owner included, which uploads need.
    """
    args.hub_model_id = HfApi(token=args.hub_token).create_repo(repository_of(args), exist_ok=True).repo_id


def upload(args: argparse.Namespace, folder: str | Path) -> None:
    """Upload the result in `folder` to the repository of `create_repository`."""
    HfApi(token=args.hub_token).upload_folder(
        repo_id=args.hub_model_id,
        folder_path=folder,
        commit_message="End of training",
        ignore_patterns=left_out(args),
    )


def publish(args: argparse.Namespace, schedule: Schedule, transformer) -> None:
    """Write `README.md` of the result; upload both with `--push_to_hub`."""
    facts = describe_run(args, schedule, transformer)
    write_model_card(args.output_dir, "run", repo_id=repository_of(args), **facts)
    if args.push_to_hub:
        upload(args, args.output_dir)


def describe_run(args: argparse.Namespace, schedule: Schedule, transformer) -> dict:
    """What a reader wants to know of a run: command, data, stages, and what the model is."""
    config = transformer.config
    source = args.pretrained_model_name_or_path
    return {
        "title": Path(args.output_dir).resolve().name,
        "lora_rank": args.rank,
        "base": public_name(source),
        # The Hub takes nothing but its own ids.
        "base_model": None if source is None or Path(source).is_dir() else source,
        "dataset": public_name(args.dataset_name),
        "frame": config.frame,
        "visibility_encoding": config.visibility_encoding,
        "visible_fraction": config.visible_fraction,
        "parameters": f"{transformer.num_parameters() / 1e6:.1f}M parameters",
        "stages": [vars(stage) | {"steps": stage.stop - stage.start} for stage in schedule.stages],
        "learning_rate": args.learning_rate,
        "condition_dropout": args.condition_dropout,
        "seed": args.seed,
        "ema": args.use_ema,
        "command": _command(args),
    }


def _command(args: argparse.Namespace) -> str:
    """The command line without the token."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    command = shlex.join(words)
    return command.replace(args.hub_token, "TOKEN") if args.hub_token else command
