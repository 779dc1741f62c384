# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Random everyday objects from a seed: +Y up, front towards +Z, one material colour per kind of part.

Every part is a closed surface; no part is thinner than about 4% of its object, so that a coarse field can show it.
Lengths are relative: an object's longest side is roughly 1.
"""

import colorsys
from collections import defaultdict

import numpy as np
import trimesh
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

Part = tuple[np.ndarray, np.ndarray]  # vertices (V, 3), faces (F, 3) turned outwards
THIN = 0.048  # smallest thickness of a part where the longest side is 1
SIDES = 24  # facets of a round part


# --- closed primitives, centred on the origin unless said otherwise --------------------------------------------------


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


# --- an object under construction ------------------------------------------------------------------------------------


class Builder:
    """Collects coloured parts and draws random numbers for them."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.parts: dict[tuple, list[Part]] = defaultdict(list)

    def u(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def n(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, *options):
        return options[self.rng.integers(len(options))]

    def colour(self, *kinds: str) -> tuple[int, int, int, int]:
        """A random RGBA (0..255) of one of the kinds: wood, metal, paint, fabric, white, dark, leaf, clay, skin."""
        hue, saturation, value = {
            "wood": lambda: (self.u(0.05, 0.11), self.u(0.35, 0.75), self.u(0.3, 0.9)),
            "metal": lambda: (self.u(0.5, 0.65), self.u(0.0, 0.08), self.u(0.45, 0.85)),
            "paint": lambda: (self.u(0, 1), self.u(0.5, 0.95), self.u(0.45, 1.0)),
            "fabric": lambda: (self.u(0, 1), self.u(0.1, 0.6), self.u(0.3, 0.9)),
            "white": lambda: (self.u(0, 1), self.u(0, 0.06), self.u(0.82, 1.0)),
            "dark": lambda: (self.u(0, 1), self.u(0, 0.25), self.u(0.1, 0.3)),
            "leaf": lambda: (self.u(0.22, 0.38), self.u(0.45, 0.85), self.u(0.3, 0.75)),
            "clay": lambda: (self.u(0.02, 0.09), self.u(0.35, 0.75), self.u(0.5, 0.85)),
            "skin": lambda: (self.u(0.04, 0.09), self.u(0.25, 0.6), self.u(0.4, 0.95)),
        }[self.pick(*kinds)]()
        return (*(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value)), 255)

    def add(self, part: Part, colour: tuple, at=(0.0, 0.0, 0.0), turn=None) -> None:
        """Place a part: rotated by `turn`, Euler angles (x, y, z) in degrees, then moved to `at`."""
        vertices, faces = part
        if turn is not None:
            vertices = vertices @ Rotation.from_euler("xyz", turn, degrees=True).as_matrix().T
        self.parts[colour].append((vertices + at, faces))

    def mirrored(self, part: Part, colour: tuple, at, turn=(0.0, 0.0, 0.0)) -> None:
        """Place a part and its mirror image across x = 0. The part itself must be symmetric in x."""
        self.add(part, colour, at, turn)
        self.add(part, colour, (-at[0], at[1], at[2]), (turn[0], -turn[1], -turn[2]))

    def legs(self, x: float, z: float, height: float, thickness: float, colour: tuple) -> None:
        """Four legs of one style, their tops at (±x, height, ±z)."""
        style = self.pick("square", "round", "tapered", "splayed", "turned", "runner")
        splay = self.u(0.05, 0.14) if style == "splayed" else 0.0
        radius = thickness / 2
        for sx in (1, -1):
            for sz in (1, -1):
                top = np.array((sx * x, height, sz * z))
                foot = np.array((sx * (x + splay), 0, sz * (z + splay)))
                if style in ("square", "runner"):
                    self.add(box(thickness, height, thickness), colour, (top + foot) / 2)
                elif style == "turned":
                    bulge = ((0.85, 0), (0.7, 0.1), (1.2, 0.3), (0.75, 0.55), (1.3, 0.75), (0.9, 1))
                    curve = smooth(np.array(bulge) * (radius * 1.1, height))
                    self.add(lathe(((0, 0), *curve, (0, height)), 16), colour, foot)
                else:
                    self.add(rod(foot, top, radius * (0.9 if style == "tapered" else 1.0), radius * 1.1), colour)
            if style == "runner":
                self.add(box(thickness, thickness, 2 * z + thickness), colour, (sx * x, thickness / 2, 0))

    def handle(self, width: float, at, turn=(0.0, 0.0, 0.0)) -> None:
        """A knob, or a bar `width` long along x, on a front that looks towards +Z at `at`."""
        colour = self.colour("metal", "dark", "wood")
        if self.chance(0.4):
            self.add(ball(0.055), colour, at, turn)
        else:
            self.add(box(width, 0.045, 0.06, 0.015), colour, at, turn)

    def scene(self, category: str) -> trimesh.Scene:
        """One geometry per colour, standing on y = 0 with its centre above the origin."""
        meshes = []
        for colour, parts in self.parts.items():
            offsets = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
            meshes.append(
                trimesh.Trimesh(
                    np.concatenate([vertices for vertices, _ in parts]),
                    np.concatenate([faces + offset for (_, faces), offset in zip(parts, offsets)]),
                    process=False,
                    visual=trimesh.visual.TextureVisuals(
                        material=trimesh.visual.material.PBRMaterial(
                            baseColorFactor=colour, metallicFactor=0.0, roughnessFactor=0.9
                        )
                    ),
                )
            )
        low = np.min([mesh.vertices.min(axis=0) for mesh in meshes], axis=0)
        high = np.max([mesh.vertices.max(axis=0) for mesh in meshes], axis=0)
        middle = (low + high) / 2
        for mesh in meshes:
            mesh.vertices -= (middle[0], low[1], middle[2])
        scene = trimesh.Scene({f"part{index}": mesh for index, mesh in enumerate(meshes)})
        scene.metadata["category"] = category
        return scene


# --- furniture -------------------------------------------------------------------------------------------------------


def chair(b: Builder) -> None:
    frame, seat = b.colour("wood", "metal", "dark", "paint"), b.colour("fabric", "wood", "paint")
    width, depth, height = b.u(0.38, 0.52), b.u(0.38, 0.5), b.u(0.36, 0.5)
    thick = b.u(THIN, 0.09)
    if b.chance(0.2):
        b.add(superquadric(width, thick, depth, 0.5, b.u(0.4, 1)), seat, (0, height, 0))
    else:
        b.add(box(width, thick, depth, b.u(0, thick / 2)), seat, (0, height, 0))
    leg = b.u(THIN, 0.06)
    if b.chance(0.2):
        b.add(rod((0, 0.06, 0), (0, height, 0), 0.035), frame)
        for k in range(5):
            angle = 2 * np.pi * (k + 0.5) / 5
            foot = (0.3 * np.sin(angle), 0.05, 0.3 * np.cos(angle))
            b.add(rod((0, 0.08, 0), foot, 0.028), frame)
            b.add(ball(0.065), frame, (foot[0], 0.0325, foot[2]))
    else:
        b.legs(width / 2 - leg / 2, depth / 2 - leg / 2, height - thick / 4, leg, frame)
    tall, lean = b.u(0.3, 0.6), b.u(0, 12)
    back_z = leg / 2 - depth / 2
    top = height + tall
    shift = -tall * np.tan(np.radians(lean))
    style = b.pick("solid", "solid", "slats", "rungs", "curved", "cushion")
    if style == "solid":
        b.add(
            box(width, tall, b.u(THIN, 0.07), 0.02),
            b.pick(seat, frame),
            (0, height + tall / 2, back_z + shift / 2),
            (-lean, 0, 0),
        )
    elif style == "cushion":
        size = b.u(0.6, 0.9) * tall
        b.add(box(width * 0.95, size, 0.08, 0.035), seat, (0, top - size / 2, back_z + shift * 0.7), (-lean, 0, 0))
        b.mirrored(
            rod((0, -tall / 2, 0), (0, tall / 2, 0), 0.026),
            frame,
            (width * 0.3, height + tall / 2, back_z + shift / 2),
            (-lean, 0, 0),
        )
    elif style == "curved":
        angle = np.radians(np.linspace(-100, 100, 15))
        reach = np.column_stack((np.sin(angle) * width / 2, 0 * angle, -np.cos(angle) * depth / 2))
        for level in np.linspace(height + tall / 3, top, b.n(2, 4)):
            b.add(tube(reach + np.array((0, level, 0)), 0.028), frame)
        for k in (2, 7, 12):
            b.add(rod(reach[k] + (0, height, 0), reach[k] + (0, top, 0), 0.025), frame)
    else:
        b.mirrored(
            rod((0, -tall / 2, 0), (0, tall / 2, 0), leg / 2),
            frame,
            (width / 2 - leg / 2, height + tall / 2, back_z + shift / 2),
            (-lean, 0, 0),
        )
        b.add(box(width, b.u(0.06, 0.12), THIN), frame, (0, top - 0.04, back_z + shift))
        count = b.n(2, 4)
        for k in range(1, count + 1):
            share = k / (count + 1)
            if style == "slats":
                b.add(
                    box(0.05, tall, THIN),
                    frame,
                    ((share - 0.5) * width, height + tall / 2, back_z + shift / 2),
                    (-lean, 0, 0),
                )
            else:
                b.add(box(width, 0.055, THIN), frame, (0, height + share * tall, back_z + share * shift))
    if b.chance(0.35):
        arm = height + b.u(0.15, 0.22)
        b.mirrored(box(0.055, THIN, depth, 0.02), frame, (width / 2, arm, 0))
        b.mirrored(rod((0, height, 0), (0, arm, 0), 0.026), frame, (width / 2, 0, depth / 2 - 0.05))
        b.mirrored(rod((0, height, 0), (0, arm, 0), 0.026), frame, (width / 2, 0, 0.04 - depth / 2))


