# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Build the mesh corpus of the tiny checkpoint from Debian and PyPI packages.

Every object ends as one GLB file with its materials, +Y up and front towards +Z, under ``<cache>/meshes/``, described
by one line of ``<cache>/meshes/objects.jsonl``; what was left out, and why, is in ``rejects.jsonl``, and
``everything.jsonl`` has all objects of the packages. The cache is ``$DIFFUSERS_VILEARN_CACHE`` or
``~/.cache/diffusers-vilearn``. Objects already converted are not converted again.

The train / held-out split is the published ``split.json`` beside this file; ``--write-split`` makes it anew.

    python training/tiny/corpus.py --procedural 1000 --stretched 3
"""

import argparse
import hashlib
import json
import re
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import trimesh
from packages import cache_folder
from procedural import procedural_object
from sources import Task, myosuite_tasks, pybullet_tasks, sweet_home_tasks
from zero_ad import zero_ad_tasks

from diffusers_vilearn.data.duplicates import Sketch, same_shape, sketch_mesh, twin_pairs
from diffusers_vilearn.data.records import uid_key
from diffusers_vilearn.files import write_atomically

SPLIT_FILE = Path(__file__).with_name("split.json")
HELDOUT_FURNITURE = 165  # Sweet Home 3D objects held out; MyoSuite and YCB are held out entirely
FLAT_RATIO = 0.04  # an object thinner than this share of its longest side is a sheet, not a shape
STRETCH = 1.4  # the axes of a stretched copy are longer or shorter by up to this factor
OUT_OF_DOMAIN = ("myosuite", "ycb")


# --- one object ------------------------------------------------------------------------------------------------------


def convert(task: Task, cache: Path) -> tuple[dict, str | None, Sketch | None]:
    """Write the object's GLB; return its record, why it is rejected (or None) and its `Sketch`."""
    path = Path("meshes") / f"{task.record['uid']}.glb"
    if not (cache / path).exists():
        scene = task.reader(task)
        transform = np.eye(4)
        transform[:3, :3] = task.rotation
        scene.apply_transform(transform)
        write_glb(cache / path, scene)
    mesh = trimesh.load_scene(cache / path).to_mesh()
    record = dict(task.record, path=path.as_posix(), up_axis="y", faces=len(mesh.faces))
    reason = reject_reason(mesh)
    return record, reason, None if reason else sketch_mesh(mesh, record["uid"])


