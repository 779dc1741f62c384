# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The models of the game 0 A.D.: a reader of its PMD meshes, and of the actors that give them textures.

CC-BY-SA-3.0 is share-alike, so this corpus is optional and never part of the shipped checkpoint's.
"""

import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import trimesh
from packages import Package, fetch, unpack
from PIL import Image
from sources import Task, plain_material

ZERO_AD = Package(
    "0ad-data_0.0.26-1_all.deb",
    "53745ae74d05bccf6783400fa98f3932b21729ab9d2e86151aa2c331c3455178",
    ("apt-get", "download", "0ad-data=0.0.26-1"),
)
MIN_FACES = 200  # below are plants of crossed sheets, and parts of other models
# The game's axes are left-handed, and its models face -Z: mirroring z amends both.
MIRROR = np.diag([1.0, 1.0, -1.0])


def zero_ad_tasks(cache: Path) -> Iterator[Task]:
    """Every mesh of enough faces that an actor shows with a texture, once, as the first such actor shows it."""
    package = unpack(fetch(ZERO_AD, cache / "downloads"), cache / "unpacked" / "0ad")
    archive = package / "usr/share/games/0ad/mods/public/public.zip"
    root = unpack(archive, cache / "unpacked" / "0ad-public", prefix="art/") / "art"
    seen = set()
    for actor in sorted((root / "actors").rglob("*.xml")):
        found = read_actor(actor, root)
        if found is None or found[0] in seen:
            continue
        mesh, texture = found
        seen.add(mesh)
        if count_faces(mesh) < MIN_FACES:
            continue
        name = mesh.relative_to(root / "meshes").as_posix().split(".")[0]
        yield Task(
            record=dict(
                uid=f"zero_ad/{name}",
                source="zero_ad",
                licence="CC-BY-SA-3.0",
                creator="Wildfire Games",
                name=mesh.name.split(".")[0].replace("_", " "),
                category=actor.relative_to(root / "actors").parts[0],
                role="object",
            ),
            mesh=mesh,
            reader=read_pmd,
            rotation=MIRROR,
            texture=texture,
        )


def read_actor(actor: Path, root: Path) -> tuple[Path, Path] | None:
    """Mesh and base texture of an actor's first variants, as files under `root`; None if it lacks one of them."""
    tree = ElementTree.parse(actor)
    mesh, texture = tree.find("./group/variant/mesh"), tree.find("./group/variant/textures/texture[@name='baseTex']")
    if mesh is None or texture is None:
        return None
    meshes = root / "meshes" / f"{mesh.text.strip()}.cached.pmd", root / "meshes" / mesh.text.strip()
    skin = root / "textures/skins" / texture.get("file")
    skins = skin.with_name(f"{skin.name}.cached.dds"), skin
    mesh, texture = (next((path for path in paths if path.is_file()), None) for paths in (meshes, skins))
    return None if mesh is None or mesh.suffix != ".pmd" or texture is None else (mesh, texture)


def _layout(data: bytes, path: Path) -> tuple[int, int, int]:
    """Number of vertices, floats and bytes of each one, and offset of the first, of a PMD file."""
    magic, version, _, vertices = struct.unpack_from("<4sIII", data)
    if magic != b"PSMD" or not 1 <= version <= 4:
        raise ValueError(f"{path} is no PMD mesh of version 1 to 4")
    coordinates, offset = (struct.unpack_from("<I", data, 16)[0], 20) if version == 4 else (1, 16)
    return vertices, 24 + 8 * coordinates + 20, offset


def count_faces(path: Path) -> int:
    """Triangles of a PMD file."""
    data = path.read_bytes()
    vertices, size, offset = _layout(data, path)
    return struct.unpack_from("<I", data, offset + vertices * size)[0]


def read_pmd(task: Task) -> trimesh.Scene:
    """PMD, little endian: vertices of position, normal, texture coordinates and bone weights, then triangles."""
    data = task.mesh.read_bytes()
    vertices, size, offset = _layout(data, task.mesh)
    values = np.frombuffer(data, np.uint8, vertices * size, offset).reshape(vertices, size)
    floats = np.ascontiguousarray(values[:, :32]).view("<f4")
    offset += vertices * size
    faces = np.frombuffer(data, "<u2", 3 * struct.unpack_from("<I", data, offset)[0], offset + 4).reshape(-1, 3)
    image = Image.open(task.texture).convert("RGB")
    image.thumbnail((512, 512))
    # Clockwise triangles face outwards.
    mesh = trimesh.Trimesh(floats[:, :3].astype(np.float64), faces[:, ::-1].astype(np.int64), process=False)
    mesh.visual = trimesh.visual.TextureVisuals(
        uv=floats[:, 6:8] * (1, -1) + (0, 1), material=plain_material((1.0, 1.0, 1.0, 1.0), image)
    )
    return trimesh.Scene(mesh)