def stool(b: Builder) -> None:
    frame, seat = b.colour("wood", "metal", "dark"), b.colour("fabric", "wood", "paint")
    radius, height, thick = b.u(0.18, 0.3), b.u(0.45, 0.9), b.u(0.05, 0.14)
    round_seat = b.chance(0.6)
    part = disc(radius, thick, 0.6) if round_seat else box(2 * radius, thick, b.u(1.2, 2) * radius, thick / 3)
    b.add(part, seat, (0, height, 0))
    if b.chance(0.3):
        b.add(rod((0, 0, 0), (0, height, 0), 0.04), frame)
        b.add(disc(radius * b.u(0.9, 1.2), 0.05), frame, (0, 0.025, 0))
        return
    reach = radius * 0.6
    b.legs(reach, reach, height - thick / 4, b.u(THIN, 0.065), frame)
    if b.chance(0.5) and height > 0.6:
        b.add(ring(reach * 1.3, 0.05), frame, (0, height * 0.35, 0))


def table(b: Builder) -> None:
    top, frame = b.colour("wood", "white", "paint", "dark"), b.colour("wood", "metal", "dark")
    width, depth, height, thick = b.u(0.6, 1.1), b.u(0.45, 0.8), b.u(0.3, 0.75), b.u(THIN, 0.08)
    is_round = b.chance(0.35)
    b.add(
        disc(width / 2, thick, 0.3) if is_round else box(width, thick, depth, b.pick(0.0, 0.02)), top, (0, height, 0)
    )
    depth = width if is_round else depth
    kind = b.pick("legs", "legs", "legs", "pedestal", "panels")
    if kind == "pedestal":
        curve = smooth(((0.16, 0), (0.05, 0.08), (0.04, height / 2), (0.05, height * 0.8), (0.1, height)))
        b.add(lathe(((0, 0), *curve, (0, height))), frame)
        b.add(disc(min(width, depth) * b.u(0.25, 0.38), 0.05, 0.4), frame, (0, 0.025, 0))
    elif kind == "panels":
        b.mirrored(box(0.06, height, depth * 0.7), frame, (width * 0.35, height / 2, 0))
        b.add(box(width * 0.7, b.u(0.06, 0.2), 0.05), frame, (0, height * b.u(0.3, 0.8), 0))
    else:
        inset = 0.35 if is_round else 0.46
        b.legs(width * inset - 0.01, depth * inset - 0.01, height, b.u(0.05, 0.08), frame)
        if b.chance(0.4):
            b.add(box(width * 1.6 * inset, b.u(0.05, 0.1), depth * 1.6 * inset), frame, (0, height - 0.06, 0))
        if b.chance(0.25):
            b.add(box(width * 1.9 * inset, THIN, depth * 1.9 * inset), top, (0, height * 0.3, 0))


def desk(b: Builder) -> None:
    body, front = b.colour("wood", "white", "paint"), b.colour("wood", "white", "fabric")
    width, depth, height = b.u(0.8, 1.1), b.u(0.4, 0.6), b.u(0.5, 0.65)
    b.add(box(width, 0.055, depth), body, (0, height, 0))
    drawer = b.u(0.22, 0.36)
    sides = b.pick((1,), (-1,), (1, -1))
    for side in (1, -1):
        x = side * (width / 2 - drawer / 2)
        if side not in sides:
            b.add(box(0.055, height, depth * 0.95), body, (side * (width / 2 - 0.03), height / 2, 0))
            continue
        b.add(box(drawer, height, depth * 0.95), body, (x, height / 2, 0))
        count = b.n(2, 4)
        for k in range(count):
            y = height * (k + 0.5) / count
            b.add(box(drawer * 0.88, height / count * 0.85, 0.05), front, (x, y, depth / 2 - 0.02))
            b.handle(drawer * 0.4, (x, y, depth / 2 + 0.02))
    if b.chance(0.6):
        b.add(box(width * 0.95, height * b.u(0.3, 0.8), 0.05), body, (0, height * 0.6, 0.05 - depth / 2))


def shelf(b: Builder) -> None:
    body = b.colour("wood", "white", "metal", "paint")
    width, depth, height, thick = b.u(0.35, 1.0), b.u(0.2, 0.4), b.u(0.5, 1.05), b.u(THIN, 0.06)
    b.mirrored(box(thick, height, depth), body, (width / 2, height / 2, 0))
    count = b.n(2, 5)
    levels = np.linspace(thick / 2, height - thick / 2, count + 1)
    for level in levels:
        b.add(box(width, thick, depth), body, (0, level, 0))
    if b.chance(0.7):
        b.add(box(width, height, THIN), body, (0, height / 2, THIN / 2 - depth / 2))
    for level in levels[:-1]:
        gap = (levels[1] - levels[0]) - thick
        x = thick / 2 - width / 2
        while gap > 0.08 and b.chance(0.75):
            block = b.u(0.05, 0.16)
            x += b.u(0, 0.12)
            if x + block > width / 2 - thick:
                break
            tall = gap * b.u(0.4, 0.9)
            b.add(
                box(block, tall, depth * b.u(0.5, 0.85)),
                b.colour("paint", "fabric"),
                (x + block / 2, level + thick / 2 + tall / 2, 0),
            )
            x += block


def cabinet(b: Builder) -> None:
    body, front = b.colour("wood", "white", "paint"), b.colour("wood", "white", "paint", "fabric")
    width, depth, height = b.u(0.35, 1.0), b.u(0.25, 0.5), b.u(0.35, 1.0)
    lift = b.pick(0.0, b.u(0.05, 0.2))
    if lift:
        b.legs(width / 2 - 0.04, depth / 2 - 0.04, lift + 0.02, b.u(0.05, 0.07), b.colour("wood", "metal", "dark"))
    b.add(box(width, height, depth, b.pick(0.0, 0.02)), body, (0, lift + height / 2, 0))
    columns, rows = b.n(1, 3), b.n(1, 4)
    gap = b.u(0.02, 0.04)
    for i in range(columns):
        for j in range(rows):
            cell_x, cell_y = width / columns, height / rows
            at = ((i + 0.5) * cell_x - width / 2, lift + (j + 0.5) * cell_y)
            b.add(box(cell_x - gap, cell_y - gap, 0.05, 0.01), front, (*at, depth / 2))
            b.handle(min(cell_x * 0.4, 0.15), (at[0], at[1] + cell_y * b.pick(0, 0.25), depth / 2 + 0.04))
    if b.chance(0.3):
        b.add(box(width + 0.06, 0.05, depth + 0.06), body, (0, lift + height, 0.01))


def sofa(b: Builder) -> None:
    cloth, second = b.colour("fabric", "paint", "clay"), b.colour("fabric", "paint", "white")
    seats = b.n(1, 4)
    width, depth, height = 0.3 + 0.22 * seats, b.u(0.4, 0.55), b.u(0.18, 0.26)
    lift, arm, back = b.u(0.05, 0.1), b.u(0.07, 0.14), b.u(0.35, 0.5)
    soft = b.u(0.01, 0.06)
    b.legs(width / 2 - 0.05, depth / 2 - 0.05, lift + 0.02, 0.055, b.colour("wood", "metal", "dark"))
    b.add(box(width, height - 0.04, depth, soft), cloth, (0, lift + height / 2, 0))
    b.add(box(width, back, b.u(0.1, 0.16), soft), cloth, (0, lift + back / 2, 0.06 - depth / 2), (b.u(-8, 0), 0, 0))
    if b.chance(0.85):
        tall = height + b.u(0.05, 0.18)
        if b.chance(0.3):
            b.mirrored(rod((0, 0, -depth / 2), (0, 0, depth / 2), arm * 0.7), cloth, (width / 2, lift + tall, 0))
        b.mirrored(box(arm, tall, depth, soft), cloth, (width / 2, lift + tall / 2, 0))
    inside = width - arm
    for k in range(seats):
        x = ((k + 0.5) / seats - 0.5) * inside
        b.add(box(inside / seats * 0.97, 0.1, depth * 0.8, 0.035), second, (x, lift + height + 0.02, 0.05))
        if b.chance(0.6):
            b.add(
                box(inside / seats * 0.9, 0.22, 0.1, 0.04),
                second,
                (x, lift + height + 0.17, 0.17 - depth / 2),
                (-12, 0, 0),
            )
    if b.chance(0.2) and seats > 1:
        b.add(
            box(width / seats, height, b.u(0.3, 0.5), soft),
            cloth,
            (b.pick(1, -1) * (width / 2 - width / seats / 2), lift + height / 2, depth * 0.8),
        )


def bed(b: Builder) -> None:
    frame, sheet, cover = (
        b.colour("wood", "metal", "white", "fabric"),
        b.colour("white", "fabric"),
        b.colour("fabric", "paint"),
    )
    width, length, lift = b.pick(b.u(0.42, 0.55), b.u(0.65, 0.85)), b.u(0.95, 1.05), b.u(0.1, 0.2)
    b.add(box(width + 0.06, 0.1, length), frame, (0, lift, 0))
    b.legs(width / 2, length / 2 - 0.04, lift, 0.06, frame)
    mattress = b.u(0.1, 0.16)
    top = lift + 0.05 + mattress
    b.add(box(width, mattress, length * 0.97, 0.04), sheet, (0, lift + 0.05 + mattress / 2, 0))
    b.add(box(width + 0.08, b.u(0.3, 0.6), 0.06, 0.015), frame, (0, lift + 0.15, -length / 2 - 0.02))
    if b.chance(0.5):
        b.add(box(width + 0.08, b.u(0.15, 0.3), 0.06, 0.015), frame, (0, lift + 0.05, length / 2 + 0.02))
    cover_length = length * b.u(0.4, 0.7)
    b.add(box(width + 0.05, 0.09, cover_length, 0.03), cover, (0, top, length * 0.485 - cover_length / 2))
    pillows = 1 if width < 0.6 else 2
    for k in range(pillows):
        b.add(
            box(width / pillows * 0.8, 0.09, 0.18, 0.04),
            b.pick(sheet, cover),
            (((k + 0.5) / pillows - 0.5) * width, top + 0.03, 0.14 - length / 2),
            (-10, 0, 0),
        )


