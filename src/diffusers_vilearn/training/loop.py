# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Optimiser steps, with what makes a run reliable around them: exact resumption, checkpoints, signals, bad rows."""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..files import append_json_line
from .checkpoints import Progress, resume_from, save_checkpoint
from .run import UNREADABLE_LOG, Interruption, check_step, note_options, rewind_logs
from .stream import UnreadableRows, make_loader, samples_per_step, to_device

# Of a group of parameters.
OPTIMIZER_OPTIONS = ("initial_lr", "betas", "eps", "weight_decay")
LossFunction = Callable[[dict], tuple[torch.Tensor, dict[str, torch.Tensor]]]


class TrainingLoop:
    """Takes the steps of a run. A context: within it, SIGTERM and SIGINT end the run after a checkpoint.

    Args:
        args: the common arguments.
        accelerator: that prepared the others.
        models (`list`): whose gradients are clipped together.
        optimizer, lr_scheduler: of `make_optimizer`, prepared.
        max_train_steps (`int`): of the whole run.

    Attributes:
        progress (`Progress`): steps done, samples taken.
        interrupted (`bool`): whether the run was asked to end before it was done.
        unreadable (`UnreadableRows`): of this process, once `resume` was called.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        accelerator: Accelerator,
        models: list,
        optimizer,
        lr_scheduler,
        max_train_steps,
    ):
        self.args, self.accelerator, self.models = args, accelerator, models
        self.parameters = [parameter for model in models for parameter in model.parameters()]
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.max_train_steps = max_train_steps
        self.output_dir = Path(args.output_dir)
        self.progress = Progress()
        self.interrupted = False
        self._interruption = Interruption()
        self._running = defaultdict(list)

    def __enter__(self) -> "TrainingLoop":
        self._interruption.__enter__()
        self.bar = tqdm(
            total=self.max_train_steps,
            initial=self.progress.step,
            desc="Steps",
            disable=not self.accelerator.is_local_main_process,
        )
        return self

    def __exit__(self, kind, error, traceback):
        self.bar.close()
        self._interruption.__exit__(kind, error, traceback)
        if error is not None:
            error.add_note(f"{self.progress.step} steps were done.")

    def resume(self) -> None:
        """Load the checkpoint that `--resume_from_checkpoint` names.

        Raises:
            ValueError: it is of another run, or further than this one is to go.
        """
        asked = [{name: group[name] for name in OPTIMIZER_OPTIONS} for group in self.optimizer.param_groups]
        self.progress = resume_from(self.accelerator, self.args.output_dir, self.args.resume_from_checkpoint)
        if self.progress.step > self.max_train_steps:
            raise ValueError(
                f"The run is to end after {self.max_train_steps} steps, but the checkpoint has {self.progress.step}:"
                " give more steps, or another `--output_dir`."
            )
        self._adopt(asked)
        if self.accelerator.is_main_process:
            rewind_logs(self.output_dir, self.progress.step)
            note_options(self.args, self.accelerator, self.progress.step)
        self.accelerator.wait_for_everyone()
        self.unreadable = UnreadableRows(
            self.output_dir / UNREADABLE_LOG, self.args.max_unreadable_rows, self.accelerator.process_index
        )

    def _adopt(self, asked: list[dict]) -> None:
        """Go on with the options and the number of processes that this run was started with: the state that was loaded
        has those of the run before.

        Args:
            asked (`list[dict]`): `OPTIMIZER_OPTIONS` of each group of parameters.
        """
        for group, options in zip(self.optimizer.param_groups, asked, strict=True):
            # The schedule is a factor of it; from 0 it comes back with the next step.
            group["lr"] *= options["initial_lr"] / (group["initial_lr"] or 1.0)
            group.update(options)
        scheduler, progress = self.lr_scheduler.scheduler, self.progress
        scheduler.base_lrs = [options["initial_lr"] for options in asked]
        if progress.num_processes is not None:
            # It counts the steps of all processes, but for those that the scaler of fp16 left out.
            scheduler.last_epoch = scheduler.last_epoch * self.accelerator.num_processes // progress.num_processes

    def steps(
        self, samples: Dataset, loss_of: LossFunction, *, until: int | None = None, batch_size: int | None = None
    ) -> Iterator[int]:
        """Take steps, yielding after each the number of steps done; its checkpoint is written after that.

        Args:
            samples (`Dataset`): see `ReadableSamples`.
            loss_of (`Callable`): batch on the device -> loss, and its parts for the log, scalars.
            until (`int`, *optional*): steps done at which to end; `max_train_steps` by default.
            batch_size (`int`, *optional*): `--train_batch_size` by default.
        """
        accelerator, args = self.accelerator, self.args
        batch_size = batch_size or args.train_batch_size
        num_steps = (self.max_train_steps if until is None else until) - self.progress.step
        if self.progress.num_rows not in (None, len(samples)):
            accelerator.print(
                f"The run goes on with {len(samples)} rows of data, not {self.progress.num_rows}: in this epoch, some"
                " come twice and others not at all."
            )
        loader = make_loader(
            args,
            samples,
            accelerator,
            position=self.progress.position,
            num_steps=num_steps,
            batch_size=batch_size,
        )
        values, uids = [], []
        for batch in loader:
            self.unreadable.note(batch, self.progress.step + 1)
            with accelerator.accumulate(*self.models):
                with accelerator.autocast():
                    loss, parts = loss_of(to_device(batch, accelerator.device))
                values.append(loss)
                uids.extend(batch["uids"])
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    values.extend(self._clip_gradients())
                    ending = check_step(
                        accelerator, self._interruption, values, uids, self.progress.step + 1, self.output_dir
                    )
                self.optimizer.step()
                self.lr_scheduler.step()
                self.optimizer.zero_grad(set_to_none=True)
            for name, value in parts.items():
                self._running[name].append(value.detach())
            if not accelerator.sync_gradients:
                continue
            values, uids = [], []
            taken = samples_per_step(args, accelerator, batch_size)
            self.progress = Progress(
                self.progress.step + 1, self.progress.position + taken, accelerator.num_processes, len(samples)
            )
            self.bar.update(1)
            if self.progress.step % args.logging_steps == 0:
                self._log()
            yield self.progress.step
            if ending or self.progress.step % args.checkpointing_steps == 0:
                save_checkpoint(accelerator, args.output_dir, self.progress, args.checkpoints_total_limit)
            if ending:
                self.interrupted = True
                accelerator.print(f"Asked to end: checkpoint-{self.progress.step} is written.")
                return

    def _clip_gradients(self) -> list[torch.Tensor]:
        """The norm of the gradient before it was clipped, where accelerate tells it and infinity is no mere hint to
        the scaler of fp16."""
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.args.max_grad_norm)
        if norm is None or self.accelerator.scaler is not None:
            return []
        # DeepSpeed gives a number.
        return [norm if isinstance(norm, torch.Tensor) else torch.tensor(norm, device=self.accelerator.device)]

    def _log(self) -> None:
        """Means over the steps since the last log and over all processes."""
        means = {name: torch.stack(values).float().mean() for name, values in self._running.items()}
        self._running.clear()
        means = {name: value.item() for name, value in self.accelerator.reduce(means, "mean").items()}
        rate = self.lr_scheduler.get_last_lr()[0]
        self.accelerator.log(
            {**{f"train/{name}": value for name, value in means.items()}, "train/lr": rate}, step=self.progress.step
        )
        self.bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()})
        if self.accelerator.is_main_process:
            append_json_line(self.output_dir / "train_log.jsonl", {"step": self.progress.step, **means})
