# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Records of meshes -> the tables `shapes`, `views` and `rejects` of a dataset, resumed where it was interrupted."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
from tqdm.auto import tqdm

from ..files import write_atomically
from .engines import Answers
from .features import REJECT_FEATURES, SHAPE_FEATURES, VIEW_FEATURES
from .preparation import ObjectPreparation, reject_object
from .shards import StagedShard, shard_path
from .workers import WorkerFailure

# In the order in which they are written: a shard with shapes is a finished one.
TABLES = {"rejects": REJECT_FEATURES, "views": VIEW_FEATURES, "shapes": SHAPE_FEATURES}
OPTIONS_FILE = "preparation.json"
REQUIRED_FIELDS = ("uid", "path", "split", "source", "licence", "creator", "name", "category")


def read_records(path: Path, sources: list[str] | None = None, splits: list[str] | None = None) -> list[dict]:
    """The objects of a JSON-lines file, of some sources and splits only if given.

    Raises:
        ValueError: a line is no JSON, lacks a field, or repeats a uid.
    """
    records, line_of = [], {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is no JSON: {error}") from error
        lacking = [name for name in REQUIRED_FIELDS if name not in record]
        if lacking:
            raise ValueError(f"{path}, line {number} lacks {', '.join(lacking)}.")
        for name in ("split", "source"):
            if not re.fullmatch(r"\w[\w.]*", record[name]):
                raise ValueError(
                    f"{path}, line {number}: {name} {record[name]!r} must be letters, digits, `_` and `.`."
                )
        if record["uid"] in line_of:
            raise ValueError(
                f"{path}, line {number} repeats the uid {record['uid']!r} of line {line_of[record['uid']]}."
            )
        line_of[record["uid"]] = number
        if (sources is None or record["source"] in sources) and (splits is None or record["split"] in splits):
            records.append(record)
    return records


def plan_shards(records: list[dict], objects_per_shard: int) -> dict[str, list[dict]]:
    """Name of each shard -> its objects, in an order that mixes categories but depends on the uids only."""
    groups = defaultdict(list)
    for record in sorted(records, key=lambda record: hashlib.sha256(record["uid"].encode()).hexdigest()):
        groups[record["split"], record["source"]].append(record)
    return {
        f"{split}-{source}-{start // objects_per_shard:05d}": members[start : start + objects_per_shard]
        for (split, source), members in sorted(groups.items())
        for start in range(0, len(members), objects_per_shard)
    }


def check_plan(
    output_dir: Path, preparation: ObjectPreparation, shards: dict[str, list[dict]], objects_per_shard: int
) -> None:
    """Record what a folder is made of; refuse to add rows made otherwise, or of a list that has changed since."""
    path = output_dir / OPTIONS_FILE
    options = asdict(preparation.options) | asdict(preparation.limits) | {"objects_per_shard": objects_per_shard}
    wanted = {"options": json.loads(json.dumps(options)), "objects": {}}
    uids = defaultdict(list)
    for shard, records in shards.items():
        uids[shard.rpartition("-")[0]].extend(record["uid"] for record in records)
    for group, members in uids.items():
        wanted["objects"][group] = hashlib.sha256("\n".join(members).encode()).hexdigest()
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
    write_atomically(path, json.dumps(wanted, indent=1).encode())


def build_shapes(
    records: list[dict],
    output_dir: Path,
    preparation: ObjectPreparation,
    run: Callable[[Callable, Iterable], Answers],
    objects_per_shard: int,
) -> Counter:
    """Prepare all records that are not prepared yet.

    Args:
        records (`list[dict]`): see `read_records`.
        output_dir (`Path`): folder of the dataset.
        preparation (`ObjectPreparation`): of one object.
        run (`Callable`): (function, tasks) -> `(task, answer)` in any order; see `engines.py`.
        objects_per_shard (`int`): size of the Parquet files.

    Returns:
        `Counter`: objects in the folder by the reason why they were rejected, or `accepted`.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    shards = plan_shards(records, objects_per_shard)
    check_plan(output_dir, preparation, shards, objects_per_shard)
    staged = {
        shard: StagedShard(output_dir, shard, len(members))
        for shard, members in shards.items()
        if not shard_path(output_dir, "shapes", shard).exists()
    }
    missing = {shard: set(staged[shard].missing()) for shard in staged}
    place_of = {shards[shard][index]["uid"]: (shard, index) for shard, indices in missing.items() for index in indices}
    for shard in [shard for shard, indices in missing.items() if not indices]:
        staged[shard].assemble(TABLES)
        del missing[shard]

    tasks = (shards[shard][index] for shard, indices in missing.items() for index in sorted(indices))
    num_rejects = 0
    with tqdm(total=len(records), initial=len(records) - len(place_of), desc="Objects", unit="object") as progress:
        for record, answer in run(preparation, tasks):
            if isinstance(answer, WorkerFailure):
                answer = reject_object(record, answer.reason, answer.message)
            shard, index = place_of[record["uid"]]
            staged[shard].keep(index, answer)
            missing[shard].remove(index)
            if not missing[shard]:
                staged[shard].assemble(TABLES)
            num_rejects += "rejects" in answer
            progress.update()
            progress.set_postfix(rejected=num_rejects)
    return count_outcomes(output_dir, shards)


def count_outcomes(output_dir: Path, shards: Iterable[str]) -> Counter:
    """Objects of some finished shards by the reason why they were rejected, or `accepted`."""
    counts = Counter()
    for shard in shards:
        counts["accepted"] += pq.read_metadata(shard_path(output_dir, "shapes", shard)).num_rows
        rejects = pq.read_table(shard_path(output_dir, "rejects", shard), columns=["reason"])
        counts.update(rejects.column("reason").to_pylist())
    return counts