def lamp(b: Builder) -> None:
    stand, shade = b.colour("metal", "wood", "dark", "paint"), b.colour("white", "fabric", "paint")
    floor = b.chance(0.5)
    height = b.u(0.75, 1.0) if floor else b.u(0.45, 0.7)
    base = b.u(0.12, 0.2)
    if floor or b.chance(0.4):
        b.add(disc(base, 0.055, 0.4), stand, (0, 0.0275, 0))
        b.add(rod((0, 0, 0), (0, height, 0), b.u(0.025, 0.035)), stand)
    else:
        belly = b.u(0.1, 0.2)
        curve = smooth(((base * 0.7, 0), (belly, height * b.u(0.2, 0.4)), (0.05, height * 0.7), (0.03, height)))
        b.add(lathe(((0, 0), *curve, (0, height))), stand)
    low, tall = b.u(0.16, 0.28), b.u(0.18, 0.3)
    high = low * b.u(0.4, 1.0)
    if b.chance(0.25):
        b.add(ball(2 * low * 0.8), shade, (0, height, 0))
    else:
        b.add(lathe(((0, 0), (low, 0), (high, tall), (0, tall))), shade, (0, height - tall * 0.4, 0))


def desk_lamp(b: Builder) -> None:
    colour, light = b.colour("paint", "metal", "dark"), b.colour("white")
    elbow, head = np.array((0, b.u(0.4, 0.6), b.u(-0.25, -0.05))), np.array((0, b.u(0.6, 0.85), b.u(0.15, 0.35)))
    b.add(disc(b.u(0.15, 0.22), 0.06, 0.4), colour, (0, 0.03, 0))
    b.add(rod((0, 0.03, 0), elbow, 0.026), colour)
    b.add(rod(elbow, head, 0.026), colour)
    b.add(ball(0.08), colour, elbow)
    size = b.u(0.1, 0.16)
    turn = (b.u(0, 35), 0, 0)
    b.add(lathe(((0, -0.1), (size, -0.1), (size * 0.5, 0.08), (0, 0.1))), colour, head, turn)
    b.add(
        disc(size * 0.7, 0.05), light, head + Rotation.from_euler("xyz", turn, degrees=True).apply((0, -0.11, 0)), turn
    )


# --- vessels and kitchen ---------------------------------------------------------------------------------------------


def vase(b: Builder) -> None:
    height = b.u(0.6, 1.0)
    foot, belly, neck, lip = b.u(0.1, 0.25), b.u(0.18, 0.4), b.u(0.1, 0.2), b.u(0.12, 0.3)
    curve = smooth(((foot, 0), (belly, height * b.u(0.25, 0.5)), (neck, height * b.u(0.7, 0.85)), (lip, height)))
    colour = b.colour("clay", "paint", "white", "dark")
    b.add(lathe(hollow(curve, 0.055)), colour)
    if b.chance(0.3):
        arc = np.radians(np.linspace(-80, 80, 9))
        path = np.column_stack((0.12 * np.cos(arc), 0.18 * np.sin(arc), 0 * arc))
        b.add(tube(path + np.array((belly * 0.85, height * 0.62, 0)), 0.028), colour)
        b.add(tube((path + np.array((belly * 0.85, height * 0.62, 0))) * (-1, 1, 1), 0.028), colour)


def bottle(b: Builder) -> None:
    body, cap = b.colour("paint", "leaf", "white", "clay"), b.colour("paint", "dark", "metal", "white")
    radius, shoulder, neck = b.u(0.13, 0.22), b.u(0.5, 0.7), b.u(0.045, 0.08)
    curve = (
        (radius * 0.9, 0),
        (radius, 0.04),
        (radius, shoulder),
        *smooth(((radius, shoulder), (neck, shoulder + b.u(0.1, 0.2))), 5)[1:, :],
        (neck, 0.92),
    )
    b.add(lathe(((0, 0), *curve, (0, 0.92))), body)
    b.add(disc(neck * 1.25, b.u(0.08, 0.14)), cap, (0, 0.94, 0))
    if b.chance(0.6):
        b.add(disc(radius + 0.012, b.u(0.15, 0.3), 0.02), b.colour("white", "paint"), (0, shoulder * b.u(0.4, 0.6), 0))


def cup(b: Builder) -> None:
    colour = b.colour("white", "paint", "clay", "fabric")
    height, foot, lip = b.u(0.5, 0.95), b.u(0.2, 0.34), b.u(0.3, 0.4)
    middle = (foot + lip) / 2 * b.u(0.9, 1.15)
    b.add(lathe(hollow(smooth(((foot, 0), (middle, height / 2), (lip, height))), 0.06)), colour)
    if b.chance(0.65):
        reach, tall = b.u(0.14, 0.22), height * b.u(0.24, 0.36)
        arc = np.radians(np.linspace(-95, 95, 11))
        centre = np.array((middle * 0.95, height * b.u(0.45, 0.55), 0))
        path = centre + np.column_stack((reach * np.cos(arc), tall * np.sin(arc), 0 * arc))
        b.add(tube(path, b.u(0.03, 0.05)), colour)
    if b.chance(0.3):
        b.add(disc(lip * 1.5, 0.055, 0.5), colour, (0, 0.0, 0))


def bowl(b: Builder) -> None:
    height, lip = b.u(0.2, 0.5), 0.5
    curve = smooth(((b.u(0.12, 0.25), 0), (lip * b.u(0.65, 0.9), height * 0.4), (lip, height)))
    b.add(lathe(hollow(curve, 0.06), 32), b.colour("white", "paint", "clay", "wood"))
    for _ in range(b.pick(0, 0, b.n(2, 6))):
        angle, reach = b.u(0, 2 * np.pi), b.u(0, 0.22)
        b.add(
            ball(b.u(0.18, 0.26)),
            b.colour("paint", "leaf"),
            (reach * np.cos(angle), height * 0.7, reach * np.sin(angle)),
        )


def wine_glass(b: Builder) -> None:
    bowl_radius, height = b.u(0.16, 0.28), b.u(0.3, 0.5)
    stem = 1.0 - height
    curve = smooth(((0.06, 0), (bowl_radius, height * b.u(0.35, 0.6)), (bowl_radius * b.u(0.75, 1.15), height)))
    colour = b.colour("white", "metal", "paint")
    b.add(lathe(hollow(curve, 0.048)), colour, (0, stem, 0))
    b.add(
        lathe(((0, 0), (b.u(0.16, 0.22), 0), (0.16, 0.045), (0.03, 0.09), (0.027, stem + 0.01), (0, stem + 0.02))),
        colour,
    )


def teapot(b: Builder) -> None:
    colour, lid = b.colour("white", "paint", "metal", "clay"), b.colour("paint", "dark", "white")
    radius, height = b.u(0.25, 0.33), b.u(0.35, 0.5)
    curve = smooth(((radius * 0.7, 0), (radius, height * 0.4), (radius * 0.5, height)))
    b.add(lathe(((0, 0), *curve, (0, height))), colour)
    b.add(lathe(((0, 0), (radius * 0.55, 0), (radius * 0.35, 0.06), (0, 0.08))), lid, (0, height - 0.01, 0))
    b.add(ball(0.08), lid, (0, height + 0.1, 0))
    spout = np.array(
        ((radius * 0.8, height * 0.3, 0), (radius * 1.35, height * 0.5, 0), (radius * 1.7, height * 0.95, 0))
    )
    b.add(tube(spout, (0.07, 0.05, 0.035)), colour)
    arc = np.radians(np.linspace(-100, 100, 11))
    if b.chance(0.6):
        path = np.column_stack(
            (-0.16 * np.cos(arc) - radius * 0.85, height * 0.33 * np.sin(arc) + height * 0.5, 0 * arc)
        )
    else:
        path = np.column_stack((radius * 0.8 * np.sin(arc), 0.25 * np.cos(arc) + height * 0.95, 0 * arc))
    b.add(tube(path, 0.03), b.pick(colour, lid))


def pan(b: Builder) -> None:
    colour, grip = b.colour("metal", "dark", "paint"), b.colour("dark", "wood", "paint")
    radius, height = b.u(0.28, 0.38), b.u(0.12, 0.42)
    b.add(lathe(hollow(((radius * b.u(0.8, 1), 0), (radius, height)), 0.05), 32), colour)
    if height > 0.25:
        b.mirrored(box(0.16, 0.05, 0.16, 0.02), grip, (radius + 0.04, height * 0.85, 0))
        if b.chance(0.6):
            b.add(lathe(((0, 0), (radius * 1.02, 0), (radius * 0.9, 0.05), (0, 0.1)), 32), colour, (0, height, 0))
            b.add(disc(0.05, 0.08), grip, (0, height + 0.12, 0))
    else:
        b.add(
            rod((radius * 0.95, height * 0.8, 0), (radius + b.u(0.4, 0.6), height * b.u(0.9, 1.3), 0), 0.03, 0.036),
            grip,
        )


