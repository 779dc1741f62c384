# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""One condition view -> what the visibility alignment regulariser compares: queries, pixels, and the image."""

from collections import defaultdict

import numpy as np

from ..geometry.cameras import Camera
from .frames import transform_points
from .images import condition_square
from .latents import preprocess_images

QUERIES = ("points", "rays")


class AlignmentViews:
    """Condition views of stored shapes, for `models/visibility_adaptor.py`.

    Args:
        views (`datasets.Dataset`): rows of `VIEW_FEATURES`.
        image_processor: of the image encoder; its crop size is the size of the condition image.
        num_queries (`int`): visible points a view.
        queries (`str`): `points`, the visible points themselves, or `rays`, the Plücker coordinates of the rays that
            the camera sees them along.
    """

    def __init__(self, views, image_processor, *, num_queries: int, queries: str):
        if queries not in QUERIES:
            raise ValueError(f"`queries` must be one of {QUERIES}, but is {queries!r}.")
        self.views = views.with_format("numpy", ["visible_points", "camera_to_world"], output_all_columns=True)
        self.image_processor = image_processor
        self.num_queries = num_queries
        self.queries = queries
        self.rows_of = defaultdict(list)
        for row, uid in enumerate(views["uid"]):
            self.rows_of[uid].append(row)

    def check(self, uids: list[str]) -> None:
        """Raise `ValueError` unless there is a view of every object."""
        lacking = [uid for uid in uids if uid not in self.rows_of]
        if lacking:
            raise ValueError(f"The table `views` has no view of {len(lacking)} objects, {lacking[0]!r} among them.")

    def draw(self, uid: str, rng: np.random.Generator) -> dict:
        """A random view of an object."""
        return self.views[int(rng.choice(self.rows_of[uid]))]

    def sample(self, view: dict, similarity: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """What is compared in one view.

        Args:
            view (`dict`): from `draw`.
            similarity (`np.ndarray`): (4, 4), from the object frame to that of the latents.
            rng (`np.random.Generator`): draws the visible points.

        Returns:
            `dict`: `pixel_values` (3, size, size), the condition image as the image encoder takes it;
            `alignment_queries` (queries, 3 or 6), in the frame of the latents; `alignment_positions` (queries, 2),
            where the condition image shows them, (x, y) in [-1, 1].
        """
        image = view["image"]
        camera = Camera(view["camera_to_world"], view["vertical_fov"], view["orthographic_height"])
        visible = view["visible_points"]
        points = visible[rng.integers(len(visible), size=self.num_queries)].astype(np.float64)
        left, top, side = condition_square(image)
        pixels, _ = camera.project(points, (image.height, image.width))
        queries = transform_points(similarity, points)
        if self.queries == "rays":
            queries = plucker_rays(queries, directions_to(camera, points) @ similarity[:3, :3].T)
        return {
            "pixel_values": preprocess_images(self.image_processor, [image])[0].numpy(),
            "alignment_queries": queries,
            "alignment_positions": 2 * (pixels - (left, top)) / side - 1,
        }


def directions_to(camera: Camera, points: np.ndarray) -> np.ndarray:
    """Directions (n, 3), of any length, of the rays along which a camera sees `points` (n, 3)."""
    if camera.is_orthographic:
        return np.broadcast_to(-camera.camera_to_world[:3, 2], points.shape)
    return points - camera.position


def plucker_rays(points: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Plücker coordinates (n, 6) of lines through `points` (n, 3) along `directions` (n, 3): the unit direction d and
    the moment p × d, the same for every point p of a line and as long as the line is far from the origin."""
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return np.concatenate([directions, np.cross(points, directions)], axis=1)
