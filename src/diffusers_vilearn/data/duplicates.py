# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Near-duplicate shapes, so that no held-out object has a twin in the training set.

Two objects are twins if their surfaces agree under a quarter turn about +Y or a mirror. A descriptor that neither
changes finds the few pairs worth comparing; the comparison itself is a Chamfer distance against the sampling noise.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import trimesh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from tqdm.auto import tqdm

from .engines import Answers, run_in_turn
from .workers import WorkerFailure

NUM_SAMPLES = 8192
# Chamfer distance over its sampling noise below which two surfaces count as the same shape.
_NOISE_RATIO = 1.3
# Largest distance between the descriptors of twins.
_DESCRIPTOR_DISTANCE = 0.1
# Some seconds of work, and some megabytes to hand over.
_CANDIDATES_AT_A_TIME = 64


def duplicate_samples(mesh: trimesh.Trimesh, uid: str) -> np.ndarray:
    """(`NUM_SAMPLES`, 3) float32, uniform on the surface of the mesh, centred, its longest half-side 1."""
    seed = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4], "big")
    points = trimesh.sample.sample_surface(mesh, NUM_SAMPLES, seed=seed)[0]
    return ((points - mesh.bounds.mean(axis=0)) / (mesh.extents.max() / 2)).astype(np.float32)


def shape_descriptor(points: np.ndarray) -> np.ndarray:
    """(11,) float32: height and width of `duplicate_samples`, and moments of their height and radius about +Y.

    The same for a shape, its mirror image and its quarter turns, up to sampling noise; close for close shapes.
    """
    x, y, z = points.T
    radius = np.hypot(x, z)
    moments = (y, y**2, y**3, radius, radius**2, radius**3, y * radius, y**2 * radius, np.abs(x * z))
    sides = np.abs(y).max(), max(np.abs(x).max(), np.abs(z).max())
    return np.array([*sides, *(moment.mean() for moment in moments)], np.float32)


def same_shape(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two `duplicate_samples` agree under a quarter turn about +Y or a mirror, judged by sampling noise."""
    return same_shapes(Candidates(0, first, [1], [second])) == [1]


@dataclass(frozen=True)
class Candidates:
    """A shape and those that may be its twins: the `duplicate_samples` of each, and its index."""

    index: int
    samples: np.ndarray
    others: list[int]
    samples_of_others: list[np.ndarray]


def same_shapes(candidates: Candidates) -> list[int]:
    """The indices of those that agree with the first shape, in the sense of `same_shape`."""
    first = candidates.samples.astype(np.float32)
    half = len(first) // 2
    sides, tree, noise = np.abs(first).max(axis=0), cKDTree(first[:half]), sampling_noise(first)

    def agrees(second: np.ndarray) -> bool:
        poses = upright_poses(second[:half])
        poses = [moved for moved in poses if np.abs(np.abs(moved).max(axis=0) - sides).max() < 0.06]
        if not poses:
            return False
        limit = _NOISE_RATIO * (noise + sampling_noise(second)) / 2
        # One way is half of the distance, and enough to tell most apart.
        near = (moved for moved in poses if tree.query(moved)[0].mean() / 2 < limit)
        return any(chamfer_distance(first[:half], moved) < limit for moved in near)

    pairs = zip(candidates.others, candidates.samples_of_others, strict=True)
    return [index for index, second in pairs if agrees(second.astype(np.float32))]


def sampling_noise(samples: np.ndarray) -> float:
    """Chamfer distance between the two halves of `duplicate_samples`."""
    half = len(samples) // 2
    return chamfer_distance(samples[:half], samples[half:])


def upright_poses(points: np.ndarray) -> Iterator[np.ndarray]:
    """The points (n, 3) under the four quarter turns about +Y, each also mirrored."""
    for mirror in (1, -1):
        for cosine, sine in ((1, 0), (0, 1), (-1, 0), (0, -1)):
            x, y, z = points.T
            yield np.stack((mirror * (cosine * x + sine * z), y, cosine * z - sine * x), axis=1)


def chamfer_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Mean nearest-neighbour distance between two point sets (n, 3) and (m, 3), both ways."""
    return float(cKDTree(first).query(second)[0].mean() + cKDTree(second).query(first)[0].mean()) / 2


def twin_pairs(
    descriptors: Sequence[np.ndarray],
    samples: Sequence[np.ndarray],
    run: Callable[[Callable, Iterable], Answers] = run_in_turn,
) -> list[tuple[int, int]]:
    """Index pairs of shapes that agree, sorted.

    Args:
        descriptors: `shape_descriptor` by index.
        samples: `duplicate_samples` by index, read only for the pairs that are compared; may be a file on disk.
        run: (function, tasks) -> (task, answer) in any order, of `engines`.

    Raises:
        RuntimeError: the process that compares some shapes has failed.
    """
    if not len(descriptors):
        return []
    tree = cKDTree(np.stack(descriptors))
    total = (int(tree.count_neighbors(tree, _DESCRIPTOR_DISTANCE)) - tree.n) // 2
    pairs = []
    with tqdm(total=total, desc="Twins", unit="pair") as bar:
        for candidates, twins in run(same_shapes, _candidates(tree, samples)):
            if isinstance(twins, WorkerFailure):
                raise RuntimeError(f"Shapes could not be compared: {twins.message}.")
            pairs.extend((candidates.index, twin) for twin in twins)
            bar.update(len(candidates.others))
    return sorted(pairs)


def _candidates(tree: cKDTree, samples: Sequence[np.ndarray]) -> Iterator[Candidates]:
    """Every pair that is worth comparing, once, some of one shape at a time."""
    for index, descriptor in enumerate(tree.data):
        others = sorted(other for other in tree.query_ball_point(descriptor, _DESCRIPTOR_DISTANCE) if other > index)
        for start in range(0, len(others), _CANDIDATES_AT_A_TIME):
            some = others[start : start + _CANDIDATES_AT_A_TIME]
            yield Candidates(index, samples[index], some, [samples[other] for other in some])


def join_groups(size: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """(size,) int: the group of each object, where paired objects share one; groups count from their first object."""
    pairs = np.array(pairs, int).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(size, size))
    labels = connected_components(graph, directed=False)[1]
    first = np.full(labels.max(initial=-1) + 1, size)
    np.minimum.at(first, labels, np.arange(size))
    return first[labels]


def check_heldout_fraction(fraction: float) -> None:
    """Raise `ValueError` unless it lies in [0, 1]."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"`heldout_fraction` is {fraction}; it must lie in [0, 1].")


def split_groups(groups: Mapping[str, str], heldout_fraction: float) -> dict[str, str]:
    """uid -> `train` or `heldout`, whole groups at a time, by the hash of the group's name.

    Args:
        groups: uid -> name of its group.
        heldout_fraction (`float`): expected part of the groups that is held out, in [0, 1].
    """
    check_heldout_fraction(heldout_fraction)

    def is_heldout(group: str) -> bool:
        return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") < heldout_fraction * 2**64

    return {uid: "heldout" if is_heldout(group) else "train" for uid, group in groups.items()}