def appliance(b: Builder) -> None:
    body, detail = b.colour("white", "metal", "dark", "paint"), b.colour("dark", "metal")
    width, height, depth = b.u(0.45, 1.0), b.u(0.4, 1.0), b.u(0.4, 0.7)
    front = depth / 2
    b.add(box(width, height, depth, b.u(0.0, 0.06)), body, (0, height / 2, 0))
    panel = height * b.u(0.12, 0.22)
    kind = b.pick("window", "drum", "doors", "hob")
    clear = height - panel
    b.add(box(width * 0.92, panel * 0.6, 0.05), b.pick(detail, body), (0, height - panel / 2, front))
    for k in range(b.n(2, 5)):
        b.add(disc(0.035, 0.07), detail, ((k - 1.5) * 0.11 * width, height - panel / 2, front + 0.03), (90, 0, 0))
    if kind == "window":
        b.add(box(width * 0.8, clear * 0.7, 0.05, 0.015), detail, (0, clear * 0.5, front))
        b.add(
            rod((-width * 0.35, 0, 0), (width * 0.35, 0, 0), 0.026), b.colour("metal"), (0, clear * 0.92, front + 0.05)
        )
    elif kind == "drum":
        size = min(width, clear) * 0.36
        b.add(ring(size, 0.08), b.colour("metal", "white"), (0, clear * 0.5, front), (90, 0, 0))
        b.add(disc(size, 0.06), detail, (0, clear * 0.5, front), (90, 0, 0))
    elif kind == "doors":
        cut = b.u(0.3, 0.7)
        for low, high in ((0.02, cut), (cut + 0.03, 1.0)):
            b.add(box(width * 0.96, clear * (high - low), 0.06, 0.02), body, (0, clear * (low + high) / 2, front))
            b.add(
                box(0.05, clear * (high - low) * 0.5, 0.06, 0.02),
                detail,
                (-width * 0.4, clear * (low + high) / 2, front + 0.05),
            )
    else:
        b.add(box(width * 0.8, clear * 0.6, 0.05), detail, (0, clear * 0.5, front))
        for x in (-0.25, 0.25):
            for z in (-0.25, 0.25):
                b.add(disc(min(width, depth) * 0.16, 0.05), detail, (x * width, height + 0.01, z * depth))


def cake(b: Builder) -> None:
    layers = b.n(1, 3)
    y = 0.0
    for k in range(layers):
        radius, tall = 0.48 - 0.13 * k, b.u(0.16, 0.28)
        b.add(disc(radius, tall, b.u(0.1, 0.5)), b.colour("clay", "white", "fabric"), (0, y + tall / 2, 0))
        for angle in np.linspace(0, 2 * np.pi, b.pick(1, 9), endpoint=False)[1:]:
            b.add(
                ball(0.08),
                b.pick(*list(b.parts)),
                ((radius - 0.05) * np.cos(angle), y + tall, (radius - 0.05) * np.sin(angle)),
            )
        y += tall
    b.add(ball(0.12), b.colour("paint"), (0, y + 0.04, 0))


def burger(b: Builder) -> None:
    bun = b.colour("clay", "wood")
    y = 0.0
    for part, colour, tall in (
        (disc(0.45, 0.14, 0.8), bun, 0.12),
        (disc(0.47, 0.1, 0.6), b.colour("dark", "clay"), 0.09),
        (disc(0.49, 0.05, 0.8), b.colour("leaf"), 0.045),
        (disc(0.44, 0.05, 0.8), b.colour("paint"), 0.05),
    ):
        b.add(part, colour, (0, y + tall / 2, 0))
        y += tall
    b.add(superquadric(0.92, b.u(0.3, 0.5), 0.92, 0.8), bun, (0, y + 0.06, 0))


def fruit(b: Builder) -> None:
    kind = b.pick("apple", "banana", "pear", "bunch")
    if kind == "apple":
        turn = np.linspace(-np.pi / 2, np.pi / 2, 15)
        # a circle with dimples at both ends of the axis
        height = 0.45 + 0.43 * np.sin(turn) * (1 - 0.35 * np.abs(np.sin(turn)) ** 6)
        b.add(lathe(np.column_stack((0.48 * np.cos(turn), height))), b.colour("paint"))
        b.add(rod((0, 0.72, 0), (0.06, 0.98, 0), 0.028), b.colour("wood"))
        b.add(superquadric(0.25, 0.05, 0.13), b.colour("leaf"), (0.14, 0.93, 0), (0, 0, 20))
    elif kind == "pear":
        curve = smooth(((0.15, 0), (0.36, 0.25), (0.16, 0.7), (0.08, 0.85)))
        b.add(lathe(((0, 0.02), *curve, (0, 0.87))), b.colour("leaf", "paint"))
        b.add(rod((0, 0.8, 0), (0.04, 1.0, 0), 0.028), b.colour("wood"))
    elif kind == "banana":
        arc = np.radians(np.linspace(200, 340, 15))
        radius = 0.11 * np.sin(np.linspace(0.25, np.pi - 0.25, 15)) ** 0.6
        b.add(tube(np.column_stack((0.5 * np.cos(arc), 0.5 * np.sin(arc), 0 * arc)), radius), (235, 205, 60, 255))
    else:
        colour = b.colour("paint")
        for k in range(b.n(8, 14)):
            b.add(ball(0.24), colour, (b.u(-1, 1) * 0.05 * (1 + k / 2.5), k * 0.07, b.u(-1, 1) * 0.05 * (1 + k / 2.5)))


# --- electronics and tools -------------------------------------------------------------------------------------------


def screen(b: Builder) -> None:
    body = b.colour("dark", "metal", "white")
    width, height = b.u(0.8, 1.0), b.u(0.45, 0.65)
    lift = b.u(0.08, 0.22)
    b.add(box(width, height, 0.06, 0.015), body, (0, lift + height / 2, 0))
    b.add(box(width * 0.93, height * 0.9, 0.05), b.colour("dark", "paint"), (0, lift + height / 2, 0.012))
    b.add(box(b.u(0.06, 0.15), lift + 0.1, 0.055), body, (0, (lift + 0.1) / 2, -0.03))
    b.add(box(width * b.u(0.3, 0.55), 0.05, b.u(0.18, 0.28), 0.015), body, (0, 0.025, 0))


def laptop(b: Builder) -> None:
    body, keys, image = b.colour("metal", "dark", "white"), b.colour("dark", "white"), b.colour("paint", "dark")
    width, depth, angle = 1.0, b.u(0.6, 0.72), b.u(5, 30)
    b.add(box(width, 0.055, depth, 0.015), body, (0, 0.0275, 0))
    b.add(box(width * 0.85, 0.05, depth * 0.45), keys, (0, 0.04, -depth * 0.15))
    b.add(box(width * 0.25, 0.05, depth * 0.22), keys, (0, 0.036, depth * 0.3))
    tilt = Rotation.from_euler("x", -angle, degrees=True)
    hinge = np.array((0, 0.04, -depth / 2))
    b.add(box(width, depth, 0.05, 0.015), body, hinge + tilt.apply((0, depth / 2, 0)), (-angle, 0, 0))
    b.add(box(width * 0.9, depth * 0.85, 0.05), image, hinge + tilt.apply((0, depth / 2, 0.01)), (-angle, 0, 0))


def camera(b: Builder) -> None:
    body, lens = b.colour("dark", "metal", "paint"), b.colour("dark")
    width, height, depth = b.u(0.8, 1.0), b.u(0.45, 0.65), b.u(0.25, 0.35)
    b.add(box(width, height, depth, b.u(0.03, 0.1)), body, (0, height / 2, 0))
    x, radius = b.u(-0.1, 0.1), height * b.u(0.28, 0.42)
    z = depth / 2
    for _ in range(b.n(1, 3)):
        length = b.u(0.08, 0.2)
        b.add(disc(radius, length), lens, (x, height * 0.47, z + length / 2), (90, 0, 0))
        z += length
        radius *= b.u(0.8, 0.98)
    b.add(disc(radius * 0.8, 0.05), b.colour("metal"), (x, height * 0.47, z), (90, 0, 0))
    b.add(disc(0.06, 0.1), b.colour("metal", "paint"), (width * 0.35, height + 0.02, 0))
    if b.chance(0.6):
        b.add(box(width * 0.3, 0.16, depth * 0.7, 0.04), body, (x, height + 0.04, 0))


def speaker(b: Builder) -> None:
    body, cone = b.colour("dark", "wood", "white"), b.colour("metal", "dark", "paint")
    width, height, depth = b.u(0.4, 0.6), 1.0, b.u(0.35, 0.55)
    b.add(box(width, height, depth, b.u(0, 0.05)), body, (0, height / 2, 0))
    y = 0.03
    for _ in range(b.n(2, 3)):
        radius = min(width * 0.42, (height - y) / 2 - 0.02) * b.u(0.6, 0.95)
        if radius < 0.06:
            break
        b.add(ring(radius, 0.06), cone, (0, y + radius + 0.03, depth / 2), (90, 0, 0))
        b.add(ball(radius), cone, (0, y + radius + 0.03, depth / 2 - radius * 0.2))
        y += 2 * radius + 0.07


def clock(b: Builder) -> None:
    body, face, hand = b.colour("paint", "wood", "metal"), b.colour("white"), b.colour("dark", "paint")
    radius, depth = 0.42, b.u(0.1, 0.25)
    y = radius + 0.08
    b.add(disc(radius, depth, 0.4), body, (0, y, 0), (90, 0, 0))
    b.add(disc(radius * 0.85, 0.06), face, (0, y, depth / 2), (90, 0, 0))
    front = depth / 2 + 0.04
    for length in (0.5, 0.75):
        angle = b.u(0, 2 * np.pi)
        tip = radius * length * np.array((np.cos(angle), np.sin(angle), 0))
        b.add(rod((0, y, front), tip + np.array((0, y, front)), 0.025), hand)
    if b.chance(0.6):
        b.mirrored(rod((0, 0, 0), (-0.06, 0.14, 0), 0.035), b.colour("metal", "dark"), (radius * 0.65, 0, 0))
        b.mirrored(
            superquadric(0.28, 0.16, 0.2), b.colour("metal", "paint"), (radius * 0.6, y + radius * 0.9, 0), (0, 0, -35)
        )


