# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The condition image: where the object lands and what its edge looks like."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch.testing import assert_close

from diffusers_vilearn.data.images import condition_square, patch_tokens_at, prepare_condition_image


def object_image(size, box, color=(0, 0, 0, 255), hidden=(255, 255, 255, 0)):
    image = Image.new("RGBA", size, hidden)
    image.paste(color, box)
    return image


def dark_extent(image):
    """First and last (exclusive) column and row darker than mid-grey."""
    dark = np.asarray(image).mean(axis=-1) < 128
    columns, rows = np.flatnonzero(dark.any(axis=0)), np.flatnonzero(dark.any(axis=1))
    return columns[0], columns[-1] + 1, rows[0], rows[-1] + 1


@settings(max_examples=60, deadline=None)
@given(
    left=st.integers(0, 60),
    top=st.integers(0, 60),
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    size=st.integers(28, 256),
    foreground=st.floats(0.4, 1.0),
)
def test_object_fills_its_share_and_is_centred(left, top, width, height, size, foreground):
    image = object_image((160, 170), (left, top, left + width, top + height))
    result = prepare_condition_image(image, size, foreground)
    assert result.mode == "RGB" and result.size == (size, size)
    scale = foreground * size / max(width, height)
    if min(width, height) * scale < 2:
        return  # thinner than two pixels: blurred into grey
    first_column, last_column, first_row, last_row = dark_extent(result)
    # The edge of an enlarged pixel is a ramp as wide as itself: a rounded shade moves where it is mid-grey.
    off_centre = 1 + 0.02 * scale
    assert abs((first_column + last_column) / 2 - size / 2) <= off_centre
    assert abs((first_row + last_row) / 2 - size / 2) <= off_centre
    tolerance = 2 + 0.2 * scale  # the blur of an enlarged pixel
    assert abs(last_column - first_column - width * scale) <= tolerance
    assert abs(last_row - first_row - height * scale) <= tolerance


def test_default_share_is_ninety_percent():
    result = prepare_condition_image(object_image((300, 300), (20, 40, 120, 90)), 200)
    assert dark_extent(result) == (10, 190, 55, 145)


def test_corners_are_white_and_the_inside_keeps_its_colour():
    result = np.asarray(prepare_condition_image(object_image((64, 64), (10, 20, 50, 40), (200, 30, 90, 255)), 128))
    assert (result[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    assert (result[64, 64] == (200, 30, 90)).all()


@settings(max_examples=20, deadline=None)
@given(dx=st.integers(-50, 50), dy=st.integers(-50, 50))
def test_place_in_the_picture_does_not_matter(dx, dy):
    def picture(x, y):
        image = Image.new("RGBA", (240, 240), (0, 0, 0, 0))
        ImageDraw.Draw(image).polygon([(x, y), (x + 60, y + 10), (x + 30, y + 70)], fill=(90, 20, 160, 255))
        return np.asarray(prepare_condition_image(image, 112))

    np.testing.assert_array_equal(picture(80 + dx, 80 + dy), picture(80, 80))


@pytest.mark.parametrize("hidden", [(255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 0, 0)])
def test_colours_under_transparent_pixels_never_show(hidden):
    image = Image.new("RGBA", (90, 70), hidden)
    ImageDraw.Draw(image).ellipse((20, 10, 70, 60), fill=(10, 20, 250, 255))
    expected = Image.new("RGBA", (90, 70), (10, 20, 250, 0))
    ImageDraw.Draw(expected).ellipse((20, 10, 70, 60), fill=(10, 20, 250, 255))
    result = prepare_condition_image(image, 50)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(prepare_condition_image(expected, 50)))


def test_downscaling_is_antialiased():
    # one-pixel stripes become their mean, not one of the two
    stripes = np.zeros((1000, 1000, 4), np.uint8)
    stripes[100:900, 100:900, 3] = 255
    stripes[100:900, 100:900:2, :3] = 255
    result = np.asarray(prepare_condition_image(Image.fromarray(stripes), 64))
    assert abs(int(result[32, 32, 0]) - 128) < 8


def test_half_transparent_haze_does_not_move_the_box():
    clean = object_image((200, 200), (80, 80, 120, 120))
    hazy = clean.copy()
    hazy.putpixel((0, 0), (0, 0, 0, 100))
    np.testing.assert_array_equal(prepare_condition_image(hazy, 64), prepare_condition_image(clean, 64))


def test_object_cut_by_the_border_of_the_picture():
    result = prepare_condition_image(object_image((50, 50), (0, 0, 30, 50)), 100)
    assert dark_extent(result) == (23, 77, 5, 95)


def test_full_range_of_premultiplied_colours_survives():
    image = object_image((40, 40), (10, 10, 30, 30), (255, 255, 255, 255), (0, 0, 0, 0))
    assert np.asarray(prepare_condition_image(image, 77)).min() == 255


@pytest.mark.parametrize(
    "image, size, foreground, message",
    [
        (Image.new("RGB", (9, 9)), 28, 0.9, "`image` must be a PIL image of mode RGBA, but is RGB"),
        (np.zeros((9, 9, 4)), 28, 0.9, "`image` must be a PIL image"),
        (Image.new("RGBA", (0, 9)), 28, 0.9, "`image` must have pixels"),
        (Image.new("RGBA", (9, 9)), 28, 0.9, "transparent everywhere"),
        (Image.new("RGBA", (9, 9), (1, 2, 3, 127)), 28, 0.9, "transparent everywhere"),
        (Image.new("RGBA", (9, 9), "black"), 28, 0.9, r"opaque everywhere.*diffusers-vilearn\[rembg\]"),
        (object_image((9, 9), (2, 2, 5, 5)), 0, 0.9, "`size` must be a positive"),
        (object_image((9, 9), (2, 2, 5, 5)), 28.5, 0.9, "`size` must be a positive"),
        (object_image((9, 9), (2, 2, 5, 5)), 28, 0.0, "`foreground` must lie in"),
        (object_image((9, 9), (2, 2, 5, 5)), 28, 1.1, "`foreground` must lie in"),
        (object_image((9, 9), (2, 2, 5, 5)), 28, float("nan"), "`foreground` must lie in"),
    ],
)
def test_bad_input(image, size, foreground, message):
    with pytest.raises(ValueError, match=message):
        prepare_condition_image(image, size, foreground)


def test_patch_tokens_are_read_between_the_centres_of_patches():
    tokens = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))
    centres = torch.tensor([-2 / 3, 0, 2 / 3])
    positions = torch.cartesian_prod(centres, centres).flip(1).expand(2, -1, -1)
    assert_close(patch_tokens_at(tokens, positions), tokens)
    between = torch.tensor([[[-1 / 3, 0.0]], [[0.0, 1 / 3]]])
    expected = torch.stack([(tokens[0, 3] + tokens[0, 4]) / 2, (tokens[1, 4] + tokens[1, 7]) / 2])
    assert_close(patch_tokens_at(tokens, between)[:, 0], expected)
    corner = torch.full((2, 1, 2), -1.0)
    assert_close(patch_tokens_at(tokens, corner)[:, 0], tokens[:, 0])
    with pytest.raises(ValueError, match="8 patches"):
        patch_tokens_at(tokens[:, :8], positions)


def test_the_square_is_what_the_condition_image_shows():
    image = object_image((160, 170), (30, 50, 70, 70))
    assert condition_square(image, 0.8) == (25, 35, 50)
