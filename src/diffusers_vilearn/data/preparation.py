# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""One object's mesh -> its row of the shapes table and its rows of the views table."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
import trimesh
from PIL import Image

from ..geometry.cameras import Camera, check_range, sample_condition_camera
from ..geometry.field import SMALLEST_RESOLUTION, signed_distance, solid_surface
from ..geometry.mesh import MeshError, load_mesh, merge_geometry, normalize_mesh, validate_mesh
from ..geometry.rendering import make_renderer, sample_light, visible_points
from ..geometry.sampling import sample_sharp_edges, sample_surface
from .features import REJECT_FEATURES, SHAPE_FEATURES, VIEW_FEATURES
from .quality import QualityLimits, measure_quality
from .records import check_root
from .shards import to_parquet

RendererName = Literal["embree", "nvdiffrast"]
# No fault of an object's; some leave a CUDA context in which nothing works. The second one is new in torch 2.8.
_DEVICE_ERRORS = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))


@dataclass(frozen=True)
class PreparationOptions:
    """How much is sampled of each object, and from where it is looked at.

    Args:
        num_surface (`int`): points on the surface.
        num_sharp (`int`): points on edges sharper than 30 degrees.
        num_near (`int`): points near the surface whose signed distance is stored.
        num_volume (`int`): points anywhere in `field_box` whose signed distance is stored.
        near_deviations (`tuple[float, ...]`): Gaussian steps off the surface, in units of the object frame.
        margin (`float`): by how much `field_box` exceeds the object; at least the truncation of any VAE trained on it.
        solid_resolution (`int`): of the thin shell that closes a mesh that is not watertight.
        num_views (`int`): condition views.
        image_size (`int`): side of the RGBA images in pixels.
        num_visible (`int`): visible points kept per view.
        azimuth, elevation (`tuple[float, float]`): range of the condition cameras in degrees.
        focal_length (`tuple[float, float]`): range in millimetres of a full-frame lens.
        orthographic_probability (`float`): part of the views that are orthographic.
        roll (`float`): largest angle in degrees by which a camera is turned about its view axis.
        roll_probability (`float`): part of the views whose camera is turned so.
        renderer (`str`): `embree` (CPU) or `nvdiffrast` (CUDA).
    """

    num_surface: int = 8192
    num_sharp: int = 4096
    num_near: int = 8192
    num_volume: int = 8192
    near_deviations: tuple[float, ...] = (0.01, 0.04, 0.1)
    margin: float = 0.2
    solid_resolution: int = 128
    num_views: int = 8
    image_size: int = 256
    num_visible: int = 2048
    azimuth: tuple[float, float] = (-90.0, 90.0)
    elevation: tuple[float, float] = (-15.0, 30.0)
    focal_length: tuple[float, float] = (35.0, 135.0)
    orthographic_probability: float = 0.2
    roll: float = 10.0
    roll_probability: float = 0.0
    renderer: RendererName = "embree"

    def __post_init__(self):
        for name in ("num_surface", "num_sharp", "num_near", "num_volume", "num_views", "image_size", "num_visible"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least 1.")
        if self.solid_resolution < SMALLEST_RESOLUTION:
            raise ValueError(
                f"`solid_resolution` is {self.solid_resolution}; it must be at least {SMALLEST_RESOLUTION}."
            )
        for name in ("azimuth", "elevation", "focal_length"):
            check_range(name, getattr(self, name))
        for name in ("orthographic_probability", "roll_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must lie in [0, 1].")
        if not self.focal_length[0] > 0:
            raise ValueError(f"`focal_length` is {self.focal_length}; it must be positive.")
        for name in ("margin", "near_deviations"):
            if not np.all(np.isfinite(getattr(self, name)) & np.greater(getattr(self, name), 0)):
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be positive and finite.")
        if not np.isfinite(self.roll):
            raise ValueError(f"`roll` is {self.roll}; it must be finite.")
        if self.renderer not in get_args(RendererName):
            raise ValueError(
                f"`renderer` is {self.renderer!r}; it must be one of {', '.join(get_args(RendererName))}."
            )


def object_rng(uid: str, purpose: str) -> np.random.Generator:
    """A generator that depends on the object and the purpose only, so that rows do not depend on their neighbours."""
    digest = hashlib.sha256(f"{purpose}/{uid}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


class Reject(NamedTuple):
    """An object that is not in the dataset: a `reason` to count by, and a sentence."""

    uid: str
    reason: str
    message: str


@dataclass(frozen=True)
class ObjectPreparation:
    """Task with a `record` -> the Parquet files of its rows by table; a callable that workers can be sent.

    Args:
        root (`Path`): folder that the records' paths are relative to.
        options (`PreparationOptions`): sizes and ranges.
        limits (`QualityLimits`): which objects are rejected.
    """

    root: Path
    options: PreparationOptions
    limits: QualityLimits

    def check(self, records: Sequence[dict]) -> None:
        """Raise what would otherwise be the fault of every object: a renderer that is not there, a wrong `root`."""
        make_renderer(trimesh.creation.box(), self.options.renderer)
        check_root(records, self.root)

    def __call__(self, task) -> dict[str, bytes]:
        record = task.record
        try:
            mesh = load_mesh(self.root / record["path"], member=record.get("member"))
            shape, views = prepare_object(mesh, record, self.options, self.limits)
        except MeshError as error:
            return reject_object(record, error.reason, str(error))
        except OSError as error:
            return reject_object(record, "unreadable", str(error))
        except (MemoryError, *_DEVICE_ERRORS):
            raise
        except Exception as error:
            # Whatever a strange mesh makes the geometry libraries stumble over costs that mesh only.
            return reject_object(record, "failed", repr(error))
        return {"shapes": to_parquet([shape], SHAPE_FEATURES), "views": to_parquet(views, VIEW_FEATURES)}


def reject_object(record: dict, reason: str, message: str) -> dict[str, bytes]:
    """The row of an object that is not in the dataset: a `reason` to count by, and a sentence."""
    row = {"uid": record["uid"], "source": record["source"], "reason": reason, "message": message}
    return {"rejects": to_parquet([row], REJECT_FEATURES)}


def prepare_object(
    mesh: trimesh.Trimesh | trimesh.Scene,
    record: dict,
    options: PreparationOptions,
    limits: QualityLimits,
) -> tuple[dict, list[dict]]:
    """Rows of `SHAPE_FEATURES` and `VIEW_FEATURES` for one object.

    Args:
        mesh (`trimesh.Trimesh` or `trimesh.Scene`): any mesh, +Y up, front towards +Z.
        record (`dict`): `uid`, `source`, `licence`, `creator`, `name`, `category`.
        options (`PreparationOptions`): sizes and ranges.
        limits (`QualityLimits`): which meshes are refused.

    Raises:
        MeshError: the mesh cannot serve as a training shape; its `reason` says why.
    """
    validate_mesh(mesh)
    mesh, _ = normalize_mesh(mesh)
    merged = merge_geometry(mesh)
    solid = solid_surface(merged, options.solid_resolution)
    scores = measure_quality(mesh, merged, solid)
    limits.check(scores)
    shape = {name: record[name] for name in ("uid", "source", "licence", "creator", "name", "category")}
    shape |= sample_shape(solid, object_rng(record["uid"], "shape"), options)
    return shape | scores, render_views(mesh, solid, record["uid"], options)


def sample_shape(solid: trimesh.Trimesh, rng: np.random.Generator, options: PreparationOptions) -> dict:
    """Point clouds and field samples of a watertight mesh."""
    surface = sample_surface(solid, options.num_surface, rng)
    deviation = np.resize(options.near_deviations, options.num_near)[:, None]
    near = surface[rng.integers(len(surface), size=options.num_near), :3]
    near = near + deviation * rng.standard_normal(near.shape)
    box = solid.bounds + np.array([[-options.margin], [options.margin]])
    volume = rng.uniform(box[0], box[1], (options.num_volume, 3))
    # Positions are stored in half precision, so the distances must belong to the rounded positions.
    points = np.concatenate([near, volume]).astype(np.float16)
    field = np.concatenate([points, signed_distance(solid, points)[:, None].astype(np.float16)], axis=1)
    return {
        "surface": surface.astype(np.float16),
        "sharp_edges": sample_sharp_edges(solid, options.num_sharp, rng).astype(np.float16),
        "field_near": field[: options.num_near],
        "field_volume": field[options.num_near :],
        "field_box": box.astype(np.float32),
    }


def render_views(mesh, solid: trimesh.Trimesh, uid: str, options: PreparationOptions) -> list[dict]:
    """Condition images of `mesh` and the points that they see."""
    rng = object_rng(uid, "views")
    renderer = make_renderer(mesh, options.renderer)
    rows = []
    for view in range(options.num_views):
        camera = sample_condition_camera(
            rng,
            solid.vertices,
            azimuth=options.azimuth,
            elevation=options.elevation,
            focal_length=options.focal_length,
            orthographic_probability=options.orthographic_probability,
            roll=options.roll,
            roll_probability=options.roll_probability,
            fill=0.9,
        )
        rendering = renderer.render(camera, options.image_size, light=sample_light(rng), supersampling=2)
        azimuth, elevation = view_angles(camera)
        rows.append(
            {
                "uid": uid,
                "view": view,
                "image": Image.fromarray(rendering.color, "RGBA"),
                "azimuth": azimuth,
                "elevation": elevation,
                "vertical_fov": camera.vertical_fov,
                "orthographic_height": camera.orthographic_height,
                "camera_to_world": camera.camera_to_world.astype(np.float32),
                "visible_points": visible_points(rendering, options.num_visible, rng).astype(np.float16),
            }
        )
    return rows


def view_angles(camera: Camera) -> tuple[float, float]:
    """Azimuth and elevation in degrees of the direction from which a camera looks."""
    x, y, z = camera.camera_to_world[:3, 2]
    return float(np.degrees(np.arctan2(x, z))), float(np.degrees(np.arcsin(np.clip(y, -1, 1))))
