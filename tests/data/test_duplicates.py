# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
from functools import partial

import numpy as np
import pytest
import trimesh

from diffusers_vilearn.data.duplicates import (
    join_groups,
    same_shape,
    sketch_mesh,
    split_groups,
    twin_pairs,
)
from diffusers_vilearn.data.engines import run_local
from diffusers_vilearn.data.workers import WorkerFailure, WorkerLimits


def bench(back: float = 0.5) -> trimesh.Trimesh:
    """A seat with a back and an arm on one side: no symmetry."""
    parts = [((1.4, 0.1, 0.6), (0, 0.4, 0)), ((1.4, back, 0.1), (0, 0.4 + back / 2, -0.25))]
    parts += [
        ((0.1, 0.3, 0.6), (0.65, 0.55, 0)),
        ((0.1, 0.4, 0.1), (0.6, 0.2, 0.2)),
        ((0.1, 0.4, 0.1), (-0.6, 0.2, 0)),
    ]
    boxes = [trimesh.creation.box(size, trimesh.transformations.translation_matrix(at)) for size, at in parts]
    return trimesh.util.concatenate(boxes)


def turned(mesh: trimesh.Trimesh, quarters: int, mirrored: bool, scale: float) -> trimesh.Trimesh:
    mesh = mesh.copy()
    mesh.apply_transform(trimesh.transformations.rotation_matrix(quarters * np.pi / 2, (0, 1, 0)))
    mesh.vertices *= scale * np.array((-1 if mirrored else 1, 1, 1))
    return mesh


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_mirrored_and_scaled_copies_are_twins(quarters, mirrored):
    first = sketch_mesh(bench(), "a")
    second = sketch_mesh(turned(bench(), quarters, mirrored, 3.0), "b")
    assert same_shape(first, second)
    assert np.linalg.norm(first.descriptor - second.descriptor) < 0.05
    assert twin_pairs([first, second]) == [(0, 1)]


@pytest.mark.parametrize("other", [bench(0.7), turned(bench(), 0, False, 1.0).apply_scale((1, 1, 1.5))])
def test_other_proportions_are_no_twins(other):
    assert not same_shape(sketch_mesh(bench(), "a"), sketch_mesh(other, "b"))


def test_pairs_are_the_same_in_other_processes():
    shapes = [turned(bench(back), quarters, False, 1.0) for back in (0.5, 0.52, 0.7) for quarters in range(3)]
    sketches = [sketch_mesh(shape, str(index)) for index, shape in enumerate(shapes)]
    pairs = twin_pairs(sketches)
    assert pairs == [(i, j) for i in range(9) for j in range(i + 1, 9) if same_shape(sketches[i], sketches[j])]
    assert {(0, 1), (3, 4), (6, 8)} <= set(pairs) and not {(0, 6), (3, 7)} & set(pairs)
    assert twin_pairs(sketches, partial(run_local, limits=WorkerLimits(), num_workers=2)) == pairs


def test_shapes_whose_process_fails_are_named_as_not_compared():
    sketches = [sketch_mesh(bench(), uid) for uid in "ab"]
    failure = WorkerFailure("time_limit", "it took more than 1 s")
    with pytest.raises(RuntimeError, match="could not be compared: it took more than 1 s"):
        twin_pairs(sketches, lambda function, tasks: ((task, failure) for task in tasks))


def test_groups_are_the_closure_of_pairs_and_count_from_their_first_object():
    assert join_groups(6, [(1, 4), (4, 5), (2, 3)]).tolist() == [0, 1, 2, 2, 1, 1]
    assert join_groups(3, []).tolist() == [0, 1, 2]
    assert twin_pairs([]) == []


def test_a_split_keeps_groups_whole_and_holds_out_the_wanted_fraction():
    groups = {f"object{index}": f"group{index // 3}" for index in range(3000)}
    split = split_groups(groups, 0.2)
    for group in set(groups.values()):
        assert len({split[uid] for uid, name in groups.items() if name == group}) == 1
    assert list(split.values()).count("heldout") / 3000 == pytest.approx(0.2, abs=0.03)
    grown = split_groups(groups | {"new": "another"}, 0.2)
    assert all(grown[uid] == part for uid, part in split.items()), "more objects move none of the others"
    with pytest.raises(ValueError, match="heldout_fraction"):
        split_groups(groups, 1.5)