def write_glb(path: Path, scene: trimesh.Scene) -> None:
    """The file, whole or not at all, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, scene.export(file_type="glb"))


def reject_reason(mesh: trimesh.Trimesh) -> str | None:
    """Why a mesh cannot serve as a training or test shape, or None."""
    if len(mesh.faces) < 4:
        return f"{len(mesh.faces)} faces"
    if not np.isfinite(mesh.vertices).all() or mesh.area <= 0:
        return "empty or non-finite surface"
    ratio = mesh.extents.min() / mesh.extents.max()
    return f"flat: smallest side is {ratio:.3f} of the largest" if ratio < FLAT_RATIO else None


# --- groups and split ------------------------------------------------------------------------------------------------

VARIANT_WORDS = frozenset(
    "left right big small little large medium middle mini high low tall short wide "
    "opened open closed folded unfolded bended "
    "white whites black red green blue brown beige grey gray yellow orange pink clear dark light textured snow "
    "one two three 2seats 3seats model old new".split()
)


def name_group(uid: str) -> str:
    """The uid without numbers, sides, sizes and colours: variants of one object share it.

    >>> name_group("sweethome3d/Scopia/beige_sofa_2seats"), name_group("myosuite/cubelarge")
    ('sweethome3d/Scopia/sofa', 'myosuite/cube')
    """
    folder, _, stem = uid.rpartition("/")
    stem = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)
    stem = re.sub(r"(small|medium|middle|large)$", r" \1", stem)
    words = [word.lower() for word in re.split(r"[\s_\-]+", stem)]
    kept = [re.sub(r"\d+", "", word) for word in words if word not in VARIANT_WORDS]
    return f"{folder}/{'-'.join(word for word in kept if word) or stem.lower()}"


def geometric_twins(sketches: dict[str, Sketch]) -> list[tuple[str, str]]:
    """Pairs of uids whose surfaces agree (`same_shape`)."""
    uids = sorted(sketches)
    return [(uids[i], uids[j]) for i, j in twin_pairs([sketches[uid] for uid in uids])]


def make_groups(sketches: dict[str, Sketch]) -> dict[str, list[str]]:
    """Near-duplicate groups: the closure of equal name groups and geometric twins. Returns name of group -> uids."""
    parent = {uid: uid for uid in sketches}

    def root(uid: str) -> str:
        while parent[uid] != uid:
            uid = parent[uid]
        return uid

    by_name = {}
    for uid in sorted(sketches):
        parent[root(uid)] = root(by_name.setdefault(name_group(uid), uid))
    named = len({root(uid) for uid in sketches})
    for first, second in geometric_twins(sketches):
        parent[root(first)] = root(second)
    groups = defaultdict(list)
    for uid in sorted(sketches):
        groups[root(uid)].append(uid)
    print(f"{len(sketches)} objects: {named} groups by name, {len(groups)} after joining equal shapes")
    return {name_group(uids[0]): uids for uids in groups.values()}


def make_split(sketches: dict[str, Sketch], furniture_heldout: int) -> dict[str, dict[str, list[str]]]:
    """Split the groups by the hash of their names: {"train": {group: uids}, "heldout": {group: uids}}.

    A group with an out-of-domain object is held out; so are others, up to `furniture_heldout` Sweet Home 3D objects.
    """
    groups = make_groups(sketches)
    split = {"train": {}, "heldout": {}}
    count = 0
    for group in sorted(groups, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        uids = groups[group]
        furniture = sum(uid.startswith("sweethome3d/") for uid in uids)
        out_of_domain = any(uid.startswith(OUT_OF_DOMAIN) for uid in uids)
        heldout = out_of_domain or count + furniture <= furniture_heldout
        count += furniture if heldout else 0
        split["heldout" if heldout else "train"][group] = uids
    return {part: dict(sorted(members.items())) for part, members in split.items()}


def drop_repeats(sketches: dict[str, Sketch]) -> dict[str, str]:
    """Out-of-domain objects that repeat an earlier one (three sizes of one sphere). Returns uid -> reason."""
    repeats, kept = {}, {}
    for uid in sorted(uid for uid in sketches if uid.startswith(OUT_OF_DOMAIN)):
        twin = kept.get(name_group(uid)) or next(
            (o for o in kept.values() if same_shape(sketches[uid], sketches[o])), None
        )
        if twin is None:
            kept[name_group(uid)] = uid
        else:
            repeats[uid] = f"repeats {twin}"
    return repeats


# --- procedural objects ----------------------------------------------------------------------------------------------


def write_procedural(seed: int, cache: Path) -> dict:
    """Write procedural object number `seed` unless it exists; return its record."""
    path = Path("meshes/procedural") / f"{seed:06d}.glb"
    scene = procedural_object(seed)
    if not (cache / path).exists():
        write_glb(cache / path, scene)
    category = scene.metadata["category"]
    return dict(
        uid=f"procedural/{seed:06d}",
        source="procedural",
        licence="CC0-1.0",
        creator="diffusers-vilearn",
        name=category,
        category=category,
        role="object",
        path=path.as_posix(),
        up_axis="y",
        faces=sum(len(mesh.faces) for mesh in scene.geometry.values()),
        split="train",
        group=f"procedural/{seed:06d}",
    )


# --- stretched copies ------------------------------------------------------------------------------------------------


def write_stretched(record: dict, copy: int, cache: Path) -> dict:
    """Write a copy of a training object, its axes stretched each by its own factor, unless it exists; return its
    record."""
    uid = f"stretched/{copy}/{record['uid']}"
    path = Path("meshes") / f"{uid}.glb"
    if not (cache / path).exists():
        scene = trimesh.load_scene(cache / record["path"])
        factors = STRETCH ** np.random.default_rng(uid_key(uid)).uniform(-1, 1, 3)
        scene.apply_transform(np.diag([*factors, 1]))
        write_glb(cache / path, scene)
    return dict(record, uid=uid, source="stretched", path=path.as_posix())


# --- the whole corpus ------------------------------------------------------------------------------------------------


def apply_split(record: dict, members: dict[str, tuple[str, str]]) -> dict:
    if record["source"] == "pybullet":
        return unsplit(record)
    if record["uid"] not in members:
        raise ValueError(
            f"{record['uid']} is in neither part of {SPLIT_FILE}; run with --write-split to make a new split"
        )
    split, group = members[record["uid"]]
    return dict(record, split=split, group=group)


def unsplit(record: dict) -> dict:
    """The record of an object that the published split does not name: a group of its own."""
    split = "heldout" if record["uid"].startswith(OUT_OF_DOMAIN) else "train"
    return dict(record, split=split, group=record["uid"])


def write_lines(path: Path, records: list[dict]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in sorted(records, key=lambda r: r["uid"]))
    write_atomically(path, text.encode())


def build(cache: Path, procedural: int, stretched: int, with_zero_ad: bool, workers: int, write_split: bool) -> None:
    tasks = [*sweet_home_tasks(cache), *myosuite_tasks(cache), *pybullet_tasks(cache)]
    optional = list(zero_ad_tasks(cache)) if with_zero_ad else []
    with ProcessPoolExecutor(workers) as pool:
        results = list(pool.map(convert, tasks, [cache] * len(tasks), chunksize=8))
        others = [record for record, _, _ in pool.map(convert, optional, [cache] * len(optional), chunksize=8)]
        extra = list(pool.map(write_procedural, range(procedural), [cache] * procedural, chunksize=32))
    sketches = {record["uid"]: sketch for record, reason, sketch in results if reason is None}
    reasons = {record["uid"]: reason for record, reason, _ in results if reason} | drop_repeats(sketches)

    if write_split:
        kept = {
            uid: sketch for uid, sketch in sketches.items() if uid not in reasons and not uid.startswith("pybullet/")
        }
        split = make_split(kept, HELDOUT_FURNITURE)
        write_atomically(SPLIT_FILE, (json.dumps(split, indent=1) + "\n").encode())
    split = json.loads(SPLIT_FILE.read_text())
    members = {uid: (part, group) for part in split for group, uids in split[part].items() for uid in uids}

    accepted = [apply_split(record, members) for record, _, _ in results if record["uid"] not in reasons]
    rejected = [unsplit(record) for record, _, _ in results if record["uid"] in reasons]
    write_lines(cache / "meshes/everything.jsonl", [*accepted, *rejected, *map(unsplit, others)])
    write_lines(cache / "meshes/rejects.jsonl", [dict(record, reason=reasons[record["uid"]]) for record in rejected])
    furniture = [record for record in accepted if (record["source"], record["split"]) == ("sweethome3d", "train")]
    with ProcessPoolExecutor(workers) as pool:
        for copy in range(stretched):
            extra += pool.map(write_stretched, furniture, [copy] * len(furniture), [cache] * len(furniture))
    accepted += extra
    write_lines(cache / "meshes/objects.jsonl", accepted)
    counts = defaultdict(int)
    for record in accepted:
        counts[record["source"], record["split"]] += 1
    for (source, part), count in sorted(counts.items()):
        print(f"{source:12s} {part:8s} {count:5d}")
    print(f"rejected {len(rejected)}; records in {cache / 'meshes/objects.jsonl'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--procedural", type=int, default=0, metavar="N", help="also write N procedural objects")
    parser.add_argument(
        "--stretched", type=int, default=0, metavar="N", help="also write N stretched copies of each training object"
    )
    parser.add_argument(
        "--zero_ad",
        action="store_true",
        help="add 0 A.D.'s models (1.4 GB, CC-BY-SA) to everything.jsonl",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that convert meshes")
    parser.add_argument("--write-split", action="store_true", help=f"make {SPLIT_FILE.name} anew instead of using it")
    args = parser.parse_args()
    build(cache_folder(), args.procedural, args.stretched, args.zero_ad, args.workers, args.write_split)


if __name__ == "__main__":
    main()
