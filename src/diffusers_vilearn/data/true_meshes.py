# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The meshes that a dataset was prepared from, for what its tables do not hold."""

import hashlib
from pathlib import Path

import trimesh

from ..geometry.mesh import load_mesh, merge_geometry, normalize_mesh
from .evaluation_views import EvaluationView
from .records import ObjectRecords, check_root


class TrueMeshes:
    """Bare triangles of the objects in a list, by uid.

    Args:
        objects (`Path`): the list that the dataset was prepared from, one JSON line an object.
        root (`Path`): folder that its paths are relative to.
        split (`str`): `train` or `heldout`.

    Raises:
        ValueError: `root` does not hold the meshes.
    """

    def __init__(self, objects: Path, root: Path, split: str):
        self.records = ObjectRecords(objects, splits=[split])
        check_root(self.records, root)
        self.row_of = {record["uid"]: row for row, record in enumerate(self.records)}
        self.root = root

    def __getitem__(self, uid: str) -> trimesh.Trimesh:
        """The mesh in the object frame.

        Raises:
            ValueError: no object of the list has this uid.
        """
        if uid not in self.row_of:
            raise ValueError(f"`objects` {str(self.records.path)!r} has no object {uid!r} of the split.")
        record = self.records[self.row_of[uid]]
        return merge_geometry(normalize_mesh(load_mesh(self.root / record["path"], member=record.get("member")))[0])

    def digest(self) -> str:
        """Tells the list from another one."""
        with open(self.records.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def in_frame_of(self, view: EvaluationView) -> trimesh.Trimesh:
        """The mesh of a view's object in the frame of the model."""
        return self[view.uid].apply_transform(view.similarity)
