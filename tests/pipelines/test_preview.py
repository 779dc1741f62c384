# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of meshes: which side is seen from where, and where pictures land on a sheet."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from diffusers_vilearn.pipelines.preview import contact_sheet, render_preview, render_views


def box(extents, centre):
    return trimesh.creation.box(extents, trimesh.transformations.translation_matrix(centre))


@pytest.fixture
def arrow():
    """A slab with an arm that sticks out to the right (+X)."""
    return trimesh.util.concatenate([box((0.4, 1.4, 0.4), (0, 0, 0)), box((0.6, 0.2, 0.2), (0.5, 0.5, 0))])


def ink(view):
    """Pixels that show the mesh."""
    return np.asarray(view).min(axis=-1) < 250


def test_front_right_back_left(arrow):
    front, right, back, left = (ink(view) for view in render_views(arrow, elevation=0, size=96))
    upper = slice(0, 40)
    assert front[upper, 60:].sum() > 3 * front[upper, :36].sum()
    assert back[upper, :36].sum() > 3 * back[upper, 60:].sum()
    for side in (right, left):
        np.testing.assert_allclose(side[:, :48].sum(), side[:, 48:].sum(), rtol=0.05)


def test_views_are_on_white_at_one_scale_and_not_cut(arrow):
    for view in render_views(arrow, azimuths=(0, 30, 77, 210), size=80):
        assert view.mode == "RGB" and view.size == (80, 80)
        seen = ink(view)
        assert not (seen[0].any() or seen[-1].any() or seen[:, 0].any() or seen[:, -1].any())
    heights = [ink(view).any(axis=1).sum() for view in render_views(arrow, elevation=0, size=96)]
    assert max(heights) - min(heights) <= 6


def test_clay_whatever_the_colours_of_the_mesh(arrow):
    painted = arrow.copy()
    painted.visual.face_colors = (255, 0, 0, 255)
    for plain, red in zip(render_views(arrow, size=48), render_views(trimesh.Scene(painted), size=48)):
        np.testing.assert_array_equal(np.asarray(plain), np.asarray(red))


def test_shading_tells_sides_apart():
    view = np.asarray(render_views(box((1, 1, 1), (0, 0, 0)), azimuths=(30,), elevation=30, size=128)[0])
    tones = view[ink(view)][:, 0]
    counts = np.bincount(tones, minlength=256)
    assert (counts > 0.05 * len(tones)).sum() >= 3


def test_preview_is_the_input_beside_four_views(arrow, image):
    sheet = render_preview(image, arrow, size=100)
    assert sheet.size == (5 * 108 + 8, 116)
    np.testing.assert_array_equal(np.asarray(sheet)[8:108, 8 + 108 : 8 + 208], render_views(arrow, size=100)[0])


def test_contact_sheet_places_pictures():
    red, green, blue = (Image.new("RGB", (40, 30), color) for color in ("red", "lime", "blue"))
    sheet = np.asarray(contact_sheet([[red, green], [blue]]))
    assert sheet.shape == (8 + 2 * 38, 8 + 2 * 48, 3)
    assert tuple(sheet[8, 8]) == (255, 0, 0) and tuple(sheet[8, 56]) == (0, 255, 0)
    assert tuple(sheet[46, 8]) == (0, 0, 255) and tuple(sheet[46, 56]) == (255, 255, 255)


def test_labels_and_headings_are_drawn_beside_the_pictures():
    rows = [[Image.new("RGB", (60, 60), "red")] * 2] * 2
    plain, lettered = contact_sheet(rows), contact_sheet(rows, labels=["a", "b"], headings=["input", "truth"])
    assert lettered.height > plain.height and lettered.width == plain.width
    pixels = np.asarray(lettered)
    assert (pixels == (255, 0, 0)).all(axis=-1).sum() == 4 * 60 * 60
    assert (pixels.max(axis=-1) < 100).any()


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"rows": []}, "`rows` must hold pictures of one size"),
        ({"rows": [[]]}, "`rows` must hold pictures of one size"),
        ({"rows": [[Image.new("RGB", (4, 4)), Image.new("RGB", (4, 5))]]}, "`rows` must hold pictures of one size"),
        ({"rows": [[Image.new("RGB", (4, 4))]], "labels": ["a", "b"]}, "`labels` must be one per row"),
        ({"rows": [[Image.new("RGB", (4, 4))]], "headings": []}, "`headings` must be one per column"),
    ],
)
def test_bad_sheets(kwargs, message):
    with pytest.raises(ValueError, match=message):
        contact_sheet(**kwargs)
