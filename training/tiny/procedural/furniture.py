# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Chairs, tables, shelves, sofas, beds, lamps."""

import numpy as np
from scipy.spatial.transform import Rotation

from .builder import Builder
from .primitives import THIN, ball, box, disc, lathe, ring, rod, smooth, superquadric, tube


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
