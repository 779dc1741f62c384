# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Point samples of a surface."""

import numpy as np
import trimesh


def sample_surface(mesh: trimesh.Trimesh, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` points uniform by area with their face normals, (count, 6) float32: xyz, unit normal."""
    if not len(mesh.faces):
        raise ValueError("`mesh` must have at least one triangle, got none")
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=rng)
    return np.concatenate([points, mesh.face_normals[faces]], axis=1).astype(np.float32)


def sample_sharp_edges(
    mesh: trimesh.Trimesh, count: int, rng: np.random.Generator, minimum_angle: float = 30.0
) -> np.ndarray:
    """Up to `count` points on edges whose faces meet at more than `minimum_angle` degrees (Dora, section 3.2).

    Returns:
        `np.ndarray`: (count, 6) float32, xyz and the mean normal of both faces; (0, 6) if the mesh has no such edge.
    """
    sharp = mesh.face_adjacency_angles > np.radians(minimum_angle)
    start, end = mesh.vertices[mesh.face_adjacency_edges[sharp]].transpose(1, 0, 2)
    length = np.linalg.norm(end - start, axis=1)
    if length.sum() == 0:
        return np.zeros((0, 6), np.float32)
    edge = rng.choice(len(length), size=count, p=length / length.sum())
    points = start[edge] + rng.random((count, 1)) * (end - start)[edge]
    normals = mesh.face_normals[mesh.face_adjacency[sharp][edge]].sum(axis=1)
    # Faces folded back onto each other have opposite normals; either one will do there.
    folded = np.linalg.norm(normals, axis=1) < 1e-6
    normals[folded] = mesh.face_normals[mesh.face_adjacency[sharp][edge[folded], 0]]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.concatenate([points, normals], axis=1).astype(np.float32)
