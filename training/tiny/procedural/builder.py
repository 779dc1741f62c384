# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""An object under construction: coloured parts, and the random numbers that shape them."""

import colorsys
from collections import defaultdict

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from .primitives import Part, ball, box, lathe, rod, smooth


def turned(vertices: np.ndarray, turn) -> np.ndarray:
    """The vertices (V, 3) rotated by Euler angles (x, y, z) in degrees."""
    return vertices @ Rotation.from_euler("xyz", turn, degrees=True).as_matrix().T


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
            vertices = turned(vertices, turn)
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
