# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Near-duplicate shapes, so that no held-out object has a twin in the training set.

Two objects are twins if their surfaces agree under a quarter turn about +Y or a mirror. A descriptor that neither
changes finds the few pairs worth comparing; the comparison itself is a Chamfer distance against the sampling noise.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
# Points of a pose that tell most of them apart.
_FEW_POINTS = 128
# A second of work or less, and some megabytes to hand over.
_CANDIDATES_AT_A_TIME = 64


@dataclass(frozen=True)
class Sketch:
    """What a shape's twins are told by.

    Args:
        samples (`np.ndarray`): (`NUM_SAMPLES`, 3), uniform on its surface, centred, its longest half-side 1.
        descriptor (`np.ndarray`): their `shape_descriptor`.
        noise (`float`): their `sampling_noise`.
    """

    samples: np.ndarray
    descriptor: np.ndarray
    noise: float

    @property
    def half(self) -> np.ndarray:
        """(`NUM_SAMPLES` / 2, 3) float32, those that are compared."""
        return self.samples[: NUM_SAMPLES // 2].astype(np.float32)


def sketch_mesh(mesh: trimesh.Trimesh, uid: str) -> Sketch:
    """The `Sketch` of a mesh; `uid` seeds its samples."""
    seed = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4], "big")
    points = trimesh.sample.sample_surface(mesh, NUM_SAMPLES, seed=seed)[0]
    samples = ((points - mesh.bounds.mean(axis=0)) / (mesh.extents.max() / 2)).astype(np.float32)
    return Sketch(samples, shape_descriptor(samples), sampling_noise(samples))


def shape_descriptor(points: np.ndarray) -> np.ndarray:
    """(11,) float32: height and width of the samples of a `Sketch`, and moments of their height and radius about +Y.

    The same for a shape, its mirror image and its quarter turns, up to sampling noise; close for close shapes.
    """
    x, y, z = points.T
    radius = np.hypot(x, z)
    moments = (y, y**2, y**3, radius, radius**2, radius**3, y * radius, y**2 * radius, np.abs(x * z))
    sides = np.abs(y).max(), max(np.abs(x).max(), np.abs(z).max())
    return np.array([*sides, *(moment.mean() for moment in moments)], np.float32)


def sampling_noise(samples: np.ndarray) -> float:
    """Chamfer distance between the two halves of the samples (`NUM_SAMPLES`, 3) of a `Sketch`."""
    half = NUM_SAMPLES // 2
    return chamfer_distance(samples[:half], samples[half:])


def same_shape(first: Sketch, second: Sketch) -> bool:
    """Whether two surfaces agree under a quarter turn about +Y or a mirror, judged by sampling noise."""
    return same_shapes(Candidates(0, first, {1: second})) == [1]


@dataclass(frozen=True)
class Candidates:
    """A shape, its index, and those that may be its twins by theirs."""

    index: int
    sketch: Sketch
    others: dict[int, Sketch]


def same_shapes(candidates: Candidates) -> list[int]:
    """The indices of those that agree with the first shape, in the sense of `same_shape`."""
    first = candidates.sketch.half
    sides, tree = np.abs(first).max(axis=0), cKDTree(first)

    def agrees(other: Sketch) -> bool:
        limit = _NOISE_RATIO * (candidates.sketch.noise + other.noise) / 2
        poses = upright_poses(other.half)
        poses = (moved for moved in poses if np.abs(np.abs(moved).max(axis=0) - sides).max() < 0.06)
        # One way is half of the distance, and enough to tell most apart; of most of these, a few points are.
        poses = (moved for moved in poses if _least_mean(tree.query(moved[:_FEW_POINTS])[0]) / 2 < limit)
        poses = (moved for moved in poses if tree.query(moved)[0].mean() / 2 < limit)
        return any(chamfer_distance(first, moved) < limit for moved in poses)

    return [index for index, other in candidates.others.items() if agrees(other)]


def _least_mean(distances: np.ndarray) -> float:
    """What the mean that these are drawn from is not below, by four standard errors."""
    return distances.mean() - 4 * distances.std() / len(distances) ** 0.5


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
    sketches: Sequence[Sketch], run: Callable[[Callable, Iterable], Answers] = run_in_turn
) -> list[tuple[int, int]]:
    """Index pairs of shapes that agree, sorted.

    Args:
        sketches: by index; the samples may lie in a file on disk, and are read only for the pairs that are compared.
        run: (function, tasks) -> (task, answer) in any order, of `engines`.

    Raises:
        RuntimeError: the process that compares some shapes has failed.
    """
    if not len(sketches):
        return []
    tree = cKDTree(np.stack([sketch.descriptor for sketch in sketches]))
    total = (int(tree.count_neighbors(tree, _DESCRIPTOR_DISTANCE)) - tree.n) // 2
    pairs = []
    with tqdm(total=total, desc="Twins", unit="pair") as bar:
        for candidates, twins in run(same_shapes, _candidates(tree, sketches)):
            if isinstance(twins, WorkerFailure):
                raise RuntimeError(f"Shapes could not be compared: {twins.message}.")
            pairs.extend((candidates.index, twin) for twin in twins)
            bar.update(len(candidates.others))
    return sorted(pairs)


def _candidates(tree: cKDTree, sketches: Sequence[Sketch]) -> Iterator[Candidates]:
    """Every pair that is worth comparing, once, some of one shape at a time."""

    def read(index: int) -> Sketch:
        return replace(sketches[index], samples=np.array(sketches[index].samples))

    for index, descriptor in enumerate(tree.data):
        others = sorted(other for other in tree.query_ball_point(descriptor, _DESCRIPTOR_DISTANCE) if other > index)
        for start in range(0, len(others), _CANDIDATES_AT_A_TIME):
            some = others[start : start + _CANDIDATES_AT_A_TIME]
            yield Candidates(index, read(index), {other: read(other) for other in some})


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
