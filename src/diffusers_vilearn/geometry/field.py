# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Mesh -> signed distance, also for meshes that are not watertight.

A field needs an inside. A watertight single solid has one; any other triangle soup is given one by the thin shell that
Dora and Hunyuan3D-2.1 use: everything closer than `2 / resolution` to a triangle is solid, and so is every cavity that
the outside cannot reach.
"""

import igl
import numpy as np
import torch
import trimesh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .extraction import extract_mesh


def signed_distance(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Distances of `points` (n, 3) to a watertight mesh, **positive inside**, (n,) float64.

    The sign is that of the angle-weighted pseudonormal (Bærentzen and Aanæs 2005), exact for closed surfaces that do
    not cross themselves, as `solid_surface` returns them.
    """
    distance, _, _, _ = igl.signed_distance(
        np.ascontiguousarray(points, np.float64),
        *_arrays(mesh),
        igl.SignedDistanceType.SIGNED_DISTANCE_TYPE_PSEUDONORMAL,
    )
    return -distance


def winding_number(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Generalised winding numbers of a mesh about `points` (n, 3) (Barill et al. 2018), (n,) float64."""
    return igl.fast_winding_number(*_arrays(mesh), np.ascontiguousarray(points, np.float64))


def _arrays(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces as libigl wants them, which without a face ends the process."""
    if not len(mesh.faces):
        raise ValueError("`mesh` must have at least one triangle, got none")
    return np.array(mesh.vertices, np.float64, order="C"), np.array(mesh.faces, np.int64, order="C")


# The shell of a mesh that is normalised to 0.95 ends within `bounds` from this resolution on.
SMALLEST_RESOLUTION = 34


def solid_surface(mesh: trimesh.Trimesh, resolution: int = 128, bounds: float = 1.01) -> trimesh.Trimesh:
    """The closed surface of the solid that `mesh` shows to the outside.

    Args:
        mesh (`trimesh.Trimesh`): normalised into `[-bounds, bounds]`; soups, holes and interior faces are allowed.
        resolution (`int`): cells per axis of the thin shell; the shell reaches `2 / resolution` from the triangles.
        bounds (`float`): half-side of the cube that is searched.

    Returns:
        `trimesh.Trimesh`: watertight, faces outwards, no cavities. A watertight single solid that hides none of its
        surface is returned as it is, only turned inside out if its faces point inwards.
    """
    if mesh.is_watertight and mesh.is_winding_consistent and face_components(mesh).max() == 0:
        if mesh.volume < 0:
            mesh = trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False)
        if mesh.is_volume and _hidden_share(mesh) < 1e-3:
            return mesh
    vertices, faces = _arrays(mesh)
    tree = igl.AABB()
    tree.init(vertices, faces)
    offset = 2.0 / resolution
    truncation = 4 * (2 * bounds / resolution)

    def shell(points: torch.Tensor) -> torch.Tensor:
        squared, _, _ = tree.squared_distance(vertices, faces, points.numpy().astype(np.float64))
        return torch.from_numpy(((offset - np.sqrt(squared)) / truncation).clip(-1.0, 1.0)).float()

    return drop_hidden_components(extract_mesh(shell, bounds=bounds, resolution=resolution, truncation=truncation))


def _hidden_share(mesh: trimesh.Trimesh) -> float:
    """Part of the area of a watertight mesh that is hidden or inside out, since it crosses itself; told by 20,000
    faces."""
    some = slice(None, None, 1 + len(mesh.faces) // 20_000)
    areas = mesh.area_faces[some]
    return areas[_are_hidden(mesh, some)].sum() / areas.sum()


def _are_hidden(mesh: trimesh.Trimesh, faces: np.ndarray | slice) -> np.ndarray:
    """Which of some faces of a watertight mesh lie inside of it, or face the inside of a part that is inside out: just
    outside of them one still is in, (k,) bool."""
    # 1e-4 of the object frame, whose longest half-side is 0.95
    just_outside = mesh.triangles_center[faces] + 1e-4 * mesh.face_normals[faces]
    return np.abs(winding_number(mesh, just_outside)) > 0.5


def drop_hidden_components(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Remove what no outside view sees of a watertight mesh: walls of cavities, and solids inside them."""
    components = face_components(mesh)
    corners = mesh.triangles
    volumes = np.bincount(components, np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))) / 6
    solids = np.flatnonzero(volumes > 0)
    outer = mesh.submesh([np.isin(components, solids)], append=True, repair=False)
    if len(solids) == 1:
        return outer
    labels = face_components(outer)
    by_area = np.argsort(-outer.area_faces)
    largest_face = by_area[np.unique(labels[by_area], return_index=True)[1]]
    nested = _are_hidden(outer, largest_face)
    return outer.submesh([np.isin(labels, np.flatnonzero(~nested))], append=True, repair=False)


def face_components(mesh: trimesh.Trimesh) -> np.ndarray:
    """Connected component of each face (faces that share a vertex are connected), (faces,) int."""
    faces = mesh.faces
    links = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    size = len(mesh.vertices)
    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][faces[:, 0]]
    return np.unique(labels, return_inverse=True)[1]
