# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Closed parts, centred on the origin unless said otherwise, their faces turned outwards."""

import numpy as np
from scipy.interpolate import PchipInterpolator

Part = tuple[np.ndarray, np.ndarray]  # vertices (V, 3), faces (F, 3) turned outwards
THIN = 0.048  # smallest thickness of a part where the longest side is 1
SIDES = 24  # facets of a round part


def box(x: float, y: float, z: float, radius: float = 0.0) -> Part:
    """A box with sides x, y, z, its edges rounded by `radius`."""
    half = np.array((x, y, z)) / 2
    radius = min(radius, 0.999 * half.min())
    steps = np.array([0.0, 1.0]) if radius <= 0 else np.array([0, 0.35, 0.7, 1.0])
    vertices, faces = [], []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        lines = [np.unique(np.concatenate((-half[i] + radius * steps, half[i] - radius * steps))) for i in (u, v)]
        grid_u, grid_v = np.meshgrid(*lines, indexing="ij")
        columns = grid_u.shape[1]
        corner = np.arange(grid_u.size).reshape(grid_u.shape)[:-1, :-1].reshape(-1, 1)
        quads = corner + np.array((0, columns, columns + 1, 1))
        for sign in (1, -1):
            points = np.empty((grid_u.size, 3))
            points[:, axis], points[:, u], points[:, v] = sign * half[axis], grid_u.ravel(), grid_v.ravel()
            turned = quads if sign > 0 else quads[:, ::-1]
            faces.append(sum(map(len, vertices)) + np.concatenate((turned[:, [0, 1, 2]], turned[:, [0, 2, 3]])))
            vertices.append(points)
    points = np.concatenate(vertices)
    if radius > 0:
        core = np.clip(points, radius - half, half - radius)
        away = points - core
        points = core + radius * away / np.linalg.norm(away, axis=1, keepdims=True)
    # the six sheets share their border points
    _, first, index = np.unique(np.round(points, 9), axis=0, return_index=True, return_inverse=True)
    return points[first], index.reshape(-1)[np.concatenate(faces)]


def lathe(profile, sides: int = SIDES) -> Part:
    """A solid of revolution about Y: `profile` (n, 2) of (radius, y) from its lower end on the axis to the upper."""
    profile = np.asarray(profile, dtype=float)
    rings = profile[1:-1]
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    circle = np.stack((np.sin(angle), np.cos(angle)), axis=1)
    points = np.empty((len(rings), sides, 3))
    points[:, :, [0, 2]] = rings[:, None, :1] * circle
    points[:, :, 1] = rings[:, None, 1]
    ends = np.array(((0, profile[0, 1], 0), (0, profile[-1, 1], 0)))
    return np.concatenate((points.reshape(-1, 3), ends)), _tube_faces(len(rings), sides)


