# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Cars, trucks, trains, airplanes, boats, scooters."""

import numpy as np

from .builder import Builder
from .primitives import ball, box, disc, prism, ring, rod, superquadric, tube


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
