# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Pinhole and orthographic cameras, and the views that training and evaluation look from.

A camera looks along its own −Z with +Y up (OpenGL). World and object frame are right-handed, +Y up, the front of an
object towards +Z. Pixel (row i, column j) has its centre at image position (x, y) = (j + 0.5, i + 0.5), row 0 on top.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Distance at which a camera sees the whole cube of half-side 0.95 that normalised objects fill, from any side.
_NORMALIZED_RADIUS = 0.95 * np.sqrt(3.0)


@dataclass(frozen=True, eq=False)
class Camera:
    """A view of the world: perspective if `vertical_fov` is given, orthographic if `orthographic_height` is.

    Args:
        camera_to_world: (4, 4) rigid transform, no scale; column 2 points backwards, column 3 is the position.
        vertical_fov: full vertical field of view in degrees, in (0, 180).
        orthographic_height: world units that the image is high, above 0.
    """

    camera_to_world: np.ndarray
    vertical_fov: float | None = None
    orthographic_height: float | None = None

    def __post_init__(self):
        matrix = np.array(self.camera_to_world, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError(f"`camera_to_world` must be a finite (4, 4) matrix, got\n{self.camera_to_world}")
        rotation = matrix[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-5 or np.linalg.det(rotation) < 0:
            raise ValueError(f"`camera_to_world` must hold a rotation without scale or mirroring, got\n{matrix}")
        if (self.vertical_fov is None) == (self.orthographic_height is None):
            raise ValueError(
                "exactly one of `vertical_fov` and `orthographic_height` must be given, "
                f"got {self.vertical_fov} and {self.orthographic_height}"
            )
        if self.vertical_fov is not None and not 0 < self.vertical_fov < 180:
            raise ValueError(f"`vertical_fov` must be between 0 and 180 degrees, got {self.vertical_fov}")
        if self.orthographic_height is not None and not 0 < self.orthographic_height < np.inf:
            raise ValueError(f"`orthographic_height` must be positive and finite, got {self.orthographic_height}")
        matrix.setflags(write=False)
        object.__setattr__(self, "camera_to_world", matrix)

    @property
    def is_orthographic(self) -> bool:
        return self.orthographic_height is not None

    @property
    def position(self) -> np.ndarray:
        """(3,) world position."""
        return self.camera_to_world[:3, 3]

    @property
    def world_to_camera(self) -> np.ndarray:
        """(4, 4) inverse of `camera_to_world`."""
        inverse = np.eye(4)
        inverse[:3, :3] = self.camera_to_world[:3, :3].T
        inverse[:3, 3] = -inverse[:3, :3] @ self.position
        return inverse

    @property
    def half_height(self) -> float:
        """Half the image height: at depth 1 for a perspective camera, at any depth for an orthographic one."""
        if self.is_orthographic:
            return self.orthographic_height / 2
        return float(np.tan(np.radians(self.vertical_fov) / 2))

    def rays(
        self, resolution: int | tuple[int, int], pixels: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rays through the pixel centres.

        Args:
            resolution: side of a square image, or (height, width); pixels are square.
            pixels: flat indices, row by row from the top left; all pixels if left out.

        Returns:
            origins (N, 3) and unit directions (N, 3) in the world, float64.
        """
        height, width = image_size(resolution)
        row, column = np.divmod(np.arange(height * width) if pixels is None else np.ravel(pixels), width)
        scale = 2 * self.half_height / height
        x = (column + 0.5 - width / 2) * scale
        y = (height / 2 - row - 0.5) * scale
        rotation = self.camera_to_world[:3, :3]
        if self.is_orthographic:
            origins = x[:, None] * rotation[:, 0] + y[:, None] * rotation[:, 1] + self.position
            return origins, np.broadcast_to(-rotation[:, 2], origins.shape)
        directions = x[:, None] * rotation[:, 0] + y[:, None] * rotation[:, 1] - rotation[:, 2]
        directions /= np.sqrt(np.einsum("nc,nc->n", directions, directions))[:, None]
        return np.broadcast_to(self.position, directions.shape), directions

    def project(self, points: np.ndarray, resolution: int | tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Image positions (N, 2) as (x, y) in pixels, and depths (N,) along the view axis, of world points (N, 3).

        Points at or behind a perspective camera have no image: their pixels are NaN.
        """
        height, width = image_size(resolution)
        local = np.asarray(points, dtype=np.float64) @ self.world_to_camera[:3, :3].T + self.world_to_camera[:3, 3]
        depth = -local[:, 2]
        extent = np.full_like(depth, self.half_height)
        if not self.is_orthographic:
            extent *= np.where(depth > 0, depth, np.nan)
        scaled = local[:, :2] / extent[:, None] * (height / 2)
        return np.stack([width / 2 + scaled[:, 0], height / 2 - scaled[:, 1]], axis=1), depth

    def projection_matrix(self, aspect: float, near: float, far: float) -> np.ndarray:
        """(4, 4) OpenGL projection from camera to clip space, `aspect` = width / height."""
        if not near < far or (near <= 0 and not self.is_orthographic):
            raise ValueError(f"`near` and `far` must satisfy 0 < near < far, got {near} and {far}")
        matrix = np.zeros((4, 4))
        matrix[0, 0] = 1 / (aspect * self.half_height)
        matrix[1, 1] = 1 / self.half_height
        if self.is_orthographic:
            matrix[2, 2:] = -2 / (far - near), -(far + near) / (far - near)
            matrix[3, 3] = 1
        else:
            matrix[2, 2:] = -(far + near) / (far - near), -2 * far * near / (far - near)
            matrix[3, 2] = -1
        return matrix


def image_size(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of `resolution`, which is that pair or the side of a square."""
    size = (resolution, resolution) if np.ndim(resolution) == 0 else tuple(resolution)
    if len(size) != 2 or any(int(side) != side or side < 1 for side in size):
        raise ValueError(f"`resolution` must be a positive integer or (height, width), got {resolution}")
    return int(size[0]), int(size[1])


def look_at(position, target=(0.0, 0.0, 0.0), up=(0.0, 1.0, 0.0)) -> np.ndarray:
    """(4, 4) camera-to-world transform of a camera at `position` that looks at `target` with `up` upwards."""
    position, target, up = (np.asarray(value, dtype=np.float64) for value in (position, target, up))
    backward = position - target
    right = np.cross(up, backward)
    scale = np.linalg.norm(backward) * np.linalg.norm(up)
    if not np.linalg.norm(right) > 1e-9 * scale:
        raise ValueError(f"`up` {up} must not be parallel to the view from `position` {position} to `target` {target}")
    backward /= np.linalg.norm(backward)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(backward, right), backward, position], axis=1)
    return matrix


def _orbit_rotation(azimuth: float, elevation: float, roll: float = 0.0) -> np.ndarray:
    """(3, 3) camera-to-world rotation; built from the angles, so that it also holds straight above and below."""
    a, e, r = np.radians([azimuth, elevation, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(e), np.sin(e)], [0, -np.sin(e), np.cos(e)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def _orbit_transform(rotation: np.ndarray, distance: float, target) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = np.asarray(target, dtype=np.float64) + distance * matrix[:3, 2]
    return matrix


def orbit_camera(
    azimuth: float,
    elevation: float,
    *,
    distance: float | None = None,
    vertical_fov: float | None = 40.0,
    orthographic_height: float | None = None,
    target=(0.0, 0.0, 0.0),
) -> Camera:
    """A camera on a sphere about `target`, looking at it.

    Args:
        azimuth: degrees; 0 looks at the front from +Z, 90 stands on +X.
        elevation: degrees above the horizon.
        distance: from the target. Left out, a perspective camera stands where the cube of half-side 0.95 is whole in
            view from any side, and an orthographic one stands outside of it.
        vertical_fov: degrees; ignored in favour of `orthographic_height` where that is given.
        orthographic_height: world units that the image of an orthographic camera is high.
    """
    if orthographic_height is not None:
        vertical_fov = None
    if distance is None:
        distance = 2 * _NORMALIZED_RADIUS
        if vertical_fov is not None:
            distance = _NORMALIZED_RADIUS / np.sin(np.radians(vertical_fov) / 2)
    return Camera(
        _orbit_transform(_orbit_rotation(azimuth, elevation), distance, target), vertical_fov, orthographic_height
    )


def sphere_cameras(count: int, *, distance: float, vertical_fov: float = 40.0) -> list[Camera]:
    """Upright cameras spread evenly over a sphere about the origin, from the top down along a spherical Fibonacci
    lattice: each stands for an equal area.

    Args:
        count: number of cameras, at least 1.
        distance: from the origin.
        vertical_fov: degrees.
    """
    if int(count) != count or count < 1:
        raise ValueError(f"`count` must be a positive integer, got {count}")
    index = np.arange(count)
    elevations = np.degrees(np.arcsin(1 - (2 * index + 1) / count))
    golden_angle = 180 * (3 - np.sqrt(5))
    azimuths = index * golden_angle % 360
    return [
        orbit_camera(azimuth, elevation, distance=distance, vertical_fov=vertical_fov)
        for azimuth, elevation in zip(azimuths, elevations)
    ]


def fit_camera(
    points: np.ndarray,
    azimuth: float,
    elevation: float,
    *,
    roll: float = 0.0,
    vertical_fov: float | None = 40.0,
    fill: float = 0.9,
) -> Camera:
    """The orbit camera about the origin, nearest to it, whose square image holds `points` in its central `fill` part.

    Exact: some point lies on the border of the central part, unless another would be nearer to the camera than 1% of
    the largest distance from the origin. The object is not recentred in the image.

    Args:
        points: (N, 3) world positions, such as the vertices of a mesh.
        azimuth: degrees, see `orbit_camera`.
        elevation: degrees.
        roll: degrees by which the camera is turned anticlockwise about its view axis.
        vertical_fov: degrees, or None for an orthographic camera.
        fill: part of the image side, in (0, 1].
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        raise ValueError(f"`points` must be finite and of shape (N, 3) with N > 0, got shape {points.shape}")
    if not 0 < fill <= 1:
        raise ValueError(f"`fill` must be in (0, 1], got {fill}")
    rotation = _orbit_rotation(azimuth, elevation, roll)
    local = points @ rotation
    half_side = np.abs(local[:, :2]).max(axis=1)
    radius = np.linalg.norm(points, axis=1).max()
    if not half_side.max() > 0:
        raise ValueError("`points` all lie on the view axis: no camera distance makes them fill an image")
    if vertical_fov is None:
        transform = _orbit_transform(rotation, 2 * radius, (0, 0, 0))
        return Camera(transform, orthographic_height=2 * half_side.max() / fill)
    slope = fill * np.tan(np.radians(vertical_fov) / 2)
    # A point stays inside the frustum while |x|, |y| <= slope * (distance - z).
    distance = (local[:, 2] + half_side / slope).max()
    # A point on the view axis bounds nothing, and would be where the camera is.
    distance = max(distance, local[:, 2].max() + 0.01 * radius)
    return Camera(_orbit_transform(rotation, distance, (0, 0, 0)), vertical_fov=vertical_fov)


def focal_length_to_fov(focal_length: float) -> float:
    """Vertical field of view in degrees of a full-frame lens, `focal_length` in millimetres.

    The sensor is 36 × 24 mm; a square image uses the 24 mm side in both directions.
    """
    if not 0 < focal_length < np.inf:
        raise ValueError(f"`focal_length` must be a positive number of millimetres, got {focal_length}")
    return float(np.degrees(2 * np.arctan(12.0 / focal_length)))


def check_range(name: str, bounds: tuple[float, float]) -> None:
    """Raise `ValueError` unless `bounds` are two finite numbers, the lower one first."""
    if len(bounds) != 2 or not -np.inf < bounds[0] <= bounds[1] < np.inf:
        raise ValueError(f"`{name}` must be two finite numbers, the lower one first, got {bounds}")


def sample_condition_camera(
    rng: np.random.Generator,
    points: np.ndarray,
    *,
    azimuth: tuple[float, float] = (-90.0, 90.0),
    elevation: tuple[float, float] = (-15.0, 30.0),
    focal_length: tuple[float, float] = (35.0, 135.0),
    orthographic_probability: float = 0.2,
    roll: float = 10.0,
    roll_probability: float = 0.0,
    fill: float = 0.9,
) -> Camera:
    """A random view of an object as condition images have it: the ranges of TripoSG's training data.

    Azimuth, elevation and focal length are uniform in their ranges.

    Args:
        rng: source of randomness; four numbers are drawn from it, two more where `roll_probability` is above 0.
        points: (N, 3) positions that the image shall hold, see `fit_camera`.
        azimuth: range in degrees; the default is the front half.
        elevation: range in degrees.
        focal_length: range in full-frame millimetres, see `focal_length_to_fov`.
        orthographic_probability: part of the views that are orthographic, in [0, 1].
        roll: largest angle in degrees by which a camera is turned about its view axis, either way.
        roll_probability: part of the views that are turned, in [0, 1].
        fill: part of the image side that the object may take.
    """
    for name, probability in (
        ("orthographic_probability", orthographic_probability),
        ("roll_probability", roll_probability),
    ):
        if not 0 <= probability <= 1:
            raise ValueError(f"`{name}` must be in [0, 1], got {probability}")
    for name, bounds in (("azimuth", azimuth), ("elevation", elevation), ("focal_length", focal_length)):
        check_range(name, bounds)
    view_azimuth, view_elevation, focal = (rng.uniform(*bounds) for bounds in (azimuth, elevation, focal_length))
    vertical_fov = None if rng.uniform() < orthographic_probability else focal_length_to_fov(focal)
    angle = 0.0
    if roll_probability > 0:
        angle = rng.uniform(-roll, roll) * (rng.uniform() < roll_probability)
    return fit_camera(points, view_azimuth, view_elevation, roll=angle, vertical_fov=vertical_fov, fill=fill)
