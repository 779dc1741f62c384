# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""One mesh seen from many cameras, rendered once for all metrics that look at normal maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry.cameras import Camera, sphere_cameras
from ..geometry.mesh import Mesh, merge_geometry, surface_bounds
from ..geometry.rendering import make_renderer
from .normal_maps import FOREGROUND, camera_normals, normal_picture

# What the paper renders for IS-AS.
NUM_VIEWS, RESOLUTION, DISTANCE, VERTICAL_FOV = 512, 518, 3.2, 45.0


@dataclass(frozen=True, eq=False)
class RenderedViews:
    """Normal maps of one mesh, coded as `normal_maps.py` says.

    Attributes:
        pictures: (views, resolution, resolution, 3) uint8.
        cameras: one a view, about the mesh in its unit sphere.
    """

    pictures: np.ndarray
    cameras: Sequence[Camera]

    @classmethod
    def of(
        cls,
        mesh: Mesh | None,
        cameras: Sequence[Camera] | None = None,
        *,
        resolution: int = RESOLUTION,
        foreground: float = FOREGROUND,
        backend: str = "embree",
    ) -> RenderedViews:
        """Render `mesh`, wherever it is and whatever its size: it is put into the unit sphere first, the largest
        round scale at which the paper's cameras never cut it off.

        Args:
            mesh: trimesh.Trimesh or trimesh.Scene; `None`, a shape that failed, gives white pictures.
            cameras: the paper's 512 if left out, `sphere_cameras(512, distance=3.2, vertical_fov=45)`.
            resolution: side of rendering and picture in pixels.
            foreground: share of the picture's side that the longer side of the object's bounding box takes.
            backend: "embree" (CPU) or "nvdiffrast" (CUDA).
        """
        if cameras is None:
            cameras = sphere_cameras(NUM_VIEWS, distance=DISTANCE, vertical_fov=VERTICAL_FOV)
        pictures = np.full((len(cameras), resolution, resolution, 3), 255, np.uint8)
        if mesh is not None:
            renderer = make_renderer(in_unit_sphere(mesh), backend)
            for picture, camera in zip(pictures, cameras):
                rendering = renderer.render(camera, resolution)
                normals = camera_normals(rendering, camera)
                picture[:] = np.asarray(normal_picture(normals, rendering.mask, resolution, foreground))
        return cls(pictures, cameras)

    def spread(self, count: int) -> RenderedViews:
        """`count` of the views, spread over all of them."""
        chosen = spread_views(len(self.cameras), count)
        return RenderedViews(self.pictures[chosen], [self.cameras[index] for index in chosen])


def spread_views(num_views: int, count: int) -> np.ndarray:
    """Indices of `count` views, spread over all `num_views`."""
    if not 1 <= count <= num_views:
        raise ValueError(f"`count` must be from 1 to the number of views, {num_views}, but is {count!r}.")
    return np.linspace(0, num_views - 1, count).round().astype(int)


def in_unit_sphere(mesh: Mesh):
    """Bare triangles of `mesh`, the centre of its bounding box at the origin, its farthest vertex at distance 1."""
    merged = merge_geometry(mesh)
    merged.apply_translation(-surface_bounds(merged).mean(axis=0))
    merged.apply_scale(1 / np.linalg.norm(merged.vertices, axis=1).max())
    return merged
