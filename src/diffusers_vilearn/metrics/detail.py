# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Detail behind: how much a model invents where the condition image shows nothing."""

import numpy as np
import trimesh
from scipy.spatial import cKDTree

NUM_SAMPLES = 2048
NUM_NEIGHBOURS = 16


def detail_behind(mesh: trimesh.Trimesh | None, towards_camera: np.ndarray) -> dict[str, float]:
    """How much there is in the half of a mesh that is turned away: the part of its surface that looks away from the
    camera and lies behind the middle. What the paper's supplement shows in Fig. S2.

    Args:
        mesh (`trimesh.Trimesh`, *optional*): `None` for a shape that failed.
        towards_camera (`np.ndarray`): (3,) unit vector.

    Returns:
        `dict`: `area_behind` is the area of that part, and `roughness_behind` the mean variance of its normals among
        `NUM_NEIGHBOURS` neighbouring samples, 0 where it is flat and at most 1; 0 both where there is no such part.
    """
    if mesh is None:
        return {"area_behind": 0.0, "roughness_behind": 0.0}
    depth = mesh.triangles_center @ towards_camera
    behind = (depth < mesh.bounds.mean(axis=0) @ towards_camera) & (mesh.face_normals @ towards_camera < 0)
    area = float(mesh.area_faces[behind].sum())
    if area == 0:
        return {"area_behind": 0.0, "roughness_behind": 0.0}
    part = mesh.submesh([np.flatnonzero(behind)], append=True, repair=False)
    points, faces = trimesh.sample.sample_surface(part, NUM_SAMPLES, seed=0)
    _, neighbours = cKDTree(points).query(points, k=NUM_NEIGHBOURS)
    mean_normals = part.face_normals[faces][neighbours].mean(axis=1)
    return {"area_behind": area, "roughness_behind": float(1 - np.square(mean_normals).sum(axis=1).mean())}
