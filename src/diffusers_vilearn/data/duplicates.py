# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Near-duplicate shapes, so that no held-out object has a twin in the training set.

Two objects are twins if their surfaces agree under a quarter turn about +Y or a mirror. A descriptor that neither
changes finds the few pairs worth comparing; the comparison itself is a Chamfer distance against the sampling noise.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import trimesh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from tqdm.auto import tqdm

NUM_SAMPLES = 8192
# Chamfer distance over its sampling noise below which two surfaces count as the same shape.
_NOISE_RATIO = 1.3
# Largest distance between the descriptors of twins.
_DESCRIPTOR_DISTANCE = 0.1


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
    half = len(first) // 2
    sides = np.abs(first).max(axis=0)
    poses = [moved for moved in upright_poses(second[:half]) if np.abs(np.abs(moved).max(axis=0) - sides).max() < 0.06]
    if not poses:
        return False
    noise = (chamfer_distance(first[:half], first[half:]) + chamfer_distance(second[:half], second[half:])) / 2
    tree = cKDTree(first[:half])
    # One way is half of the distance, and enough to tell most apart.
    near = (moved for moved in poses if tree.query(moved)[0].mean() / 2 < _NOISE_RATIO * noise)
    return any(chamfer_distance(first[:half], moved) < _NOISE_RATIO * noise for moved in near)


def upright_poses(points: np.ndarray) -> Iterator[np.ndarray]:
    """The points (n, 3) under the four quarter turns about +Y, each also mirrored."""
    for mirror in (1, -1):
        for cosine, sine in ((1, 0), (0, 1), (-1, 0), (0, -1)):
            x, y, z = points.T
            yield np.stack((mirror * (cosine * x + sine * z), y, cosine * z - sine * x), axis=1)


def chamfer_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Mean nearest-neighbour distance between two point sets (n, 3) and (m, 3), both ways."""
    return float(cKDTree(first).query(second)[0].mean() + cKDTree(second).query(first)[0].mean()) / 2


def twin_pairs(descriptors: Sequence[np.ndarray], samples: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Index pairs of shapes that agree.

    Args:
        descriptors: `shape_descriptor` by index.
        samples: `duplicate_samples` by index, read only for the pairs that are compared; may be a file on disk.
    """
    if not len(descriptors):
        return []
    pairs = cKDTree(np.stack(descriptors)).query_pairs(_DESCRIPTOR_DISTANCE, output_type="ndarray")
    pairs = tqdm(pairs[np.lexsort(pairs.T[::-1])], desc="Twins", unit="pair")
    return [(int(i), int(j)) for i, j in pairs if same_shape(samples[i], samples[j])]


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
