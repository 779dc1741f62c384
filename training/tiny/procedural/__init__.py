# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Random everyday objects from a seed: +Y up, front towards +Z, one material colour per kind of part.

Every part is a closed surface; no part is thinner than about 4% of its object, so that a coarse field can show it.
Lengths are relative: an object's longest side is roughly 1.
"""

import numpy as np
import trimesh

from .assemblies import assembly
from .builder import Builder
from .devices import camera, clock, guitar, hammer, headphones, laptop, light_bulb, screen, speaker, tool
from .furniture import bed, cabinet, chair, desk, desk_lamp, lamp, shelf, sofa, stool, table
from .kitchen import appliance, bottle, bowl, burger, cake, cup, fruit, pan, teapot, vase, wine_glass
from .surroundings import (
    animal,
    bathtub,
    column,
    crate,
    dumbbell,
    figure,
    hat,
    house,
    plant,
    signpost,
    sink,
    sports_ball,
    stairs,
    suitcase,
    teddy,
    toilet,
    tree,
)
from .vehicles import airplane, boat, car, scooter, train, truck

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
