# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What both trainers share: common arguments, the order of samples, checkpoints that are whole or absent."""

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler


class ShuffledStream(Sampler):
    """`(epoch, index)` pairs, every epoch a new seeded permutation; a pure function of the position in the stream.

    Args:
        size (`int`): number of rows in the dataset.
        seed (`int`): of the permutations.
        start, stop (`int`): first position, and the one after the last; resuming means starting later.
    """

    def __init__(self, size: int, seed: int, start: int, stop: int):
        if size < 1:
            raise ValueError("The dataset has no rows to train on.")
        self.size, self.seed, self.start, self.stop = size, seed, start, stop

    def __len__(self):
        return self.stop - self.start

    def __iter__(self):
        order_epoch, order = None, None
        for position in range(self.start, self.stop):
            epoch, offset = divmod(position, self.size)
            if epoch != order_epoch:
                order_epoch, order = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.size)
            yield epoch, int(order[offset])


def add_common_arguments(parser: argparse.ArgumentParser, learning_rate: float) -> None:
    """The arguments that diffusers' training examples have in common."""
    parser.add_argument("--output_dir", required=True, help="Where checkpoints and the final weights go.")
    parser.add_argument("--seed", type=int, default=0, help="Of initial weights, data order and noise.")
    parser.add_argument("--train_batch_size", type=int, default=16, help="Samples per device and step.")
    parser.add_argument("--max_train_steps", type=int, required=True, help="Optimiser steps in all.")
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--learning_rate", type=float, default=learning_rate)
    parser.add_argument("--lr_scheduler", default="cosine", help="A name that diffusers' `get_scheduler` knows.")
    parser.add_argument("--lr_warmup_steps", type=int, default=200)
    parser.add_argument("--adam_beta1", type=float, default=0.9)
    parser.add_argument("--adam_beta2", type=float, default=0.99)
    parser.add_argument("--adam_weight_decay", type=float, default=1e-2)
    parser.add_argument("--adam_epsilon", type=float, default=1e-8)
    parser.add_argument("--max_grad_norm", type=float, default=1.0)
    parser.add_argument("--dataloader_num_workers", type=int, default=0)
    parser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default=None)
    parser.add_argument("--checkpointing_steps", type=int, default=500)
    parser.add_argument("--checkpoints_total_limit", type=int, default=None)
    parser.add_argument("--resume_from_checkpoint", default=None, help="`latest` or the name of a checkpoint folder.")
    parser.add_argument("--logging_dir", default="logs")
    parser.add_argument("--report_to", default="none", help="tensorboard, wandb, trackio or none.")


def start_accelerator(args: argparse.Namespace) -> Accelerator:
    """The accelerator that the common arguments describe; makes the output folder and seeds the run."""
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(project_dir=output_dir, logging_dir=output_dir / args.logging_dir),
    )
    set_seed(args.seed)
    return accelerator


def make_optimizer(args: argparse.Namespace, parameters, accelerator: Accelerator):
    """AdamW and its learning-rate schedule, not yet prepared."""
    optimizer = torch.optim.AdamW(
        parameters,
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
    )
    lr_scheduler = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps * accelerator.num_processes,
        num_training_steps=args.max_train_steps * accelerator.num_processes,
    )
    return optimizer, lr_scheduler


def make_loader(args: argparse.Namespace, samples: Dataset, first_step: int, accelerator: Accelerator) -> DataLoader:
    """The batches of steps `first_step` to `max_train_steps`, prepared; `samples` is indexed by `(epoch, index)`."""
    per_step = args.train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    stream = ShuffledStream(len(samples), args.seed, first_step * per_step, args.max_train_steps * per_step)
    loader = DataLoader(
        samples,
        batch_sampler=BatchSampler(stream, args.train_batch_size, drop_last=True),
        num_workers=args.dataloader_num_workers,
        # A generator of its own: starting the loader must not draw from the one that a checkpoint restores.
        generator=torch.Generator(),
    )
    return accelerator.prepare(loader)


def collate_rows(samples: Dataset, indices: range, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch of epoch 0 for validation."""
    rows = [samples[0, index] for index in indices]
    return {name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]}


def batches_of(size: int, batch_size: int) -> list[range]:
    """Index ranges that cover `size` rows."""
    return [range(start, min(start + batch_size, size)) for start in range(0, size, batch_size)]


def save_checkpoint(accelerator, output_dir: str, step: int, total_limit: int | None) -> None:
    """Write `checkpoint-<step>` under another name first, so that it is whole or absent; then drop the oldest."""
    folder = Path(output_dir) / f"checkpoint-{step}"
    partial = folder.with_name(f".partial-{folder.name}")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    if total_limit is not None:
        for outdated in list_checkpoints(output_dir)[:-total_limit]:
            shutil.rmtree(outdated)


def list_checkpoints(output_dir: str) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    folders = Path(output_dir).glob("checkpoint-*")
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix("checkpoint-")))


def resume_from(accelerator, output_dir: str, name: str | None) -> int:
    """Load the named checkpoint (or the `latest`) and return its step; 0 where there is nothing to resume."""
    if name is None:
        return 0
    if name == "latest":
        checkpoints = list_checkpoints(output_dir)
        if not checkpoints:
            accelerator.print(f"No checkpoint in {output_dir}: training starts from the beginning.")
            return 0
        folder = checkpoints[-1]
    else:
        folder = Path(output_dir) / Path(name).name
        if not folder.is_dir():
            raise ValueError(f"`--resume_from_checkpoint` names {folder}, which does not exist.")
    accelerator.load_state(str(folder))
    accelerator.print(f"Resumed from {folder}.")
    return int(folder.name.removeprefix("checkpoint-"))


def append_json_line(path: Path, record: dict) -> None:
    """Add one line to a log of JSON records."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