def tube(path, radius) -> Part:
    """A round tube along `path` (n, 3) with `radius` a number or one per point; flat ends."""
    path = np.asarray(path, dtype=float)
    radius = np.broadcast_to(radius, len(path))
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    # one reference direction, the least parallel to the path, keeps the rings from twisting
    reference = np.eye(3)[np.abs(tangent).max(axis=0).argmin()]
    side = np.cross(reference, tangent)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, SIDES // 2, endpoint=False)[None, :, None]
    rings = path[:, None] + radius[:, None, None] * (np.cos(angle) * side[:, None] + np.sin(angle) * other[:, None])
    return np.concatenate((rings.reshape(-1, 3), path[[0, -1]])), _tube_faces(len(path), SIDES // 2)


def _tube_faces(rings: int, sides: int) -> np.ndarray:
    """Faces of `rings` rings of `sides` points, closed by two more points: below the first ring, above the last."""
    here = np.arange(sides)
    there = (here + 1) % sides
    quads = [
        (r * sides + here, r * sides + there, (r + 1) * sides + there, (r + 1) * sides + here)
        for r in range(rings - 1)
    ]
    below, above, top = np.full(sides, rings * sides), np.full(sides, rings * sides + 1), (rings - 1) * sides
    triangles = [np.stack((a, b, c), 1) for a, b, c, _ in quads] + [np.stack((a, c, d), 1) for a, _, c, d in quads]
    triangles += [np.stack((below, there, here), 1), np.stack((above, top + here, top + there), 1)]
    return np.concatenate(triangles)


def rod(start, end, radius: float, end_radius: float | None = None) -> Part:
    """A cylinder or cone frustum between two points."""
    path = np.linspace(start, end, 2)
    return tube(path, (radius, radius if end_radius is None else end_radius))


def disc(radius: float, height: float, bevel: float = 0.15) -> Part:
    """An upright cylinder with bevelled rims (`bevel` relative to the smaller of radius and half height)."""
    edge = bevel * min(radius, height / 2)
    half = height / 2
    inner = radius - edge
    return lathe(((0, -half), (inner, -half), (radius, edge - half), (radius, half - edge), (inner, half), (0, half)))


def superquadric(x: float, y: float, z: float, roundness: float = 1.0, waist: float = 1.0) -> Part:
    """A superellipsoid with sides x, y, z: exponents 1 give an ellipsoid, small ones a box, 2 an octahedron."""
    vertical = np.linspace(-np.pi / 2, np.pi / 2, 15)[1:-1, None]
    around = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)[None]

    def power(value, exponent):
        return np.sign(value) * np.abs(value) ** exponent

    ring = power(np.cos(vertical), roundness)
    points = np.stack(
        (
            ring * power(np.sin(around), waist) * x / 2,
            power(np.sin(vertical), roundness) * y / 2 + 0 * around,
            ring * power(np.cos(around), waist) * z / 2,
        ),
        axis=-1,
    )
    ends = np.array(((0, -y / 2, 0), (0, y / 2, 0)))
    return np.concatenate((points.reshape(-1, 3), ends)), _tube_faces(13, SIDES)


def ball(diameter: float) -> Part:
    return superquadric(diameter, diameter, diameter)


def ring(radius: float, thickness: float) -> Part:
    """A torus about Y: `radius` of its centre line, `thickness` the diameter of the tube."""
    major = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)[:, None]
    minor = np.linspace(0, 2 * np.pi, 12, endpoint=False)[None]
    reach = radius + thickness / 2 * np.cos(minor)
    points = np.stack(
        (reach * np.sin(major), thickness / 2 * np.sin(minor) + 0 * major, reach * np.cos(major)), axis=-1
    )
    index = np.arange(SIDES * 12).reshape(SIDES, 12)
    a, b, c, d = (np.roll(index, shift, axis=(0, 1)).ravel() for shift in ((0, 0), (-1, 0), (-1, -1), (0, -1)))
    return points.reshape(-1, 3), np.concatenate((np.stack((a, b, c), 1), np.stack((a, c, d), 1)))


def prism(outline, depth: float) -> Part:
    """A star-shaped `outline` (n, 2) of (x, y), either way round its mean, extruded along Z by `depth`."""
    outline = np.asarray(outline, dtype=float)
    x, y = outline.T
    if x @ np.roll(y, -1) < y @ np.roll(x, -1):
        outline = outline[::-1]
    count = len(outline)
    points = [np.column_stack((outline, np.full(count, z))) for z in (-depth / 2, depth / 2)]
    middle = outline.mean(axis=0)
    ends = np.array([(*middle, -depth / 2), (*middle, depth / 2)])
    return np.concatenate((*points, ends)), _tube_faces(2, count)


def hollow(profile, wall: float) -> np.ndarray:
    """The `lathe` profile of a vessel from that of its outside (n, 2), lowest first; walls are `wall` thick."""
    outer = np.asarray(profile, dtype=float)
    inner = outer[outer[:, 1] > outer[0, 1] + wall][::-1] - (wall, 0)
    floor = outer[0, 1] + wall
    inner = np.vstack((inner, (max(np.interp(floor, outer[:, 1], outer[:, 0]) - wall, 0.01), floor)))
    return np.vstack(((0, outer[0, 1]), outer, np.maximum(inner, (0.005, -np.inf)), (0, floor)))


def smooth(profile, count: int = 14) -> np.ndarray:
    """A smooth curve (count, 2) through control points (radius, y) ordered by y."""
    radius, height = np.asarray(profile, dtype=float).T
    heights = np.linspace(height[0], height[-1], count)
    return np.column_stack((PchipInterpolator(height, radius)(heights), heights))
