# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A folder of meshes -> the list of objects that a dataset is made from: uids, near-duplicate groups, split."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm.auto import tqdm

from ..files import write_atomically
from ..geometry.mesh import (
    LOAD_TYPES,
    MeshError,
    list_members,
    load_mesh,
    merge_geometry,
    open_archive,
    validate_mesh,
)
from .duplicates import (
    NUM_SAMPLES,
    Sketch,
    check_heldout_fraction,
    join_groups,
    sketch_mesh,
    split_groups,
    twin_pairs,
)
from .engines import Answers
from .preparation import Reject
from .records import check_file_name_part
from .workers import WorkerFailure


def find_meshes(folder: Path) -> Iterator[dict]:
    """`{"uid", "path"}` of every mesh under `folder`, and `member` where it lies in a zip archive; sorted by path.

    The uid is the path from `folder`. A name that is not UTF-8 has its odd bytes escaped in the uid.
    """
    for path in sorted(folder.rglob("*")):
        kind = path.suffix[1:].lower()
        # A dangling link is listed, so that reading it says what is wrong.
        if not (path.is_file() or path.is_symlink()) or kind not in (*LOAD_TYPES, "zip"):
            continue
        name = path.relative_to(folder).as_posix()
        if kind != "zip":
            yield {"uid": _printable(name), "path": name}
            continue
        try:
            with open_archive(path, name) as archive:
                members = list_members(archive)
        except (MeshError, OSError):
            # Listed as it is, so that reading it says what is wrong.
            yield {"uid": _printable(name), "path": name}
            continue
        for member in members:
            yield {"uid": _printable(f"{name}/{member}"), "path": name, "member": member}


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class SketchRecord:
    """Record -> `Sketch` of its mesh, or the `MeshError` that it has; a callable for workers."""

    root: Path

    def __call__(self, record: dict) -> Sketch | MeshError:
        try:
            mesh = load_mesh(self.root / record["path"], member=record.get("member"))
            validate_mesh(mesh)
            return sketch_mesh(merge_geometry(mesh), record["uid"])
        except MeshError as error:
            return error
        except MemoryError:
            raise
        except Exception as error:
            return MeshError("unreadable", repr(error))


def scan_meshes(
    folder: Path,
    output: Path,
    run: Callable[[Callable, Iterable], Answers],
    *,
    source: str,
    licence: str,
    creator: str,
    heldout_fraction: float,
) -> tuple[dict[str, int], list[Reject]]:
    """Write one JSON line an object to `output`: near-duplicates share a `group`, and groups are split as a whole.

    The uid is the source and the path from `folder`, so that lists of several folders go into one dataset. Meshes that
    cannot be read are listed as well, so that preparing them records why they are rejected.

    Returns:
        `tuple[dict[str, int], list[Reject]]`: number of `objects`, `groups`, `unreadable` meshes, and of the others by
            split; and which meshes are unreadable, sorted by uid.

    Raises:
        ValueError: there is no such folder, no mesh in it, or no folder for `output`; or another argument is wrong.
    """
    check_file_name_part("source", source)
    check_heldout_fraction(heldout_fraction)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}{', only a file of that name' if folder.exists() else ''}.")
    if not output.parent.is_dir():
        raise ValueError(f"There is no folder {output.parent} to write {output.name} to; make it first.")
    records = [{**record, "uid": f"{source}/{record['uid']}"} for record in find_meshes(folder)]
    if not records:
        raise ValueError(f"There is no mesh in {folder}; it may be {', '.join((*LOAD_TYPES, 'zip'))}.")
    row_of = {record["uid"]: row for row, record in enumerate(records)}
    sketches, unreadable = {}, []
    with tempfile.TemporaryFile(dir=output.parent) as file:
        samples = np.memmap(file, np.float16, "w+", shape=(len(records), NUM_SAMPLES, 3))
        for record, sketch in tqdm(run(SketchRecord(folder), records), total=len(records), desc="Scan", unit="mesh"):
            if isinstance(sketch, MeshError | WorkerFailure):
                message = sketch.message if isinstance(sketch, WorkerFailure) else str(sketch)
                unreadable.append(Reject(record["uid"], sketch.reason, message))
                continue
            row = row_of[record["uid"]]
            samples[row] = sketch.samples
            sketches[row] = replace(sketch, samples=samples[row])
        readable = sorted(sketches)
        pairs = twin_pairs([sketches[row] for row in readable], run)
    groups_of_rows = join_groups(len(records), [(readable[i], readable[j]) for i, j in pairs])
    groups = {record["uid"]: records[first]["uid"] for record, first in zip(records, groups_of_rows)}
    splits = split_groups(groups, heldout_fraction)
    lines = []
    for record in records:
        uid = record["uid"]
        place = PurePosixPath(uid.removeprefix(f"{source}/"))
        described = {"source": source, "licence": licence, "creator": creator}
        described |= {"name": place.stem, "category": place.parent.name}
        lines.append(json.dumps(record | described | {"group": groups[uid], "split": splits[uid]}, sort_keys=True))
    write_atomically(output, "".join(f"{line}\n" for line in lines).encode())
    counts = {"objects": len(records), "groups": len(set(groups.values())), "unreadable": len(unreadable)}
    drawn = [splits[records[row]["uid"]] for row in readable]
    return counts | {split: drawn.count(split) for split in ("train", "heldout")}, sorted(unreadable)
