# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Polygons of OBJ files cover what they cover, convex or not."""

import io

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from diffusers_vilearn.geometry.mesh import load_mesh, merge_geometry
from diffusers_vilearn.geometry.obj import plain_obj

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
# Of the L-shaped room, the corner that faces inwards comes last but one.
ROOM = "v 0 0 0\nv 2 0 0\nv 2 1 0\nv 1 1 0\nv 1 2 0\nv 0 2 0\n"


def read(text: str) -> trimesh.Trimesh:
    return merge_geometry(load_mesh(io.BytesIO(text.encode()), "obj"))


@pytest.mark.parametrize("text", [SQUARE + "f 1 2 3 4\n", SQUARE + "f 1 2 3\nf 1 3 4\n", ROOM + "f 4 5 6 1 2 3\n"])
def test_what_a_fan_covers_is_left_as_it_is(text):
    assert plain_obj(text.encode()) == text.encode()
    assert read(text).area == pytest.approx(3 if text.startswith(ROOM) else 1)


@pytest.mark.parametrize(
    "faces",
    [
        "f 2 3 4 5 6 1\n",
        "f\t-5 -4 -3 -2 -1 -6  # a room\n",
        "f 2 3 4 \\\n5 6 1\n",
        "f 2//1 3//1 4//1 5//1 6//1 1//1\n",
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_polygon_that_is_not_convex_covers_its_own_area(faces, line_end):
    mesh = read(("o room\n" + ROOM + "vn 0 0 1\n" + faces).replace("\n", line_end))
    assert len(mesh.faces) == 4 and mesh.area == pytest.approx(3)
    assert (mesh.face_normals == [0, 0, 1]).all()


def test_corners_keep_their_texture_and_their_material():
    coordinates = "vt 0 0\nvt 1 0\nvt 1 .5\nvt .5 .5\nvt .5 1\nvt 0 1\n"
    text = ROOM + coordinates + "usemtl red\nf 2/2 3/3 4/4 5/5 6/6 1/1\nusemtl blue\nf 1/1 2/2 3/3\n"
    parts = load_mesh(io.BytesIO(text.encode()), "obj").geometry.values()
    assert sorted(len(part.faces) for part in parts) == [1, 4]
    for part in parts:
        np.testing.assert_allclose(part.visual.uv * 2, part.vertices[:, :2])


def test_polygons_that_cross_themselves_are_left_as_they_are():
    text = SQUARE + "v 3 .5 0\nf 1 3 2 4 5\n"
    assert plain_obj(text.encode()) == text.encode()


@settings(max_examples=60, deadline=None)
@given(
    radii=st.lists(st.floats(0.05, 1.0), min_size=4, max_size=40),
    start=st.integers(0, 39),
    seed=st.integers(0, 2**32 - 1),
)
def test_stars_cover_their_own_area(radii, start, seed):
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    star = np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    area = 0.5 * np.abs((star[:, 0] * np.roll(star[:, 1], -1) - star[:, 1] * np.roll(star[:, 0], -1)).sum())
    rotation = Rotation.random(random_state=seed)
    corners = rotation.apply(np.pad(star, ((0, 0), (0, 1))))
    lines = [f"v {x:.17g} {y:.17g} {z:.17g}" for x, y, z in corners]
    order = np.roll(np.arange(1, len(radii) + 1), start)
    mesh = read("\n".join([*lines, "f " + " ".join(map(str, order))]) + "\n")
    assert len(mesh.faces) == len(radii) - 2 and mesh.area == pytest.approx(area, rel=1e-5)
    # All of them are turned as the star is.
    turned = mesh.face_normals[mesh.area_faces > 1e-9] @ rotation.apply([0, 0, 1])
    assert (turned > 0.99).all()
