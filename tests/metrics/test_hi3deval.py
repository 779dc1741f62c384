# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The adapter, against a program with the command line, the input and the output of Hi3DEval's scorer."""

import sys

import numpy as np
import pytest
import trimesh
from hi3deval_checkout import make_checkout
from PIL import Image, ImageSequence

from diffusers_vilearn.metrics.hi3deval import Hi3DEval, Turntable, write_turntable


@pytest.fixture
def turntables(tmp_path) -> list[Turntable]:
    turntables = []
    for number in (3, 1, 2):
        turntable = Turntable(tmp_path / f"turn {number}.gif", tmp_path / f"{number}.png")
        turntable.video.touch()
        turntable.prompt.touch()
        turntables.append(turntable)
    return turntables


def frames_of(path) -> np.ndarray:
    """(frames, height, width, 3) of a GIF."""
    with Image.open(path) as gif:
        return np.stack([np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(gif)])


def test_a_turntable_is_a_gif_of_one_turn(tmp_path):
    write_turntable(trimesh.creation.box((1.0, 0.5, 0.2)), tmp_path / "turn.gif", resolution=56)
    frames = frames_of(tmp_path / "turn.gif")
    assert len(frames) == 17 and (frames[0] == frames[16]).all()
    covered = (frames < 245).any(axis=-1)
    assert covered.any(axis=(1, 2)).all() and np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)).min() > 1
    # half a turn of a box shows the same again
    assert np.abs(frames[1] - frames[9]).mean() < 0.1 * np.abs(frames[1] - frames[5]).mean()
    # seen along its longer side, it is a fifth as wide and as high as before, but for its near end
    widths, heights = (covered[[0, 4], 1:].any(axis=axis).sum(axis=1) for axis in (1, 2))
    assert widths[1] < 0.35 * widths[0] and heights[1] == pytest.approx(heights[0], rel=0.5)


def test_a_turntable_of_what_looks_alike_from_all_sides_has_as_many_frames(tmp_path):
    profile = np.array([[0.0, -0.5], [0.4, -0.5], [0.2, 0.1], [0.3, 0.5], [0.0, 0.5]])
    vase = trimesh.creation.revolve(profile, sections=64).apply_transform(
        trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])
    )
    write_turntable(vase, tmp_path / "turn.gif", resolution=56)
    assert len(frames_of(tmp_path / "turn.gif")) == 17


def test_both_heads_score_every_turntable(tmp_path, turntables):
    scorer = Hi3DEval(make_checkout(tmp_path / "checkout"), launcher=[sys.executable])
    assert scorer(turntables) == [{"gp": 10.0 + number, "gd": number} for number in (3.0, 1.0, 2.0)]


def test_a_folder_without_the_scorer_or_its_checkpoints_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"git checkout of https://github.com/3DTopia/Hi3DEval .*inference.py"):
        Hi3DEval(tmp_path)
    checkout = make_checkout(tmp_path / "checkout")
    (checkout / "obj_scoring" / "trained" / "Geo_detail" / "mp_rank_00_model_states.pt").unlink()
    with pytest.raises(ValueError, match=r"lacks .*Geo_detail"):
        Hi3DEval(checkout)


@pytest.mark.parametrize("scorer", ["raise SystemExit('out of memory')", "print('nothing written')"])
def test_a_scorer_that_fails_is_an_error_with_its_words(tmp_path, turntables, scorer):
    adapter = Hi3DEval(make_checkout(tmp_path / "checkout", scorer), launcher=[sys.executable])
    with pytest.raises(RuntimeError, match=r"Hi3DEval's scorer failed.*inference.py config.py"):
        adapter(turntables)
