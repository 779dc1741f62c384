# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""One object's mesh -> its row of the shapes table and its rows of the views table."""

import hashlib
from dataclasses import dataclass

import numpy as np
import trimesh
from PIL import Image

from ..geometry.cameras import Camera, sample_condition_camera
from ..geometry.field import signed_distance, solid_surface
from ..geometry.mesh import merge_geometry, normalize_mesh, validate_mesh
from ..geometry.rendering import EmbreeRenderer, sample_light, visible_points
from ..geometry.sampling import sample_sharp_edges, sample_surface


@dataclass(frozen=True)
class PreparationOptions:
    """How much is sampled of each object, and from where it is looked at.

    Args:
        num_surface, num_sharp, num_near, num_volume (`int`): points of each cloud.
        near_deviations (`tuple[float, ...]`): Gaussian steps off the surface, in units of the object frame.
        margin (`float`): by how much `field_box` exceeds the object; at least the truncation of any VAE trained on it.
        solid_resolution (`int`): of the thin shell that closes a mesh that is not watertight.
        num_views (`int`): condition views.
        image_size (`int`): side of the RGBA images in pixels.
        num_visible (`int`): visible points kept per view.
        azimuth, elevation (`tuple[float, float]`): ranges of the condition cameras in degrees.
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
    azimuth: tuple[float, float] = (-180.0, 180.0)
    elevation: tuple[float, float] = (-15.0, 30.0)


def object_rng(uid: str, purpose: str) -> np.random.Generator:
    """A generator that depends on the object and the purpose only, so that rows do not depend on their neighbours."""
    digest = hashlib.sha256(f"{purpose}/{uid}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def prepare_object(
    mesh: trimesh.Trimesh | trimesh.Scene, record: dict, options: PreparationOptions
) -> tuple[dict, list[dict]]:
    """Rows of `SHAPE_FEATURES` and `VIEW_FEATURES` for one object.

    Args:
        mesh (`trimesh.Trimesh` or `trimesh.Scene`): any mesh, +Y up, front towards +Z.
        record (`dict`): `uid`, `source`, `licence`, `creator`, `name`, `category`.
        options (`PreparationOptions`): sizes and ranges.

    Raises:
        ValueError: the mesh is empty, degenerate, not finite, or no camera sees it.
    """
    validate_mesh(mesh)
    mesh, _ = normalize_mesh(mesh)
    merged = merge_geometry(mesh)
    solid = solid_surface(merged, options.solid_resolution)
    shape = {name: record[name] for name in ("uid", "source", "licence", "creator", "name", "category")}
    shape |= sample_shape(solid, object_rng(record["uid"], "shape"), options)
    shape["num_faces"] = len(merged.faces)
    return shape, render_views(mesh, solid, record["uid"], options)


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
    renderer = EmbreeRenderer(mesh)
    rows = []
    for view in range(options.num_views):
        camera = sample_condition_camera(
            rng, solid.vertices, azimuth=options.azimuth, elevation=options.elevation, fill=0.95
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
