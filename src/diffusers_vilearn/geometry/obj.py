# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""OBJ files in the plain form that trimesh reads rightly.

trimesh cuts a polygon into a fan from its first corner. Where the polygon is not convex, parts of the fan may lie
outside of it, or fold back over the others.
"""

from collections import defaultdict

import mapbox_earcut
import numpy as np

# Part of a polygon's area by which a fan may leave it.
_TOLERANCE = 1e-6


def plain_obj(content: bytes) -> bytes:
    """An OBJ file in which polygons that their fans would leave are cut into triangles; the same bytes where there are
    none.

    Polygons that cross themselves stay as they are.

    Args:
        content (`bytes`): of the file.

    Raises:
        Exception: whatever a broken file makes the parser raise.
    """
    lines = content.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines()
    vertices, polygons = [], defaultdict(list)
    for number, line in enumerate(lines):
        if line.startswith((b"v ", b"v\t")):
            vertices.append(line.split()[1:4])
        elif line.startswith((b"f ", b"f\t")):
            corners = _corners(line)
            if len(corners) > 3:
                indices = (int(corner.partition(b"/")[0]) for corner in corners)
                # They count from 1, or back from the last vertex so far.
                rows = [index - 1 if index > 0 else len(vertices) + index for index in indices]
                polygons[len(rows)].append((number, rows))
    changed = False
    vertices = np.array(vertices, float)
    for found in polygons.values():
        numbers, rows = zip(*found)
        points = vertices[np.array(rows)]
        for place in np.flatnonzero(_leaves_polygon(points)):
            triangles = _cut(points[place])
            if triangles is not None:
                words = _corners(lines[numbers[place]])
                cut = (b"f " + b" ".join(words[corner] for corner in triangle) for triangle in triangles)
                lines[numbers[place]], changed = b"\n".join(cut), True
    return b"\n".join(lines) + b"\n" if changed else content


def _corners(line: bytes) -> list[bytes]:
    return line.partition(b"#")[0].split()[1:]


def _area_vectors(points: np.ndarray) -> np.ndarray:
    """Twice the areas of the triangles of fans (..., corners, 3) along their normals, (..., corners - 2, 3)."""
    first = points[..., :1, :]
    return np.cross(points[..., 1:-1, :] - first, points[..., 2:, :] - first)


def _leaves_polygon(points: np.ndarray) -> np.ndarray:
    """Which of some polygons (n, corners, 3) have a fan with a triangle that is turned against the others, (n,)."""
    triangles = _area_vectors(points)
    whole = triangles.sum(axis=1, keepdims=True)
    return ((triangles * whole).sum(axis=2) < -_TOLERANCE * np.square(whole).sum(axis=2)).any(axis=1)


def _cut(points: np.ndarray) -> np.ndarray | None:
    """Corners of triangles (n, 3) that a polygon (corners, 3) consists of, turned as it is; `None` if it crosses
    itself."""
    whole = _area_vectors(points).sum(axis=0)
    area = np.linalg.norm(whole)
    edges = np.roll(points, -1, axis=0) - points
    right = edges[np.square(edges).sum(axis=1).argmax()]
    right = np.cross(np.cross(whole / area, right), whole / area)
    right /= np.linalg.norm(right)
    flat = points @ np.stack([right, np.cross(whole / area, right)], axis=1)
    triangles = mapbox_earcut.triangulate_float64(flat, np.array([len(flat)], np.uint32)).reshape(-1, 3)
    one, other = (flat[triangles[:, corner]] - flat[triangles[:, 0]] for corner in (1, 2))
    areas = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    if abs(np.abs(areas).sum() - area) > _TOLERANCE * area:
        return None
    return np.where(areas[:, None] < 0, triangles[:, ::-1], triangles)
