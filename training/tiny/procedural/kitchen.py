# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Vessels, pans, appliances, food."""

import numpy as np

from .builder import Builder
from .primitives import ball, box, disc, hollow, lathe, ring, rod, smooth, superquadric, tube


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