def hammer(b: Builder) -> None:
    grip, head = b.colour("wood", "paint", "dark"), b.colour("metal", "dark")
    radius = b.u(0.03, 0.05)
    b.add(rod((0, 0, 0), (0, 0.92, 0), radius * 1.2, radius), grip)
    wide, thick = b.u(0.2, 0.32), b.u(0.09, 0.16)
    kind = b.pick("hammer", "axe", "mallet")
    if kind == "mallet":
        b.add(disc(thick, 2 * wide), b.pick(head, grip), (0, 0.9, 0), (0, 0, 90))
    elif kind == "axe":
        blade = ((0.03, -0.08), (wide + 0.05, -0.18), (wide + 0.09, 0), (wide + 0.05, 0.18), (0.03, 0.08))
        b.add(prism(blade, 0.05), head, (0, 0.85, 0))
        b.add(box(0.14, 0.15, 0.1, 0.02), head, (0, 0.85, 0))
    else:
        b.add(box(wide, thick, thick, 0.03), head, (0, 0.9, 0))
        b.add(disc(thick * 0.65, 0.1), head, (wide / 2 + 0.03, 0.9, 0), (0, 0, 90))
        b.add(rod((-wide / 2, 0.9, 0), (-wide / 2 - 0.16, 0.82, 0), thick * 0.45, 0.026), head)


def tool(b: Builder) -> None:
    grip, steel = b.colour("paint", "wood", "dark"), b.colour("metal")
    length = b.u(0.35, 0.5)
    curve = smooth(((0.05, 0), (0.08, length * 0.3), (0.06, length * 0.7), (0.075, length)))
    b.add(lathe(((0, 0), *curve, (0, length))), grip)
    kind = b.pick("screwdriver", "brush", "spoon", "racket")
    b.add(rod((0, length, 0), (0, 0.8, 0), 0.028), steel)
    if kind == "screwdriver":
        b.add(rod((0, 0.78, 0), (0, 1.0, 0), 0.03, 0.025), steel)
    elif kind == "brush":
        b.add(box(0.26, 0.06, 0.09), steel, (0, 0.8, 0))
        b.add(box(0.25, 0.2, 0.08, 0.02), b.colour("dark", "clay"), (0, 0.92, 0))
    elif kind == "spoon":
        b.add(superquadric(b.u(0.16, 0.28), 0.3, b.u(0.06, 0.1)), steel, (0, 0.9, 0))
    else:
        b.add(ring(0.2, 0.055), steel, (0, 1.0, 0), (90, 0, 0))
        b.add(disc(0.2, 0.05), b.colour("white", "paint"), (0, 1.0, 0), (90, 0, 0))


def guitar(b: Builder) -> None:
    body, neck, dark = b.colour("wood", "paint"), b.colour("wood"), b.colour("dark")
    wide, waist, deep = b.u(0.18, 0.22), b.u(0.11, 0.15), b.u(0.07, 0.12)
    height = np.linspace(0, 0.46, 14)
    half = PchipInterpolator((0, 0.06, 0.14, 0.28, 0.38, 0.46), (0.03, wide * 0.85, wide, waist, wide * 0.8, 0.03))(
        height
    )
    outline = np.concatenate((np.column_stack((half, height)), np.column_stack((-half, height))[::-1]))
    b.add(prism(outline, deep), body)
    b.add(disc(0.055, 0.05), dark, (0, 0.29, deep / 2), (90, 0, 0))
    b.add(box(0.06, 0.55, 0.05), neck, (0, 0.62, deep / 2 - 0.01))
    b.add(box(0.09, 0.13, 0.05), dark, (0, 0.93, deep / 2 - 0.02), (-8, 0, 0))
    b.add(box(0.12, 0.05, 0.05), dark, (0, 0.13, deep / 2))


def light_bulb(b: Builder) -> None:
    radius = b.u(0.26, 0.36)
    curve = smooth(((0.12, 0.25), (0.15, 0.35), (radius, 0.65), (radius * 0.75, 0.88), (0.05, 1.0)))
    b.add(lathe(((0, 0.25), *curve, (0, 1.0))), b.colour("white", "paint"))
    b.add(disc(0.13, 0.25), b.colour("metal"), (0, 0.15, 0))
    b.add(disc(0.06, 0.06), b.colour("dark"), (0, 0.02, 0))


def headphones(b: Builder) -> None:
    band, pad = b.colour("dark", "metal", "paint", "white"), b.colour("dark", "fabric", "paint")
    arc = np.radians(np.linspace(-5, 185, 19))
    b.add(tube(np.column_stack((0.4 * np.cos(arc), 0.5 * np.sin(arc) + 0.3, 0 * arc)), 0.035), band)
    size = b.u(0.13, 0.2)
    b.mirrored(disc(size, 0.12, 0.6), pad, (0.37, 0.22, 0), (0, 0, 90))
    b.mirrored(disc(size * 0.85, 0.1), band, (0.43, 0.22, 0), (0, 0, 90))


# --- vehicles --------------------------------------------------------------------------------------------------------


def wheels(b: Builder, width: float, positions, radius: float, thick: float) -> None:
    tyre, hub = b.colour("dark"), b.colour("metal", "white")
    for z in positions:
        b.mirrored(disc(radius, thick, 0.4), tyre, (width / 2, radius, z), (0, 0, 90))
        b.mirrored(disc(radius * 0.5, thick + 0.02), hub, (width / 2, radius, z), (0, 0, 90))


def car(b: Builder) -> None:
    paint, glass = b.colour("paint", "white", "dark", "metal"), b.colour("dark")
    width, body, cabin = b.u(0.36, 0.46), b.u(0.14, 0.2), b.u(0.11, 0.17)
    radius = b.u(0.08, 0.11)
    lift = radius * b.u(0.8, 1.2)
    b.add(box(width, body, 1.0, b.u(0.03, 0.09)), paint, (0, lift + body / 2, 0))
    length, back = b.u(0.4, 0.65), b.u(-0.15, 0.02)
    roof = length * b.u(0.55, 0.85)
    base = lift + body - 0.02
    # the cabin seen from the side: (z, y), extruded across the car
    side = np.array(
        (
            (back - length / 2, base),
            (back + length / 2, base),
            (back + roof / 2 - 0.02, base + cabin),
            (back - roof / 2, base + cabin),
        )
    )
    b.add(prism(side * (-1, 1), width * 0.86), glass, (0, 0, 0), (0, 90, 0))
    b.add(box(width * 0.84, 0.05, roof * 0.98, 0.015), paint, (0, base + cabin, back))
    wheels(b, width, (b.u(0.27, 0.33), b.u(-0.33, -0.27)), radius, 0.09)
    b.mirrored(superquadric(0.1, 0.07, 0.06), b.colour("white"), (width * 0.33, lift + body * 0.55, 0.49))
    b.mirrored(box(0.09, 0.05, 0.05), (170, 20, 20, 255), (width * 0.33, lift + body * 0.6, -0.49))
    if b.chance(0.2):
        b.add(box(width * 0.9, 0.05, 0.1), paint, (0, base + 0.08, -0.45))
        b.mirrored(box(0.05, 0.1, 0.05), paint, (width * 0.3, base + 0.03, -0.45))


def truck(b: Builder) -> None:
    cabin, cargo, dark = b.colour("paint", "white"), b.colour("white", "paint", "metal", "wood"), b.colour("dark")
    width, radius = b.u(0.28, 0.36), b.u(0.07, 0.09)
    cab = b.u(0.2, 0.28)
    tall = b.u(0.28, 0.4)
    b.add(box(width * 0.8, 0.06, 0.98), dark, (0, radius + 0.03, 0))
    b.add(box(width, tall * 0.85, cab, 0.03), cabin, (0, radius + 0.04 + tall * 0.42, 0.49 - cab / 2))
    b.add(box(width * 0.85, tall * 0.3, 0.05), dark, (0, radius + tall * 0.65, 0.475))
    load = 0.94 - cab
    if b.chance(0.6):
        b.add(box(width * 1.02, tall, load, 0.015), cargo, (0, radius + 0.06 + tall / 2, load / 2 - 0.49))
    elif b.chance(0.5):
        b.add(
            superquadric(load, tall, tall, 0.5, 0.7), cargo, (0, radius + 0.06 + tall / 2, load / 2 - 0.49), (0, 90, 0)
        )
    else:
        b.add(box(width, 0.05, load), cargo, (0, radius + 0.08, load / 2 - 0.49))
        b.mirrored(box(0.05, 0.14, load), cargo, (width / 2 - 0.025, radius + 0.14, load / 2 - 0.49))
        b.add(box(width, 0.14, 0.05), cargo, (0, radius + 0.14, -0.465))
    wheels(b, width, (0.36, -0.2, -0.38), radius, 0.08)


def train(b: Builder) -> None:
    paint, second, dark = b.colour("paint"), b.colour("paint", "dark"), b.colour("dark")
    radius, boiler = 0.09, b.u(0.12, 0.17)
    b.add(box(0.36, 0.09, 1.0, 0.02), second, (0, 0.15, 0))
    b.add(disc(boiler, 0.6), paint, (0, 0.19 + boiler, 0.18), (90, 0, 0))
    b.add(box(0.36, 0.36, 0.32, 0.02), paint, (0, 0.37, -0.31))
    b.add(box(0.42, 0.055, 0.4, 0.02), second, (0, 0.57, -0.31))
    top = 0.19 + 2 * boiler
    b.add(rod((0, top - 0.05, 0.36), (0, top + b.u(0.12, 0.2), 0.36), 0.04, b.u(0.05, 0.09)), dark)
    b.add(ball(0.14), second, (0, top, 0.1))
    wheels(b, 0.34, (0.33, 0.05, -0.3), radius, 0.07)


