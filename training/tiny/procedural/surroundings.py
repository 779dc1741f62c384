# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Plants, figures, animals, houses, bathroom, luggage, toys."""

import numpy as np

from .builder import Builder
from .primitives import ball, box, disc, hollow, lathe, prism, ring, rod, smooth, superquadric, tube


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
