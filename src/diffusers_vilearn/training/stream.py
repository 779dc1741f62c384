# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What a run sees, in which order: a pure function of the seed and the position, whoever asks and however often."""

import itertools
import logging
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from huggingface_hub.errors import HfHubHTTPError
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from ..files import append_json_line, read_json_lines
from .run import TrainingStopped

logger = logging.getLogger(__name__)

# What pyarrow, PIL (SyntaxError for a broken PNG) and the checks of the samples raise.
UNREADABLE = (OSError, ValueError, SyntaxError)
# Not the row's fault: the run ends, to go on where it was when the network is back.
_OUTAGES = (HfHubHTTPError, ConnectionError, TimeoutError)


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


class GroupedStream(Sampler):
    """`(epoch, index)` pairs of one process, for a table that is read by row groups (`StreamedTable`).

    Every epoch deals the row groups in a new seeded order to the processes, so that none is read twice; rows are
    shuffled within a few groups. A pure function of the seed, the process and the position.

    Args:
        row_groups (`np.ndarray`): rows of each group, (groups,).
        seed (`int`): of the order.
        rank, world_size (`int`): of this process.
        start, stop (`int`): first position in the stream of this process, and the one after the last.
        window (`int`): row groups that are shuffled together.
    """

    def __init__(
        self, row_groups: np.ndarray, seed: int, rank: int, world_size: int, start: int, stop: int, window: int = 8
    ):
        if len(row_groups) < world_size:
            raise ValueError(
                f"The table has {len(row_groups)} row groups, fewer than the {world_size} processes that share them."
            )
        self.row_groups, self.firsts = row_groups, np.cumsum(row_groups) - row_groups
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.start, self.stop, self.window = start, stop, window

    def __len__(self):
        return self.stop - self.start

    def __iter__(self):
        position = 0
        for epoch in itertools.count():
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.row_groups))
            order = order[self.rank :: self.world_size]
            for first in range(0, len(order), self.window):
                groups = order[first : first + self.window]
                count = int(self.row_groups[groups].sum())
                if position + count > self.start:
                    rows = np.concatenate([self.firsts[group] + np.arange(self.row_groups[group]) for group in groups])
                    rng = np.random.default_rng((self.seed, epoch, self.rank, first))
                    for index in rng.permutation(rows)[max(0, self.start - position) : self.stop - position]:
                        yield epoch, int(index)
                position += count
                if position >= self.stop:
                    return


class BatchesOfRank(Sampler):
    """Every `world_size`-th batch from `rank` on: together the processes see the stream, each row once.

    Args:
        batches (`BatchSampler`): of all processes, a multiple of `world_size` of them.
        rank, world_size (`int`): of this process.
    """

    def __init__(self, batches: BatchSampler, rank: int, world_size: int):
        self.batches, self.rank, self.world_size = batches, rank, world_size

    def __len__(self):
        return len(self.batches) // self.world_size

    def __iter__(self):
        return itertools.islice(self.batches, self.rank, None, self.world_size)


@dataclass(frozen=True)
class UnreadableRow:
    """A row that could not be read: its uid, and why."""

    uid: str
    reason: str


class ReadableSamples(Dataset):
    """The samples of a dataset, an `UnreadableRow` in place of each that is broken; errors of programming and of the
    network pass.

    Args:
        samples (`Dataset`): indexed by `(epoch, index)`; `uid_of(index)` names a row without reading the rest.
    """

    def __init__(self, samples: Dataset):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> dict | UnreadableRow:
        try:
            return self.samples[key]
        except _OUTAGES:
            raise
        except UNREADABLE as error:
            return UnreadableRow(self._name(key[1]), f"{type(error).__name__}: {error}")

    def _name(self, index: int) -> str:
        try:
            return self.samples.uid_of(index)
        except UNREADABLE:
            return f"row {index}"


def collate(rows: list[dict | UnreadableRow]) -> dict:
    """A batch: tensors stacked, `uids` of its rows, and the `unreadable` ones, which are not in it."""
    unreadable = [row for row in rows if isinstance(row, UnreadableRow)]
    rows = [row for row in rows if not isinstance(row, UnreadableRow)]
    batch = {"uids": [row["uid"] for row in rows], "unreadable": unreadable}
    for name in rows[0] if rows else ():
        if name != "uid":
            values = [row[name] for row in rows]
            batch[name] = torch.stack(values) if isinstance(values[0], torch.Tensor) else values
    return batch


