# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Touching random parts that are nothing in particular."""

import numpy as np

from .builder import Builder, turned
from .primitives import SIDES, Part, box, disc, lathe, prism, ring, smooth, superquadric


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
        vertices = turned(vertices, turn)
        at = np.zeros(3)
        if placed:
            anchor = placed[b.n(0, len(placed) - 1)]
            at = anchor[b.n(0, len(anchor) - 1)] * b.u(0.7, 0.95)
        placed.append(vertices + at)
        colour = b.pick(*palette)
        b.add((vertices, faces), colour, at)
        if mirror and abs(at[0]) > 0.05:
            b.add((vertices * (-1, 1, 1), faces[:, ::-1]), colour, at * (-1, 1, 1))