def airplane(b: Builder) -> None:
    body, wing, glass = b.colour("white", "paint", "metal"), b.colour("white", "paint", "metal"), b.colour("dark")
    radius = b.u(0.07, 0.11)
    z = np.linspace(-0.5, 0.5, 15)
    b.add(
        tube(
            np.column_stack((0 * z, 0.05 * np.maximum(-z - 0.2, 0), z)),
            radius * np.interp(z, (-0.5, -0.15, 0.3, 0.42, 0.5), (0.3, 1, 1, 0.75, 0.25)),
        ),
        body,
    )
    span, chord, sweep = b.u(0.4, 0.52), b.u(0.14, 0.24), b.u(0, 0.25)
    tip = chord * b.u(0.4, 0.9)
    y = b.pick(-radius * 0.5, 0.0, radius * 0.9)
    # half a wing seen from above: (x, z), laid flat
    outline = np.array(((0, 0), (span, -sweep - tip * 0.1), (span, -sweep - tip), (0, -chord)))
    for side in (1, -1):
        b.add(prism(outline * (side, 1), 0.05), wing, (0, y, 0.15), (90, 0, 0))
        b.add(prism(outline * (0.42 * side, 0.42), 0.045), wing, (0, 0.03, -0.36), (90, 0, 0))
    fin = np.array(((-0.5, 0), (-0.32, 0), (-0.45, b.u(0.18, 0.26)), (-0.53, 0.22)))
    b.add(prism(fin * (-1, 1), 0.048), wing, (0, 0.03, 0), (0, 90, 0))
    b.add(superquadric(radius * 1.2, radius, 0.2), glass, (0, radius * 0.75, 0.3))
    if b.chance(0.5):
        b.mirrored(disc(b.u(0.045, 0.06), 0.18), b.colour("metal", "dark"), (span * 0.4, y - 0.06, 0.02), (90, 0, 0))
    else:
        b.add(box(0.4, 0.06, 0.045), b.colour("dark", "wood"), (0, 0, 0.51), (0, 0, b.u(0, 180)))


def boat(b: Builder) -> None:
    hull, deck = b.colour("paint", "white", "wood"), b.colour("wood", "white")
    width, height = b.u(0.3, 0.42), b.u(0.16, 0.26)
    z = np.linspace(-0.5, 0.5, 15)
    half = np.interp(z, (-0.5, -0.3, 0.1, 0.35, 0.5), (0.8, 1, 1, 0.6, 0.06)) * width / 2
    outline = np.concatenate((np.column_stack((half, -z))[::-1], np.column_stack((-half, -z))))
    vertices, faces = prism(outline, height)
    # the lower rim is narrower than the deck
    vertices = vertices * np.where(vertices[:, 2:] > 0, (0.6, 0.85, 1.0), 1.0)
    b.add((vertices, faces), hull, (0, height / 2, 0), (90, 0, 0))
    if b.chance(0.5):
        b.add(rod((0, height, 0), (0, 0.95, 0), 0.026), deck)
        sail = np.array(((-0.45, 0.28), (-0.03, 0.28), (-0.03, 0.93)))
        b.add(prism(sail * (-1, 1), 0.048), b.colour("white", "paint"), (0, 0, 0.0), (0, -90, 0))
        if b.chance(0.7):
            jib = np.array(((0.03, 0.28), (0.4, 0.28), (0.03, 0.8)))
            b.add(prism(jib * (-1, 1), 0.048), b.colour("white", "paint"), (0, 0, 0.0), (0, -90, 0))
    else:
        b.add(box(width * 0.65, 0.16, 0.3, 0.03), deck, (0, height + 0.06, -0.1))
        b.add(box(width * 0.5, 0.12, 0.18, 0.03), b.colour("white", "paint"), (0, height + 0.18, -0.12))
        if b.chance(0.5):
            b.add(disc(0.06, 0.2), b.colour("paint", "dark"), (0, height + 0.3, -0.14))


def scooter(b: Builder) -> None:
    frame, dark = b.colour("paint", "metal"), b.colour("dark")
    radius = b.u(0.12, 0.22)
    for z in (-0.36, 0.36):
        b.add(ring(radius - 0.03, 0.06), dark, (0, radius, z), (0, 0, 90))
        b.add(disc(radius * 0.35, 0.08), b.colour("metal"), (0, radius, z), (0, 0, 90))
        b.add(box(0.05, 2 * radius - 0.08, 0.05), frame, (0, radius, z))
    seat, bar = b.u(0.45, 0.6), b.u(0.6, 0.75)
    b.add(rod((0, radius, 0.36), (0, bar, 0.24), 0.028), frame)
    b.add(rod((-0.2, bar, 0.24), (0.2, bar, 0.24), 0.027), dark)
    b.add(rod((0, radius, -0.36), (0, radius * 1.2, 0), 0.028), frame)
    b.add(rod((0, radius * 1.2, 0), (0, bar * 0.85, 0.26), 0.03), frame)
    b.add(rod((0, radius * 1.2, 0), (0, seat, -0.14), 0.028), frame)
    b.add(rod((0, seat * 0.9, -0.13), (0, bar * 0.8, 0.26), 0.028), frame)
    b.add(superquadric(0.12, 0.07, 0.24), dark, (0, seat + 0.02, -0.15))


# --- living things, toys, outdoors -----------------------------------------------------------------------------------


def plant(b: Builder) -> None:
    pot, leaf = b.colour("clay", "white", "paint", "wood"), b.colour("leaf")
    top, tall = b.u(0.14, 0.24), b.u(0.2, 0.34)
    b.add(
        lathe(
            (
                (0, 0),
                (top * b.u(0.6, 1), 0),
                (top, tall * 0.85),
                (top * 1.1, tall * 0.85),
                (top * 1.1, tall),
                (0, tall),
            )
        ),
        pot,
    )
    kind = b.pick("leaves", "leaves", "bush", "cactus", "flower")
    if kind == "bush":
        for _ in range(b.n(5, 12)):
            size = b.u(0.18, 0.32)
            b.add(superquadric(size, size, size), leaf, (b.u(-0.2, 0.2), tall + b.u(0.05, 0.5), b.u(-0.2, 0.2)))
        b.add(rod((0, tall - 0.02, 0), (0, tall + 0.35, 0), 0.035), b.colour("wood"))
    elif kind == "cactus":
        size = b.u(0.1, 0.16)
        height = b.u(0.4, 0.65)
        b.add(superquadric(2 * size, height + 0.1, 2 * size, 0.4), leaf, (0, tall + height / 2, 0))
        for side in (1, -1):
            if b.chance(0.7):
                y = tall + height * b.u(0.25, 0.5)
                reach = side * (size + b.u(0.08, 0.14))
                b.add(
                    tube(((0, y, 0), (reach, y, 0), (reach * 1.15, y + 0.06, 0), (reach * 1.15, y + 0.2, 0)), 0.055),
                    leaf,
                )
    else:
        for k in range(b.n(6, 14)):
            angle, reach, rise = k * 2.4 + b.u(-0.3, 0.3), b.u(0.12, 0.38), b.u(0.25, 0.65)
            direction = np.array((np.sin(angle), 0, np.cos(angle)))
            bend = np.linspace(0, 1, 6)
            path = (
                direction * (reach * bend**1.6)[:, None]
                + np.array((0, 1, 0)) * (tall + rise * np.sin(bend * np.pi * 0.6))[:, None]
            )
            if kind == "flower":
                b.add(tube(path, 0.025), leaf)
                b.add(superquadric(0.15, b.u(0.1, 0.16), 0.15), b.colour("paint"), path[-1])
            else:
                b.add(tube(path, 0.055 * np.sin(np.linspace(0.5, np.pi - 0.35, 6)) + 0.005), leaf)


def tree(b: Builder) -> None:
    leaf, trunk = b.colour("leaf"), b.colour("wood")
    height = b.u(0.2, 0.45)
    b.add(rod((0, 0, 0), (0, height + 0.2, 0), b.u(0.04, 0.07), 0.03), trunk)
    if b.chance(0.4):
        count = b.n(2, 4)
        for k in range(count):
            radius, y = 0.36 * (1 - 0.65 * k / count), height + (1 - height) * k / (count + 0.6)
            b.add(
                lathe(((0, y), (radius, y), (0.03, y + (1 - height) / count), (0, y + (1 - height) / count + 0.01))),
                leaf,
            )
    else:
        for _ in range(b.n(1, 9)):
            size = b.u(0.28, 0.5)
            b.add(
                superquadric(size, size * b.u(0.7, 1.2), size),
                leaf,
                (b.u(-0.2, 0.2), height + b.u(0.15, 0.45), b.u(-0.2, 0.2)),
            )


def figure(b: Builder) -> None:
    skin, shirt, trousers, hair = (
        b.colour("skin"),
        b.colour("paint", "fabric", "white"),
        b.colour("fabric", "dark"),
        b.colour("dark", "wood"),
    )
    hip, shoulder, wide = b.u(0.4, 0.5), b.u(0.75, 0.82), b.u(0.1, 0.15)
    b.add(
        superquadric(2 * wide + 0.02, shoulder - hip + 0.1, b.u(0.12, 0.18), 0.6, 0.8),
        shirt,
        (0, (hip + shoulder) / 2, 0),
    )
    b.add(superquadric(0.15, 0.19, 0.16), skin, (0, shoulder + 0.13, 0))
    b.add(rod((0, shoulder, 0), (0, shoulder + 0.08, 0), 0.035), skin)
    b.add(superquadric(0.165, 0.13, 0.17), hair, (0, shoulder + 0.175, -0.015))
    pose = b.pick("stand", "sit", "walk")
    for side in (1, -1):
        swing = side * b.u(0.05, 0.14) if pose == "walk" else 0.0
        x = side * wide * 0.55
        if pose == "sit":
            knee = (x, hip, 0.22)
            b.add(tube(((x, hip, 0), knee, (x, hip - 0.05, 0.25), (x, hip - 0.3, 0.25)), 0.045), trousers)
            b.add(box(0.08, 0.05, 0.15, 0.02), hair, (x, hip - 0.31, 0.29))
        else:
            b.add(tube(((x, hip, 0), (x, hip / 2, swing * 0.7), (x, 0.02, swing)), (0.055, 0.048, 0.04)), trousers)
            b.add(box(0.08, 0.05, 0.15, 0.02), hair, (x, 0.025, swing + 0.03))
        hand = np.array((side * (wide + b.u(0.02, 0.3)), hip + b.u(0.0, 0.35), b.u(0, 0.15)))
        top = np.array((side * wide, shoulder - 0.03, 0))
        elbow = (hand + top) / 2 + (side * 0.03, -0.03, -0.03)
        b.add(tube((top, elbow, hand), (0.04, 0.034, 0.028)), shirt)
        b.add(ball(0.07), skin, hand)