def to_device(batch: dict, device: torch.device) -> dict:
    """The batch with its tensors on `device`."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


def make_loader(
    args, samples: Dataset, accelerator: Accelerator, *, position: int, num_steps: int, batch_size: int | None = None
) -> DataLoader:
    """The batches of this process for `num_steps` optimiser steps, from a position of the stream on.

    Args:
        args: the common arguments.
        samples (`Dataset`): see `ReadableSamples`; one with `row_groups` is read by those (`GroupedStream`).
        position (`int`): samples that all processes have taken before.
        num_steps (`int`): optimiser steps.
        batch_size (`int`, *optional*): samples per device and forward pass; `--train_batch_size` by default.
    """
    batch_size = batch_size or args.train_batch_size
    return DataLoader(
        ReadableSamples(samples),
        batch_sampler=_order_batches(args, samples, accelerator, position, num_steps, batch_size),
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
        pin_memory=accelerator.device.type == "cuda",
        # A generator of its own: starting the loader must not draw from the one that a checkpoint restores.
        generator=torch.Generator(),
        worker_init_fn=_leave_signals_to_the_run,
    )


def _leave_signals_to_the_run(_worker: int) -> None:
    """Let a worker live on when the whole group is asked to end: the run still finishes its step."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _order_batches(args, samples, accelerator, position: int, num_steps: int, batch_size: int) -> Sampler:
    """The batches of this process."""
    rank, world_size = accelerator.process_index, accelerator.num_processes
    count = num_steps * samples_per_step(args, accelerator, batch_size)
    row_groups = getattr(samples, "row_groups", None)
    if row_groups is None:
        stream = ShuffledStream(len(samples), args.seed, position, position + count)
        return BatchesOfRank(BatchSampler(stream, batch_size, drop_last=True), rank, world_size)
    if args.dataloader_num_workers > 1:
        raise ValueError(
            f"`--dataloader_num_workers` is {args.dataloader_num_workers}; with `--streaming` it must be 0 or 1, since"
            " every worker would read every row group."
        )
    start, stop = position // world_size, (position + count) // world_size
    stream = GroupedStream(row_groups, args.seed, rank, world_size, start, stop)
    return BatchSampler(stream, batch_size, drop_last=True)


def samples_per_step(args, accelerator: Accelerator, batch_size: int) -> int:
    """Samples that one optimiser step takes from the stream, in all processes."""
    return batch_size * args.gradient_accumulation_steps * accelerator.num_processes


def count_steps(args, num_samples: int, accelerator: Accelerator) -> int:
    """`--max_train_steps`, or as many optimiser steps as `--num_train_epochs` over `num_samples` take."""
    if args.max_train_steps is not None:
        return args.max_train_steps
    if args.num_train_epochs is None:
        raise ValueError("Neither `--max_train_steps` nor `--num_train_epochs` says how long to train.")
    per_step = samples_per_step(args, accelerator, args.train_batch_size)
    return math.ceil(args.num_train_epochs * num_samples / per_step)


class UnreadableRows:
    """The unreadable rows that a process of a run has met, each counted once and named in a file of all processes.

    Args:
        path (`Path`): JSON lines with `uid`, `step`, `rank` and `reason`; those of a resumed run count.
        limit (`int`): how many there may be in a process.
        rank (`int`): of this process.
    """

    def __init__(self, path: Path, limit: int, rank: int = 0):
        self.path, self.limit, self.rank = path, limit, rank
        self.uids = {record["uid"] for record in read_json_lines(path) if record["rank"] == rank}

    def __len__(self):
        return len(self.uids)

    def note(self, batch: dict, step: int) -> None:
        """Name the new ones of a batch.

        Raises:
            TrainingStopped: there are too many, or nothing of the batch could be read.
        """
        self.name(batch["unreadable"], step)
        if not batch["uids"]:
            raise TrainingStopped(f"No row of a whole batch could be read at step {step}; {self.path} names them.")

    def name(self, rows: list[UnreadableRow], step: int) -> None:
        """Write down the new ones of `rows`.

        Raises:
            TrainingStopped: there are too many.
        """
        new = {row.uid: row for row in rows if row.uid not in self.uids}
        for row in new.values():
            self.uids.add(row.uid)
            append_json_line(self.path, {"uid": row.uid, "step": step, "rank": self.rank, "reason": row.reason})
            logger.warning("Row %s is unreadable and left out: %s", row.uid, row.reason)
        if new and len(self.uids) > self.limit:
            raise TrainingStopped(
                f"{len(self.uids)} rows are unreadable, and `--max_unreadable_rows` is {self.limit}; {self.path} names"
                " them and says why."
            )


def whole_batches(
    samples: Dataset,
    batch_size: int,
    device: torch.device,
    *,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    name: Callable[[list[UnreadableRow]], None] | None = None,
) -> Iterator[dict]:
    """What can be read of all samples, in order and as in epoch 0, on `device`: for validation.

    Args:
        samples (`Dataset`): see `ReadableSamples`.
        batch_size (`int`): samples at a time.
        device (`torch.device`): for the tensors.
        num_workers (`int`): processes that read ahead.
        rank, world_size (`int`): of the processes that share the samples. Each takes as many, since sharded models run
            in step: some samples are then taken twice.
        name (`Callable`, *optional*): is told what of each batch cannot be read.

    Raises:
        TrainingStopped: nothing can be read of all samples, or of a batch, which other processes would wait for.
    """
    share = math.ceil(len(samples) / world_size)
    loader = DataLoader(
        ReadableSamples(samples),
        batch_size=batch_size,
        sampler=[(0, (rank + world_size * place) % len(samples)) for place in range(share)],
        collate_fn=collate,
        num_workers=num_workers,
        generator=torch.Generator(),
        worker_init_fn=_leave_signals_to_the_run,
    )
    num_read = 0
    for batch in loader:
        if name is not None:
            name(batch["unreadable"])
        num_read += len(batch["uids"])
        if batch["uids"]:
            yield to_device(batch, device)
        elif world_size > 1:
            raise _nothing_read(batch)
    if share and not num_read:
        raise _nothing_read(batch)


def _nothing_read(batch: dict) -> TrainingStopped:
    reasons = "; ".join(f"{row.uid}: {row.reason}" for row in batch["unreadable"])
    return TrainingStopped(f"No row of a whole validation batch could be read: {reasons}.")
