# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever users hand over as the image becomes the same condition image, or an error that says what to do."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from diffusers_vilearn import ViLearnImageProcessor

processor = ViLearnImageProcessor()


def test_every_kind_of_input_gives_the_same_picture(image, tmp_path):
    path = tmp_path / "object.png"
    image.save(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).movedim(-1, 0)
    kinds = [image, path, str(path), array, array[None], array / 255, (array / 255).astype(np.float32)]
    kinds += [tensor, tensor[None], tensor / 255, (tensor / 255).double(), [image], (path,)]
    (expected,) = processor.preprocess(image, 64)
    for kind in kinds:
        (square,) = processor.preprocess(kind, 64)
        np.testing.assert_array_equal(np.asarray(square), np.asarray(expected), err_msg=repr(kind)[:80])


def test_half_precision_tensors(image):
    tensor = torch.from_numpy(np.asarray(image) / 255).movedim(-1, 0)
    expected = np.asarray(processor.preprocess(tensor, 64)[0]).astype(int)
    for dtype in (torch.float16, torch.bfloat16):
        assert np.abs(np.asarray(processor.preprocess(tensor.to(dtype), 64)[0]) - expected).max() <= 1


def test_batches_and_nested_lists_keep_their_order(image):
    flipped = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    batch = np.stack([np.asarray(image), np.asarray(flipped)])
    for images in (batch, [image, flipped], [image, np.asarray(flipped)], torch.from_numpy(batch).movedim(-1, 1)):
        first, second = processor.preprocess(images, 32)
        np.testing.assert_array_equal(np.asarray(first), np.asarray(processor.preprocess(image, 32)[0]))
        np.testing.assert_array_equal(np.asarray(second), np.asarray(processor.preprocess(flipped, 32)[0]))


def test_palette_and_grey_pictures_with_transparency(image):
    expected = np.asarray(processor.preprocess(image, 64)[0]).astype(int)
    palette = np.asarray(processor.preprocess(image.quantize(), 64)[0])
    assert np.abs(palette - expected).mean() < 8
    grey = np.asarray(processor.preprocess(image.convert("LA"), 64)[0])
    assert (grey[..., 0] == grey[..., 1]).all() and (grey < 255).any()


def test_camera_orientation_is_respected(image, tmp_path):
    # orientation 6: the stored picture must be turned by 90 degrees clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright, turned = processor.preprocess([image, tmp_path / "turned.png"], 64)
    np.testing.assert_array_equal(np.asarray(turned), np.asarray(upright))


def test_the_input_is_left_alone(image):
    array = np.asarray(image) / 255
    before = array.copy()
    processor.preprocess(array, 32)
    np.testing.assert_array_equal(array, before)


def test_opaque_photograph_says_how_to_get_a_mask(image):
    pictures = [np.asarray(image)[..., :3], torch.zeros(3, 8, 8)]
    pictures += [Image.new(mode, (8, 8)) for mode in ("RGB", "L", "1", "P", "CMYK", "YCbCr", "HSV", "LAB", "I", "F")]
    for picture in pictures:
        with pytest.raises(ValueError, match=r"pip install 'diffusers-vilearn\[rembg\]'.*--remove-background"):
            processor.preprocess(picture, 64)


def test_the_bad_image_of_a_batch_is_named(image):
    with pytest.raises(ValueError, match=r"image 1 of 2: .*opaque"):
        processor.preprocess([image, image.convert("RGB")], 64)


@pytest.mark.parametrize(
    "value, message",
    [
        (None, "`image` must be a PIL image, a path"),
        (7, "`image` must be a PIL image, a path"),
        ([], "non-empty list"),
        ({"image": 1}, "`image` must be"),
        ("https://example.org/chair.png", "not a URL"),
        ("data:image/png;base64,AAAA", "not a URL"),
        ("no such file.png", "no such file.png"),
        ("nul\0byte", "null"),
        (np.zeros((8, 8)), "four channels"),
        (np.zeros((8, 8, 2)), "four channels"),
        (np.zeros((0, 8, 4)), "four channels"),
        (np.zeros((1, 1, 8, 8, 4)), "four channels"),
        (np.zeros((8, 8, 4), np.int64), "dtype is int64"),
        (np.zeros((8, 8, 4), bool), "dtype is bool"),
        (np.full((8, 8, 4), np.nan), r"\[0, 1\]"),
        (np.full((8, 8, 4), 255.0), r"\[0, 1\]"),
        (np.full((8, 8, 4), -0.1), r"\[0, 1\]"),
        (torch.zeros(8, 8), "when it is a tensor"),
        (torch.zeros(8, 8, 4), "four channels"),
        (torch.full((4, 8, 8), torch.inf), r"\[0, 1\]"),
        (torch.zeros(4, 8, 8), "transparent everywhere"),
        (Image.new("RGBA", (0, 0)), "must have pixels"),
        (Image.new("RGBA", (8, 8)), "transparent everywhere"),
        (Image.new("La", (8, 8)), "its mode is La"),
    ],
)
def test_bad_input(value, message):
    with pytest.raises(ValueError, match=message):
        processor.preprocess(value, 64)


def test_files_that_are_no_pictures(image, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"path of a picture, but .*text\.png"):
        processor.preprocess(tmp_path / "text.png", 64)
    with pytest.raises(ValueError, match="path of a picture"):
        processor.preprocess(tmp_path, 64)
    buffer = io.BytesIO()
    image.resize((600, 400)).save(buffer, "PNG")
    (tmp_path / "half.png").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        processor.preprocess(tmp_path / "half.png", 64)


@settings(max_examples=200, deadline=None)
@given(
    array=hnp.arrays(
        dtype=st.sampled_from([np.uint8, np.float32, np.float64, np.float16, np.int32]),
        shape=hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=6),
        elements={"min_value": 0, "max_value": 1},
    ),
    as_tensor=st.booleans(),
)
def test_any_array_is_either_refused_or_made_into_squares(array, as_tensor):
    try:
        squares = processor.preprocess(torch.from_numpy(array) if as_tensor else array, 16)
    except ValueError:
        return
    assert len(squares) == (1 if array.ndim == 3 else len(array))
    assert all(square.mode == "RGB" and square.size == (16, 16) for square in squares)
