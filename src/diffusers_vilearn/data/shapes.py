# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Records of meshes -> the tables `shapes`, `views` and `rejects` of a dataset, resumed where it was interrupted."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from ..files import PREPARATION_FILE, locked, remove_temporaries, write_atomically
from .engines import Answers
from .features import REJECT_FEATURES, SHAPE_FEATURES, VIEW_FEATURES
from .preparation import ObjectPreparation, Reject, reject_object
from .records import ObjectRecords, group_digests, plan_shards, uid_key
from .shards import StagedShard, read_parquet, shard_path
from .workers import WorkerFailure

# In the order in which they are written: a shard with shapes is a finished one.
TABLES = {"rejects": REJECT_FEATURES, "views": VIEW_FEATURES, "shapes": SHAPE_FEATURES}


def make_plan(
    output_dir: Path, preparation: ObjectPreparation, digests: dict[str, str], objects_per_shard: int
) -> dict:
    """What a folder is to be made of.

    Raises:
        ValueError: it has rows that were made otherwise, or of a list that has changed since.
    """
    path = output_dir / PREPARATION_FILE
    options = asdict(preparation.options) | asdict(preparation.limits) | {"objects_per_shard": objects_per_shard}
    wanted = {"options": json.loads(json.dumps(options)), "objects": digests}
    if path.exists():
        known = json.loads(path.read_text())
        changed = [name for name, value in wanted["options"].items() if known["options"].get(name) != value]
        if changed:
            raise ValueError(
                f"{output_dir} was prepared with another {', '.join(changed)} ({path}); choose another `--output_dir`."
            )
        grown = [name for name, digest in wanted["objects"].items() if known["objects"].get(name, digest) != digest]
        if grown:
            raise ValueError(
                f"{output_dir} was prepared from another list of objects of {', '.join(grown)}; choose another"
                " `--output_dir`, or give new objects another `source`."
            )
        wanted["objects"] = known["objects"] | wanted["objects"]
    return wanted


class ObjectTask(NamedTuple):
    """One object to prepare, and its place in the dataset."""

    shard: str
    index: int
    record: dict


def build_shapes(
    records: ObjectRecords,
    output_dir: Path,
    preparation: ObjectPreparation,
    run: Callable[[Callable, Iterable], Answers],
    objects_per_shard: int,
) -> Counter:
    """Prepare all objects that are not prepared yet.

    Args:
        records (`ObjectRecords`): the objects.
        output_dir (`Path`): folder of the dataset.
        preparation (`ObjectPreparation`): of one object.
        run (`Callable`): (function, tasks) -> `(task, answer)` in any order; see `engines.py`.
        objects_per_shard (`int`): size of the Parquet files.

    Returns:
        `Counter`: objects in the folder by the reason why they were rejected, or `accepted`.

    Raises:
        ValueError: the folder was prepared otherwise, has other objects with these uids, or another process is writing
            to it.
    """
    shards = plan_shards(records, objects_per_shard)
    preparation.check(records)
    with locked(output_dir):
        plan = make_plan(output_dir, preparation, group_digests(records, shards), objects_per_shard)
        _check_uids(output_dir, records, shards)
        write_atomically(output_dir / PREPARATION_FILE, json.dumps(plan, indent=1).encode())
        for folder in (output_dir, *(output_dir / table for table in TABLES)):
            remove_temporaries(folder)
        _prepare_missing(records, shards, output_dir, preparation, run)
    return count_outcomes(output_dir, shards)


def _check_uids(output_dir: Path, records: ObjectRecords, shards: Iterable[str]) -> None:
    """Raise `ValueError` for objects with the uid of one in a shard of another split or source: views and latents
    would be of either."""
    keys = set(records.keys.tolist())
    for path in sorted((output_dir / "shapes").glob("*.parquet")):
        if path.stem not in shards:
            uids = read_parquet(path, ["uid"]).column("uid").to_pylist()
            if known := [uid for uid in uids if uid_key(uid) in keys]:
                raise ValueError(
                    f"{len(known)} objects have a uid that {path}, of another split or source, has already, such as"
                    f" {known[0]!r}; give them others, or choose another `--output_dir`."
                )


def _prepare_missing(
    records: ObjectRecords,
    shards: dict[str, np.ndarray],
    output_dir: Path,
    preparation: ObjectPreparation,
    run: Callable[[Callable, Iterable], Answers],
) -> None:
    staged = {shard: StagedShard(output_dir, shard, len(rows)) for shard, rows in shards.items()}
    for shard in [shard for shard in shards if shard_path(output_dir, "shapes", shard).exists()]:
        staged.pop(shard).forget()
    missing = {shard: files.missing() for shard, files in staged.items()}
    unfinished = {shard: len(indices) for shard, indices in missing.items()}
    for shard, count in unfinished.items():
        if not count:
            staged[shard].assemble(TABLES)

    tasks = (
        ObjectTask(shard, index, records[shards[shard][index]])
        for shard, indices in missing.items()
        for index in indices
    )
    num_rejects = 0
    done = len(records) - sum(unfinished.values())
    with tqdm(total=len(records), initial=done, desc="Objects", unit="object") as progress:
        for task, answer in run(preparation, tasks):
            if isinstance(answer, WorkerFailure):
                answer = reject_object(task.record, answer.reason, answer.message)
            staged[task.shard].keep(task.index, answer)
            unfinished[task.shard] -= 1
            if not unfinished[task.shard]:
                staged[task.shard].assemble(TABLES)
            num_rejects += "rejects" in answer
            progress.update()
            progress.set_postfix(rejected=num_rejects)


def count_outcomes(output_dir: Path, shards: Iterable[str]) -> Counter:
    """Objects of some finished shards by the reason why they were rejected, or `accepted`."""
    counts = Counter()
    for shard in shards:
        counts["accepted"] += pq.read_metadata(shard_path(output_dir, "shapes", shard)).num_rows
        rejects = read_parquet(shard_path(output_dir, "rejects", shard), ["reason"])
        counts.update(rejects.column("reason").to_pylist())
    return counts


def first_rejects(output_dir: Path, shards: Iterable[str], count: int) -> list[Reject]:
    """The first objects of some finished shards that were rejected, `count` at most."""
    rejects = []
    for shard in shards:
        rows = read_parquet(shard_path(output_dir, "rejects", shard), list(Reject._fields)).to_pylist()
        rejects.extend(Reject(**row) for row in rows)
        if len(rejects) >= count:
            break
    return rejects[:count]
