# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out views with the truth that a generated shape is measured against."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import datasets
import numpy as np
from PIL import Image

from ..geometry.cameras import Camera
from .field_samples import check_cube, cover_cube, move_field
from .frames import object_to_frame, transform_cloud
from .loading import load_table
from .preparation import object_rng
from .records import uid_key
from .visible_surface import seen_by_view

_PROBED_VIEWS = 8


@dataclass
class EvaluationView:
    """One condition image and its shape in the frame of the model.

    Args:
        uid (`str`), view (`int`): which view of which object.
        image (`PIL.Image.Image`): RGBA.
        camera (`Camera`): that the image was taken with, in the object frame.
        similarity (`np.ndarray`): (4, 4), from the object frame to that of the model.
        surface (`np.ndarray`): (points, 6) true surface samples, xyz and normal.
        sharp_edges (`np.ndarray`): (points, 6) samples of its sharp edges; there may be none.
        seen (`np.ndarray`): (points,) bool, whether the condition view sees them, see `seen_by_view`.
        xyz (`np.ndarray`): (queries, 3) uniform in the cube of half-side `bounds`.
        inside (`np.ndarray`): (queries,) bool, whether they lie inside the true solid.
    """

    uid: str
    view: int
    image: Image.Image
    camera: Camera
    similarity: np.ndarray
    surface: np.ndarray
    sharp_edges: np.ndarray
    seen: np.ndarray
    xyz: np.ndarray
    inside: np.ndarray

    @property
    def key(self) -> tuple[str, int]:
        return self.uid, self.view

    @property
    def towards_camera(self) -> np.ndarray:
        """(3,) unit vector from the object towards the camera, in the frame of the model."""
        # OpenGL cameras look along -Z.
        backwards = self.similarity[:3, :3] @ self.camera.camera_to_world[:3, 2]
        return backwards / np.linalg.norm(backwards)

    def noise_seed(self, seed: int) -> int:
        """Of the noise that shapes of this view start from: its own, so that no single draw decides a mean."""
        return uid_key(f"{seed}/{self.uid}/{self.view}") % 2**63


class EvaluationViews:
    """The first `views_per_object` views of every object of a prepared dataset.

    Args:
        dataset (`str`): see `load_table`.
        split (`str`): `train` or `heldout`.
        frame (`str`): of the model.
        bounds (`float`): half-side of the cube in which volumes are compared.
        views_per_object (`int`): taken from each object.
        cache_dir (`str`, *optional*): of `datasets`.

    Attributes:
        keys: uid and number of every view.
    """

    def __init__(
        self,
        dataset: str,
        split: str,
        *,
        frame: str,
        bounds: float,
        views_per_object: int = 1,
        cache_dir: str | None = None,
    ):
        check_cube(bounds)
        self.views = load_table(dataset, "views", split, cache_dir)
        self._cameras = self.views.select_columns(["uid", "view", "camera_to_world"]).with_format("numpy")
        kept = np.flatnonzero(np.array(self.views["view"]) < views_per_object)
        self.views = self.views.select(kept)
        self.views = self.views.with_format("numpy", ["camera_to_world", "visible_points"], output_all_columns=True)
        self.keys: list[tuple[str, int]] = list(zip(self.views["uid"], (int(view) for view in self.views["view"])))
        shapes = load_table(dataset, "shapes", split, cache_dir)
        self.row_of = {uid: row for row, uid in enumerate(shapes["uid"])}
        self.shapes: datasets.Dataset = shapes.with_format(
            "numpy", ["surface", "sharp_edges", "field_volume", "field_box"]
        )
        self.frame = frame
        self.bounds = bounds

    def __len__(self) -> int:
        return len(self.views)

    @cached_property
    def digest(self) -> str:
        """Tells the split from another one by its shapes' boxes and all its cameras, and from one prepared otherwise
        by all there is of its first views; the same for any number of views per object."""
        digest = hashlib.sha256()
        for table in (self.shapes.select_columns(["uid", "field_box"]).with_format("numpy"), self._cameras):
            names, *numbers = table[:].values()
            digest.update(json.dumps(names.tolist()).encode())
            for column in numbers:
                digest.update(np.ascontiguousarray(column).tobytes())
        firsts = [index for index, (_, view) in enumerate(self.keys) if view == 0][:_PROBED_VIEWS]
        for view in map(self.views.__getitem__, firsts):
            shape = self.shapes[self.row_of[view["uid"]]]
            arrays = [shape[name] for name in ("surface", "sharp_edges", "field_volume")]
            for array in (*arrays, view["image"], view["visible_points"]):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def __getitem__(self, index: int) -> EvaluationView:
        view = self.views[int(index)]
        shape = self.shapes[self.row_of[view["uid"]]]
        similarity = object_to_frame(self.frame, shape["surface"][:, :3], view["azimuth"])
        rng = object_rng(view["uid"], f"evaluation/{view['view']}")
        volume = move_field(similarity, shape["field_volume"])
        volume = cover_cube(similarity, shape["field_box"], volume, self.bounds, rng)
        camera = Camera(view["camera_to_world"], view["vertical_fov"], view["orthographic_height"])
        return EvaluationView(
            uid=view["uid"],
            view=view["view"],
            image=view["image"],
            camera=camera,
            similarity=similarity,
            surface=transform_cloud(similarity, shape["surface"]),
            sharp_edges=transform_cloud(similarity, shape["sharp_edges"]),
            seen=seen_by_view(shape["surface"], view["visible_points"], camera),
            xyz=volume[:, :3].astype(np.float32),
            inside=volume[:, 3] > 0,
        )
