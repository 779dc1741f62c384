# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The list of objects that a dataset is made from: one JSON line an object, and how the lines are shared by shards."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

REQUIRED_FIELDS = ("uid", "path", "split", "source", "licence", "creator", "name", "category")


class ObjectRecords(Sequence):
    """The records of a JSON-lines file, each read when asked for: a list of a million needs some bytes an object.

    Args:
        path (`Path`): of the file.
        sources, splits (`list[str]`, *optional*): take only objects of these.

    Raises:
        ValueError: a line is no JSON, lacks a field, or repeats a uid; or one of these sources or splits has none.
    """

    def __init__(self, path: Path, sources: list[str] | None = None, splits: list[str] | None = None):
        self.path = path
        offsets, keys, groups, found = [], [], [], set()
        self.groups: list[tuple[str, str]] = []
        with open(path, "rb") as file:
            offset = 0
            for number, line in enumerate(file, start=1):
                record = self._parse(line, number)
                if (sources is None or record["source"] in sources) and (splits is None or record["split"] in splits):
                    group = record["split"], record["source"]
                    if group not in self.groups:
                        self.groups.append(group)
                    offsets.append(offset)
                    keys.append(uid_key(record["uid"]))
                    groups.append(self.groups.index(group))
                found.add((record["split"], record["source"]))
                offset += len(line)
        taken = {name for group in self.groups for name in group}
        lacking = [name for name in (*(splits or ()), *(sources or ())) if name not in taken]
        if lacking or not offsets:
            there = ", ".join(f"{split} of {source}" for split, source in sorted(found)) or "nothing"
            raise ValueError(f"{path} has no object of {', '.join(lacking) or 'any kind'}, only {there}.")
        self._offsets = np.array(offsets, np.int64)
        self.keys = np.array(keys, np.uint64)
        self.group_of = np.array(groups, np.int32)
        self._check_uids()

    def _parse(self, line: bytes, number: int) -> dict:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{self.path}, line {number} is no JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{self.path}, line {number} must be an object of JSON, but is {record!r}.")
        lacking = [name for name in REQUIRED_FIELDS if name not in record]
        if lacking:
            raise ValueError(f"{self.path}, line {number} lacks {', '.join(lacking)}.")
        if others := [name for name in REQUIRED_FIELDS if not isinstance(record[name], str)]:
            raise ValueError(f"{self.path}, line {number}: {', '.join(others)} must be text.")
        for name in ("split", "source"):
            check_file_name_part(f"{self.path}, line {number}: {name}", record[name])
        return record

    def _check_uids(self) -> None:
        order = np.argsort(self.keys, kind="stable")
        equal = np.flatnonzero(self.keys[order][1:] == self.keys[order][:-1])
        if len(equal):
            first, second = order[equal[0]], order[equal[0] + 1]
            raise ValueError(f"{self.path} names the uid {self[first]['uid']!r} twice (objects {first} and {second}).")

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, row: int) -> dict:
        with open(self.path, "rb") as file:
            file.seek(self._offsets[row])
            return json.loads(file.readline())


def uid_key(uid: str) -> int:
    """64 bits that a uid is ordered and told apart by."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big")


def check_file_name_part(what: str, value: str) -> None:
    """Raise `ValueError` unless a value, such as a split or a source, may be a part of file names."""
    if not re.fullmatch(r"\w[\w.]*", value):
        raise ValueError(f"{what} {value!r} must be letters, digits, `_` and `.`.")


def check_root(records: Sequence[dict], root: Path) -> None:
    """Raise `ValueError` for a folder that has none of the first files of a list."""
    first = [record["path"] for record in islice(records, 100)]
    if not any((root / path).exists() for path in first):
        raise ValueError(
            f"There is no {first[0]} in the folder {root.absolute()}, nor any other of the first {len(first)} objects;"
            " see `--root`."
        )


def plan_shards(records: ObjectRecords, objects_per_shard: int) -> dict[str, np.ndarray]:
    """Name of each shard -> rows of its objects, in an order that mixes categories but depends on the uids only."""
    if objects_per_shard < 1:
        raise ValueError(f"`objects_per_shard` is {objects_per_shard}; it must be at least 1.")
    shards = {}
    for group, (split, source) in sorted(enumerate(records.groups), key=lambda item: item[1]):
        rows = np.flatnonzero(records.group_of == group)
        rows = rows[np.argsort(records.keys[rows])]
        for start in range(0, len(rows), objects_per_shard):
            name = f"{split}-{source}-{start // objects_per_shard:05d}"
            shards[name] = rows[start : start + objects_per_shard]
    return shards


def group_digests(records: ObjectRecords, shards: dict[str, np.ndarray]) -> dict[str, str]:
    """`<split>-<source>` -> SHA-256 of which objects it has."""
    digests = defaultdict(hashlib.sha256)
    for shard, rows in shards.items():
        digests[shard.rpartition("-")[0]].update(records.keys[rows].tobytes())
    return {group: digest.hexdigest() for group, digest in digests.items()}