def animal(b: Builder) -> None:
    coat, second = b.colour("clay", "white", "dark", "wood", "metal"), b.colour("dark", "white", "clay")
    length, girth, leg = b.u(0.5, 0.75), b.u(0.2, 0.36), b.u(0.15, 0.4)
    y = leg + girth * 0.4
    b.add(superquadric(girth * 0.9, girth, length, b.u(0.7, 1)), coat, (0, y, 0))
    radius = b.u(0.032, 0.06)
    for z in (0.3 * length, -0.3 * length):
        b.mirrored(rod((0, 0, 0), (0, y, 0), radius), coat, (girth * 0.28, 0, z))
        b.mirrored(box(0.08, 0.05, 0.1, 0.02), second, (girth * 0.28, 0.025, z + 0.01))
    head = np.array((0, y + b.u(0.1, 0.38), length / 2 + b.u(0.02, 0.14)))
    b.add(rod((0, y, length * 0.35), head, girth * 0.25, 0.06), coat)
    size = b.u(0.16, 0.24)
    b.add(superquadric(size * 0.85, size * 0.85, size * 1.2), coat, head)
    muzzle = head + np.array((0, -size * 0.12, size * 0.55))
    b.add(superquadric(size * 0.5, size * 0.45, size * 0.8), b.pick(coat, second), muzzle)
    ear = b.u(0.05, 0.2)
    b.mirrored(
        superquadric(0.06, ear + 0.05, 0.055),
        b.pick(coat, second),
        (size * 0.3, head[1] + size * 0.35 + ear / 3, head[2] - 0.03),
    )
    rise = b.u(-0.15, 0.25)
    b.add(
        tube(
            ((0, y, -length * 0.45), (0, y + rise * 0.6, -length * 0.6), (0, y + rise, -length * 0.65)),
            (0.035, 0.03, 0.025),
        ),
        coat,
    )


def teddy(b: Builder) -> None:
    fur, second = b.colour("clay", "fabric", "wood", "white"), b.colour("white", "clay")
    b.add(superquadric(0.42, 0.48, 0.38), fur, (0, 0.28, 0))
    b.add(superquadric(0.28, 0.32, 0.2), second, (0, 0.27, 0.12))
    b.add(ball(0.36), fur, (0, 0.66, 0.02))
    b.add(superquadric(0.17, 0.13, 0.14), second, (0, 0.62, 0.17))
    b.add(ball(0.055), b.colour("dark"), (0, 0.65, 0.24))
    b.mirrored(ball(b.u(0.12, 0.17)), fur, (0.15, 0.82, 0))
    b.mirrored(superquadric(0.14, 0.32, 0.14), fur, (0.24, 0.4, 0.06), (b.u(-40, 10), 0, b.u(20, 60)))
    b.mirrored(superquadric(0.16, 0.16, 0.36), fur, (0.15, 0.1, 0.2), (0, b.u(5, 30), 0))


def house(b: Builder) -> None:
    wall, roof, trim = (
        b.colour("white", "clay", "paint", "wood"),
        b.colour("clay", "dark", "paint"),
        b.colour("wood", "white", "dark"),
    )
    width, depth, height = b.u(0.5, 0.9), b.u(0.5, 0.9), b.u(0.3, 0.5)
    b.add(box(width, height, depth), wall, (0, height / 2, 0))
    peak, over = b.u(0.2, 0.4), 0.06
    gable = np.array(((-width / 2 - over, height - 0.02), (width / 2 + over, height - 0.02), (0, height + peak)))
    b.add(prism(gable, depth + 2 * over), roof)
    b.add(box(0.14, 0.24, 0.05), trim, (b.u(-0.1, 0.1), 0.12, depth / 2))
    for x in (-0.32, 0.32):
        b.add(box(0.13, 0.12, 0.05), b.colour("dark", "white"), (x * width, height * 0.6, depth / 2))
        b.add(box(0.05, 0.12, 0.14), trim, (width / 2, height * 0.6, x * depth))
    if b.chance(0.6):
        b.add(box(0.1, 0.3, 0.1), b.colour("clay", "dark"), (width * 0.25, height + peak * 0.6, -depth * 0.2))


def column(b: Builder) -> None:
    stone, radius = b.colour("white", "clay", "metal"), b.u(0.08, 0.15)
    width = radius * b.u(2.4, 3.2)
    b.add(box(width, 0.08, width), stone, (0, 0.04, 0))
    b.add(disc(radius * 1.3, 0.07, 0.8), stone, (0, 0.1, 0))
    b.add(lathe(((0, 0.1), (radius, 0.1), (radius * b.u(0.75, 1), 0.88), (0, 0.88)), b.pick(8, 12, 24)), stone)
    b.add(disc(radius * 1.25, 0.07, 0.8), stone, (0, 0.88, 0))
    b.add(box(width, 0.08, width), stone, (0, 0.95, 0))


def sink(b: Builder) -> None:
    white, steel = b.colour("white", "metal", "fabric"), b.colour("metal")
    radius, height = b.u(0.25, 0.4), b.u(0.18, 0.3)
    part = lathe(hollow(smooth(((radius * 0.5, 0), (radius * 0.9, height * 0.5), (radius, height))), 0.055), 32)
    vertices, faces = part
    lift = b.pick(0.0, b.u(0.3, 0.55))
    b.add((vertices * (b.u(1.0, 1.5), 1, 1), faces), white, (0, lift, 0))
    if lift:
        b.add(lathe(((0, 0), (0.13, 0), (0.08, lift * 0.4), (0.11, lift + 0.05), (0, lift + 0.06))), white)
    b.add(
        tube(
            (
                (0, lift + height - 0.1, -radius),
                (0, lift + height + 0.2, -radius),
                (0, lift + height + 0.24, -radius * 0.85),
                (0, lift + height + 0.2, -radius * 0.5),
            ),
            0.03,
        ),
        steel,
    )
    b.mirrored(disc(0.035, 0.1), steel, (0.13, lift + height, -radius * 0.92))


def bathtub(b: Builder) -> None:
    white = b.colour("white", "fabric")
    width, height = b.u(0.42, 0.55), b.u(0.25, 0.38)
    vertices, faces = lathe(hollow(smooth(((0.38, 0), (0.47, height * 0.5), (0.5, height))), 0.055), 32)
    # stretch the round vessel into a stadium: a power of the direction squares it
    flat = vertices[:, [0, 2]]
    angle = np.arctan2(flat[:, 0], flat[:, 1])
    square = 1 / (np.abs(np.cos(angle)) ** 4 + np.abs(np.sin(angle)) ** 4) ** 0.25
    vertices = vertices * np.column_stack((square * 1.0, np.ones_like(square), square * width))
    b.add((vertices, faces), white, (0, 0.06, 0))
    b.legs(0.32, width * 0.28, 0.1, 0.06, b.colour("metal", "white"))
    b.add(tube(((-0.5, height, 0), (-0.5, height + 0.16, 0), (-0.42, height + 0.16, 0)), 0.028), b.colour("metal"))


def toilet(b: Builder) -> None:
    white, seat = b.colour("white", "fabric"), b.colour("white", "wood", "dark")
    vertices, faces = lathe(hollow(smooth(((0.13, 0), (0.12, 0.15), (0.24, 0.38), (0.24, 0.42))), 0.06))
    b.add((vertices * (0.85, 1, 1.15), faces), white, (0, 0, 0.12))
    b.add(box(0.46, b.u(0.35, 0.5), 0.19, 0.03), white, (0, 0.55, -0.22))
    b.add(box(0.24, 0.4, 0.3, 0.05), white, (0, 0.2, -0.1))
    if b.chance(0.5):
        b.add(superquadric(0.42, 0.06, 0.55, 0.4), seat, (0, 0.44, 0.12))
    else:
        b.add(superquadric(0.42, 0.55, 0.06, 0.4), seat, (0, 0.66, -0.09), (-6, 0, 0))


def hat(b: Builder) -> None:
    cloth, band = b.colour("fabric", "dark", "paint", "wood"), b.colour("paint", "dark")
    radius, tall = b.u(0.22, 0.28), b.u(0.2, 0.5)
    b.add(disc(b.u(0.38, 0.5), 0.055, 0.4), cloth, (0, 0.03, 0))
    b.add(disc(radius, tall, b.u(0.1, 0.7)), cloth, (0, tall / 2 + 0.03, 0))
    b.add(disc(radius + 0.02, 0.08, 0.1), band, (0, 0.09, 0))


def suitcase(b: Builder) -> None:
    body, dark = b.colour("paint", "fabric", "dark", "clay"), b.colour("dark", "metal")
    width, height, depth = b.u(0.6, 0.95), b.u(0.5, 0.85), b.u(0.18, 0.32)
    b.add(box(width, height, depth, b.u(0.02, 0.09)), body, (0, height / 2, 0))
    for x in (-0.3, 0.3):
        b.add(box(0.06, height + 0.02, depth + 0.02, 0.01), dark, (x * width, height / 2, 0))
    arc = np.radians(np.linspace(0, 180, 9))
    b.add(tube(np.column_stack((0.14 * np.cos(arc), height + 0.1 * np.sin(arc), 0 * arc)), 0.028), dark)


