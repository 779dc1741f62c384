# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Floaters: pieces of a generated mesh that hang together with nothing."""

import numpy as np
import trimesh


def count_components(mesh: trimesh.Trimesh, min_area_share: float = 0.0) -> int:
    """Connected components of a mesh, as many as `Trimesh.split(only_watertight=False)` gives: two faces are connected
    that have an edge of theirs alone.

    This is what the paper calls Floaters, the object itself included: 1 is perfect. The column `floaters` of our
    tables is one less, 0 being perfect.

    Args:
        mesh (`trimesh.Trimesh`): vertices at the same place should be shared, as extracted meshes have them.
        min_area_share (`float`): components of less than this share of the area of the largest one are specks and
            are not counted.
    """
    if not 0 <= min_area_share <= 1:
        raise ValueError(f"`min_area_share` must lie in [0, 1], but is {min_area_share!r}.")
    pieces = trimesh.graph.connected_components(mesh.face_adjacency, nodes=np.arange(len(mesh.faces)))
    areas = np.array([mesh.area_faces[piece].sum() for piece in pieces])
    return int((areas >= min_area_share * areas.max(initial=0)).sum())
