# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Electronics, tools, instruments."""

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

from .builder import Builder
from .primitives import ball, box, disc, lathe, prism, ring, rod, smooth, superquadric, tube


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