def crate(b: Builder) -> None:
    wood, second = b.colour("wood", "paint", "clay", "metal"), b.colour("wood", "dark")
    width, height, depth = b.u(0.6, 1), b.u(0.4, 0.9), b.u(0.6, 1)
    kind = b.pick("crate", "chest", "barrel", "open")
    if kind == "barrel":
        radius = b.u(0.28, 0.36)
        curve = smooth(((radius * 0.8, 0), (radius, 0.5), (radius * 0.8, 1.0)))
        b.add(lathe(((0, 0), *curve, (0, 1.0))), wood)
        for y in (0.1, 0.35, 0.65, 0.9):
            b.add(ring(np.interp(y, (0, 0.5, 1), (radius * 0.83, radius, radius * 0.83)), 0.055), second, (0, y, 0))
        return
    if kind == "open":
        b.add(box(width, 0.06, depth), wood, (0, 0.03, 0))
        b.mirrored(box(0.06, height, depth), wood, (width / 2 - 0.03, height / 2, 0))
        for side in (1, -1):
            b.add(box(width, height, 0.06), wood, (0, height / 2, side * (depth / 2 - 0.03)))
        return
    b.add(box(width, height, depth), wood, (0, height / 2, 0))
    if kind == "crate":
        for x in (-1, 1):
            for z in (-1, 1):
                b.add(box(0.09, height + 0.04, 0.09), second, (x * width / 2, height / 2, z * depth / 2))
        for y in (0, height):
            for side in (1, -1):
                b.add(box(width, 0.08, 0.06), second, (0, y, side * depth / 2))
                b.add(box(0.06, 0.08, depth), second, (side * width / 2, y, 0))
    else:
        b.add(disc(depth / 2, width), second, (0, height, 0), (0, 0, 90))
        b.add(box(0.12, 0.16, 0.06), b.colour("metal"), (0, height * 0.9, depth / 2 + 0.01))


def dumbbell(b: Builder) -> None:
    steel, plate = b.colour("metal"), b.colour("dark", "paint")
    b.add(rod((-0.45, 0, 0), (0.45, 0, 0), b.u(0.027, 0.045)), steel)
    x = 0.42
    for radius in sorted(b.u(0.12, 0.3) for _ in range(b.n(1, 3))):
        b.mirrored(disc(radius, 0.09), plate, (x, 0, 0), (0, 0, 90))
        x -= 0.1


def sports_ball(b: Builder) -> None:
    first, second = b.colour("paint", "white"), b.colour("dark", "paint", "white")
    b.add(ball(1.0), first)
    for _ in range(b.n(0, 3)):
        b.add(ring(0.48, 0.05), second, (0, 0, 0), (b.u(0, 180), 0, b.u(0, 180)))


def stairs(b: Builder) -> None:
    colour, count = b.colour("wood", "white", "clay"), b.n(3, 6)
    width = b.u(0.3, 0.6)
    solid = b.chance(0.5)
    for k in range(count):
        tall = (k + 1) / count * 0.8
        deep = 0.8 / count
        height = tall if solid else 0.055
        b.add(box(width, height, deep * 1.02), colour, (0, tall - height / 2, 0.4 - (k + 0.5) * deep))
    if not solid:
        b.mirrored(rod((0, 0, 0.4), (0, 0.78, -0.4), 0.03), b.colour("metal", "wood"), (width * 0.4, 0, 0))
    if b.chance(0.4):
        side = b.pick(-1, 1) * width * 0.48
        b.add(rod((side, 0.4, 0.36), (side, 1.05, -0.36), 0.026), b.colour("metal", "wood"))
        for z in (0.36, -0.36):
            low = 0.4 - (z - 0.36) / 0.72 * 0.65
            b.add(rod((side, low - 0.4, z), (side, low, z), 0.026), b.colour("metal", "wood"))


def signpost(b: Builder) -> None:
    pole, plate = b.colour("metal", "wood", "dark"), b.colour("paint", "white", "wood")
    b.add(rod((0, 0, 0), (0, 0.95, 0), b.u(0.025, 0.04)), pole)
    b.add(disc(b.u(0.1, 0.18), 0.05), pole, (0, 0.025, 0))
    kind = b.pick("disc", "polygon", "arrows", "box")
    if kind == "disc":
        b.add(disc(0.2, 0.05), plate, (0, 0.82, 0.04), (90, 0, 0))
        b.add(ring(0.18, 0.05), b.colour("paint"), (0, 0.82, 0.05), (90, 0, 0))
    elif kind == "polygon":
        angle = np.linspace(0, 2 * np.pi, b.pick(3, 4, 6, 8), endpoint=False) + b.pick(0, np.pi / 2)
        b.add(prism(0.22 * np.column_stack((np.cos(angle), np.sin(angle))), 0.05), plate, (0, 0.8, 0.04))
    elif kind == "arrows":
        for y in (0.85, 0.68):
            arrow = np.array(((-0.2, -0.06), (0.2, -0.06), (0.28, 0), (0.2, 0.06), (-0.2, 0.06)))
            b.add(prism(arrow, 0.05), plate, (b.u(-0.08, 0.08), y, 0.035), (0, b.pick(0, 180), 0))
    else:
        b.add(box(b.u(0.25, 0.4), b.u(0.2, 0.35), b.u(0.15, 0.3), 0.03), plate, (0, 0.85, 0))


# --- anything --------------------------------------------------------------------------------------------------------


def random_part(b: Builder) -> Part:
    x, y, z = (b.u(0.1, 0.6) for _ in range(3))
    kind = b.pick("box", "rounded", "ball", "superquadric", "disc", "cone", "torus", "prism", "capsule", "lathe")
    if kind == "box":
        return box(x, y, z)
    if kind == "rounded":
        return box(x, y, z, b.u(0.2, 0.9) * min(x, y, z) / 2)
    if kind == "ball":
        return superquadric(x, y, z)
    if kind == "superquadric":
        return superquadric(x, y, z, b.u(0.2, 1.6), b.u(0.2, 1.6))
    if kind == "disc":
        return disc(x / 2, y, b.u(0.05, 0.9))
    if kind == "cone":
        return lathe(((0, -y / 2), (x / 2, -y / 2), (b.u(0.02, 0.6) * x / 2, y / 2), (0, y / 2)), b.pick(4, 6, SIDES))
    if kind == "torus":
        return ring(max(x / 2, 0.12), b.u(0.06, 0.14))
    if kind == "prism":
        count = b.n(3, 9)
        angle = 2 * np.pi * np.arange(count) / count
        reach = np.where(np.arange(count) % 2, 1.0, b.u(0.5, 1.0) if count % 2 == 0 else 1.0) * max(x, 0.2) / 2
        return prism(reach[:, None] * np.column_stack((np.cos(angle), np.sin(angle))), z)
    if kind == "capsule":
        return superquadric(x * 0.5, y + x * 0.4, x * 0.5, 0.4)
    heights = np.linspace(-y / 2, y / 2, 5)
    curve = smooth(np.column_stack(([b.u(0.06, 0.3) for _ in heights], heights)))
    return lathe(((0, -y / 2), *curve, (0, y / 2)))


def assembly(b: Builder) -> None:
    """Touching random parts, each placed on the surface of an earlier one."""
    palette = [b.colour("paint", "fabric", "wood", "metal", "white", "dark") for _ in range(b.n(1, 4))]
    placed = []
    mirror = b.chance(0.5)
    for _ in range(b.n(2, 6)):
        vertices, faces = random_part(b)
        turn = b.pick((0, 0, 0), (90, 0, 0), (0, 0, 90), tuple(b.u(0, 180) for _ in range(3)))
        vertices = vertices @ Rotation.from_euler("xyz", turn, degrees=True).as_matrix().T
        at = np.zeros(3)
        if placed:
            anchor = placed[b.n(0, len(placed) - 1)]
            at = anchor[b.n(0, len(anchor) - 1)] * b.u(0.7, 0.95)
        placed.append(vertices + at)
        colour = b.pick(*palette)
        b.add((vertices, faces), colour, at)
        if mirror and abs(at[0]) > 0.05:
            b.add((vertices * (-1, 1, 1), faces[:, ::-1]), colour, at * (-1, 1, 1))


CATEGORIES = {
    "chair": (chair, 5),
    "stool": (stool, 2),
    "table": (table, 4),
    "desk": (desk, 2),
    "shelf": (shelf, 3),
    "cabinet": (cabinet, 4),
    "sofa": (sofa, 4),
    "bed": (bed, 2),
    "lamp": (lamp, 3),
    "desk lamp": (desk_lamp, 1),
    "vase": (vase, 2),
    "bottle": (bottle, 2),
    "cup": (cup, 3),
    "bowl": (bowl, 1),
    "wine glass": (wine_glass, 1),
    "teapot": (teapot, 1),
    "pan": (pan, 1.5),
    "appliance": (appliance, 3),
    "cake": (cake, 0.7),
    "burger": (burger, 0.5),
    "fruit": (fruit, 1.5),
    "screen": (screen, 1.5),
    "laptop": (laptop, 1),
    "camera": (camera, 1),
    "speaker": (speaker, 1),
    "clock": (clock, 1),
    "hammer": (hammer, 1.5),
    "tool": (tool, 1.5),
    "guitar": (guitar, 0.7),
    "light bulb": (light_bulb, 0.7),
    "headphones": (headphones, 0.7),
    "car": (car, 3),
    "truck": (truck, 1.5),
    "train": (train, 1),
    "airplane": (airplane, 2),
    "boat": (boat, 1),
    "scooter": (scooter, 1),
    "plant": (plant, 3),
    "tree": (tree, 2),
    "figure": (figure, 3),
    "animal": (animal, 3),
    "teddy": (teddy, 0.7),
    "house": (house, 1),
    "column": (column, 0.7),
    "sink": (sink, 1),
    "bathtub": (bathtub, 0.7),
    "toilet": (toilet, 0.7),
    "hat": (hat, 0.7),
    "suitcase": (suitcase, 1),
    "crate": (crate, 2),
    "dumbbell": (dumbbell, 0.5),
    "ball": (sports_ball, 0.5),
    "stairs": (stairs, 0.7),
    "signpost": (signpost, 1),
    "assembly": (assembly, 16),
}


def procedural_object(seed: int | np.random.Generator) -> trimesh.Scene:
    """A random object, +Y up and front towards +Z, standing on y = 0; its kind is `scene.metadata["category"]`.

    The same seed gives the same object.
    """
    builder = Builder(np.random.default_rng(seed))
    weights = np.array([weight for _, weight in CATEGORIES.values()])
    category = builder.rng.choice(list(CATEGORIES), p=weights / weights.sum())
    CATEGORIES[category][0](builder)
    return builder.scene(str(category))
