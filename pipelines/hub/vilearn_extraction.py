# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
# Written by pipelines/build_hub_files.py from src/diffusers_vilearn/geometry/extraction.py; edit that file instead.
"""From a field to a mesh: a coarse-to-fine search for the surface, then sparse marching cubes.

The field is asked on a coarse lattice (cell corners and cell centres), and only cells that may hold a piece of the
surface are divided, down to the cells of the full grid. A sample at distance `d` from the surface says that a ball of
radius `d` around it is free of surface, so a cell that such balls cover is dropped. Sign changes are always kept, and
a surface that leaves the divided cells is followed until it closes. No grid point is asked for twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import igl
import numpy as np
import torch
import trimesh
from scipy.ndimage import maximum_filter

Field = Callable[[torch.Tensor], torch.Tensor]

MIN_RESOLUTION = 8
# A truncated field beyond this magnitude says only that the surface is about a truncation away or more. Learned fields
# do not reach 1 everywhere.
_SATURATED = 0.9
# The width of coarse cells, in truncations: a part with a half-thickness over half a truncation then leaves an
# unsaturated corner or centre, or a sign change, wherever it lies.
_COARSE_TRUNCATIONS = 2.2
# The number of coarse cells along the longest side: with fewer, learned distances would have to be right far from the
# surface; with more, the coarse lattice would cost more than the surface.
_COARSE_CELLS = (32, 128)
# Without a truncation a field may be flat right up to its surface, and only the lattice itself can hit a part.
_COARSE_CELLS_UNKNOWN_SCALE = 112
# The half-thickness, in cells, of the smallest separate part that is looked for between the corners of a divided cell.
_SMALLEST_PART = 0.3

# The cell corners in the order of libigl's dense marching cubes, so that the sparse one splits every cell alike.
_CORNERS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])


class NoSurfaceError(ValueError):
    """The field crosses its level nowhere in the box."""


def extract_mesh(
    field: Field,
    *,
    bounds: float | Sequence[float],
    resolution: int,
    level: float = 0.0,
    truncation: float | None = None,
    chunk_size: int = 65536,
    progress=None,
    device: torch.device | str | None = None,
) -> trimesh.Trimesh:
    """The surface `field == level` as a closed mesh with outward faces.

    The mesh is that of marching cubes on the full grid, whose points are `min + i (max - min) / resolution`. A surface
    that is met is followed to its end, so that a part is either whole or missing. What is met:

    - With a `truncation` t: every part with a half-thickness over t / 2, and thinner plates and rods. Coarse cells are
      at most 2.2 t wide, but no more than 128 are laid along the longest side; where that makes them wider, every part
      with a half-thickness over 0.65 coarse cells less 0.9 t.
    - Without: every part with a half-thickness over 0.65 coarse cells, of which the longest side has at least 112 (or
      `resolution`), and thinner ones where the field slopes towards its surface, as distances and logits do. The
      slope is measured around each coarse cell. Give the truncation where it is known: this search asks more.

    Outside the box the field counts as outside: a solid that reaches the box is closed by a flat cap on it.

    Args:
        field: maps points `(Q, 3)`, float32 on `device`, to values `(Q,)`; positive inside.
        bounds: the half-side of a cube around the origin, or `(min_x, min_y, min_z, max_x, max_y, max_z)`.
        resolution: cells along each axis, any integer from 8.
        level: the value of the surface; between -1 and 1 where `truncation` is given.
        truncation: the distance at which the field saturates at -1 and 1, in the unit of `bounds`; near the surface
            `field * truncation` is then a signed distance. `None` for a field of unknown scale.
        chunk_size: the most points in one call of `field`.
        progress: a tqdm bar (`DiffusionPipeline.progress_bar(total=0)`): its `total` is set to the number of points
            asked for so far, which grows as the surface is found, and `update(n)` follows each call of `field`.
        device: where `field` wants its points; the CPU by default.

    Returns:
        `trimesh.Trimesh` with float64 vertices in the unit of `bounds`, unprocessed.

    Raises:
        ValueError: for an argument out of range, for a field that returns another shape or values that are not finite,
            and for a field without a surface in the box.
    """
    grid = _Grid.create(bounds, resolution)
    if truncation is not None and not 0 < truncation < np.inf:
        raise ValueError(f"`truncation` is {truncation}; it must be a positive finite number or None.")
    if not np.isfinite(level) or (truncation is not None and not -1 < level < 1):
        raise ValueError(f"`level` is {level}; it must be finite, and in (-1, 1) for a truncated field.")
    # As the field's own type, so that the layer around the box is exactly at the level for libigl as well.
    level = float(np.float32(level))
    sampler = _Sampler(field, grid, level, chunk_size, device, progress)
    stride = _coarse_stride(grid, truncation)
    cells, slopes = _search_coarse(sampler, stride, truncation)
    while stride > 1:
        factor = 3 if stride % 3 == 0 else 2
        cells, slopes = _divide(grid, cells, slopes, stride, stride // factor)
        stride //= factor
        cells, slopes, values = _follow(sampler, cells, slopes, stride)
        keep = _crosses(values, level)
        if stride > 1:
            keep |= _inside_box(grid, cells) & ~_covered(grid, values - level, slopes, stride)
        cells, slopes = cells[keep], slopes[keep]
    if len(cells) == 0:
        raise NoSurfaceError(
            f"`field` has no surface at `level` {level} in the box: its {sampler.asked} values asked for lie between "
            f"{sampler.lowest:.6g} and {sampler.highest:.6g}."
        )
    return _march(sampler, cells)


def field_grid(
    field: Field,
    *,
    bounds: float | Sequence[float],
    resolution: int,
    chunk_size: int = 65536,
    progress=None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """The field at every grid point: `(resolution + 1,) * 3` float32 on the CPU, indexed `[x, y, z]`.

    The arguments and errors are those of [`extract_mesh`]; `resolution` may be any integer from 1.
    """
    grid = _Grid.create(bounds, resolution, minimum=1)
    sampler = _Sampler(field, grid, 0.0, chunk_size, device, progress)
    shape = (grid.resolution + 1,) * 3
    return torch.from_numpy(
        sampler.query(np.prod(shape), lambda flat: np.stack(np.unravel_index(flat, shape), -1)).reshape(shape)
    )


@dataclass(frozen=True)
class _Grid:
    """The full grid: point indices from 0 to `resolution`, and a layer around the box at -1 and `resolution + 1`."""

    lower: np.ndarray
    upper: np.ndarray
    resolution: int

    @classmethod
    def create(cls, bounds, resolution: int, minimum: int = MIN_RESOLUTION) -> _Grid:
        box = np.asarray(bounds, dtype=np.float64)
        if box.ndim == 0:
            box = np.array([-box] * 3 + [box] * 3)
        if box.shape != (6,) or not np.isfinite(box).all() or not (box[:3] < box[3:]).all():
            raise ValueError(
                f"`bounds` is {bounds}; it must be a positive half-side, or six finite numbers "
                "(min x, y, z, max x, y, z) with each minimum below its maximum."
            )
        if isinstance(resolution, bool) or not isinstance(resolution, int | np.integer) or resolution < minimum:
            raise ValueError(f"`resolution` is {resolution!r}; it must be an integer from {minimum}.")
        return cls(box[:3], box[3:], int(resolution))

    @property
    def spacing(self) -> np.ndarray:
        return (self.upper - self.lower) / self.resolution

    def positions(self, indices: np.ndarray) -> np.ndarray:
        """Float64 positions `(Q, 3)` of point indices; the layer around the box is drawn onto its sides."""
        return self.lower + np.clip(indices, 0, self.resolution) * (self.upper - self.lower) / self.resolution

    def keys(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """One int64 for each point, the layer around the box included; the indices broadcast."""
        side = self.resolution + 3
        return ((x.astype(np.int64) + 1) * side + (y + 1)) * side + (z + 1)

    def lattice_keys(self, planes: np.ndarray) -> np.ndarray:
        """Keys of the points on the same planes along x, y and z."""
        return self.keys(planes[:, None, None], planes[:, None], planes)

    def indices(self, keys: np.ndarray) -> np.ndarray:
        return np.stack(np.unravel_index(keys, (self.resolution + 3,) * 3), -1) - 1

    def in_box(self, keys: np.ndarray) -> np.ndarray:
        side = self.resolution + 3
        coordinates = (keys // side**2, keys // side % side, keys % side)
        return np.logical_and.reduce([(0 < coordinate) & (coordinate < side - 1) for coordinate in coordinates])

    def ends(self, starts: np.ndarray, stride: int) -> np.ndarray:
        """The upper corner of the cells from `starts`; the last cells end at the box, the layer is one point thick."""
        inside = np.minimum(starts + stride, self.resolution)
        return np.where(starts < 0, 0, np.where(starts >= self.resolution, self.resolution + 1, inside))

    def starts(self, ends: np.ndarray, stride: int) -> np.ndarray:
        """The inverse of `ends`."""
        return np.where(
            ends > self.resolution, self.resolution, np.where(ends <= 0, -1, (ends - 1) // stride * stride)
        )

    def corner_keys(self, cells: np.ndarray, stride: int) -> np.ndarray:
        """Keys `(cells, 8)` of the corners of cells `(cells, 3)`."""
        sides = (cells.T, self.ends(cells, stride).T)
        return np.stack([self.keys(*(sides[bit][axis] for axis, bit in enumerate(corner))) for corner in _CORNERS], -1)


class _Sampler:
    """The values asked for so far, by point key, and the one place that calls the field."""

    def __init__(self, field: Field, grid: _Grid, level: float, chunk_size: int, device, progress):
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int | np.integer) or chunk_size < 1:
            raise ValueError(f"`chunk_size` is {chunk_size!r}; it must be a positive integer.")
        self.field, self.grid, self.level = field, grid, level
        self.chunk_size, self.device, self.progress = int(chunk_size), torch.device(device or "cpu"), progress
        self.known = np.empty(0, dtype=np.int64)
        self.values = np.empty(0, dtype=np.float32)
        self.asked, self.lowest, self.highest = 0, np.inf, -np.inf

    def query(self, count: int, indices_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Values `(count,)` of the field at the point indices `indices_of(0..count)`, chunk by chunk."""
        self.asked += int(count)
        if self.progress is not None:
            self.progress.total = self.asked
        values = np.empty(count, dtype=np.float32)
        for start in range(0, count, self.chunk_size):
            flat = np.arange(start, min(start + self.chunk_size, count))
            points = torch.from_numpy(self.grid.positions(indices_of(flat)).astype(np.float32)).to(self.device)
            with torch.no_grad():
                answer = self.field(points)
            if not isinstance(answer, torch.Tensor) or answer.shape != points.shape[:1]:
                got = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
                raise ValueError(
                    f"`field` returned {got} for points {tuple(points.shape)}; it must be a tensor ({len(points)},)."
                )
            values[flat] = answer.float().cpu().numpy()
            if not np.isfinite(values[flat]).all():
                raise ValueError(
                    "`field` returned values that are not finite (NaN or infinity); every value in the box must be."
                )
            if self.progress is not None:
                self.progress.update(len(flat))
        if count:
            self.lowest, self.highest = min(self.lowest, values.min()), max(self.highest, values.max())
        return values

    def ask(self, keys: np.ndarray) -> None:
        """Make the values at `keys` known. The layer around the box is at the level, so outside, unasked."""
        new = _distinct(keys)
        new = new[~_among(new, self.known)]
        in_box = self.grid.in_box(new)
        asked = new[in_box]
        values = np.full(len(new), self.level, dtype=np.float32)
        values[in_box] = self.query(len(asked), lambda flat: self.grid.indices(asked[flat]))
        at = np.searchsorted(self.known, new)
        self.known, self.values = np.insert(self.known, at, new), np.insert(self.values, at, values)

    def __call__(self, keys: np.ndarray) -> np.ndarray:
        return self.values[np.searchsorted(self.known, keys)]


def _coarse_stride(grid: _Grid, truncation: float | None) -> int:
    """Full-grid cells along a coarse cell: the largest 2^a 3^b that is fine enough."""
    side = (grid.upper - grid.lower).max()
    widest = side / _COARSE_CELLS_UNKNOWN_SCALE
    if truncation is not None:
        widest = np.clip(_COARSE_TRUNCATIONS * truncation, side / _COARSE_CELLS[1], side / _COARSE_CELLS[0])
    limit = widest / grid.spacing.max() * (1 + 1e-9)
    return max(2**a * 3**b for a, b in itertools.product(range(31), range(20)) if 2**a * 3**b <= max(limit, 1))


def _search_coarse(sampler: _Sampler, stride: int, truncation: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Ask the coarse lattice: cells `(cells, 3)` that may hold surface, and the field's steepness `(cells,)` there."""
    grid, level = sampler.grid, sampler.level
    planes = np.r_[-1, np.arange(0, grid.resolution, stride), grid.resolution, grid.resolution + 1]
    corners = grid.lattice_keys(planes)
    keys = [corners.ravel()]
    if stride > 1:
        middles = np.minimum(planes[1:-2] + stride // 2, grid.resolution)
        centres = grid.lattice_keys(middles)
        keys.append(centres.ravel())
    sampler.ask(np.concatenate(keys))

    lattice = sampler(corners)
    samples = [lattice[tuple(slice(bit, bit + len(planes) - 1) for bit in corner)] for corner in _CORNERS]
    if stride > 1:
        # The layer around the box has no centres of its own.
        samples.append(np.pad(sampler(centres), 1, constant_values=level))
    keep = (np.minimum.reduce(samples) <= level) & (np.maximum.reduce(samples) > level)
    slopes = np.full(keep.shape, 1 / (truncation or np.inf), dtype=np.float32)
    if stride > 1:
        inner = np.pad(np.ones_like(keep[1:-1, 1:-1, 1:-1]), 1)
        if truncation is not None:
            keep |= inner & (np.minimum.reduce([np.abs(sample) for sample in samples]) < _SATURATED)
        else:
            slopes = np.pad(_local_slopes(lattice[1:-1, 1:-1, 1:-1], grid.spacing * stride), 1, mode="edge")
            unsure = np.nonzero(inner & ~keep)
            heights = np.stack([sample[unsure] for sample in samples[:8]], -1) - level
            keep[unsure] = ~_covered(grid, heights, slopes[unsure], stride)
    return planes[np.argwhere(keep)].astype(np.int32), slopes[keep]


def _local_slopes(lattice: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The field's steepness (value per length) around each cell: its edges' and those of the 26 cells about it.

    A cell that straddles a thin plate may show eight equal values; the cells beside it show how fast they change.
    """
    square = 0.0
    for axis in range(3):
        slope = np.abs(np.diff(lattice, axis=axis)) / spacing[axis]
        for other in {0, 1, 2} - {axis}:
            front, back = (np.take(slope, range(bit, slope.shape[other] - 1 + bit), axis=other) for bit in (0, 1))
            slope = np.maximum(front, back)
        square = square + slope**2
    return maximum_filter(np.sqrt(square), size=3, mode="nearest")


def _covered(grid: _Grid, heights: np.ndarray, slopes: np.ndarray, stride: int) -> np.ndarray:
    """Cells `(cells,)` that hold no surface, from the values above the level at their corners `(cells, 8)`.

    A corner's ball of radius |height| / slope is free of surface, and no part of half-thickness `p` is centred within
    `p` of it. The cell is free when each of its octants lies in one ball.
    """
    # An octant's farthest point is half a cell away along the axes on which it agrees with the corner, else a whole.
    reach = np.where(_CORNERS[:, None] == _CORNERS[None], 0.5, 1.0) * grid.spacing * stride
    reach = np.sqrt((reach**2).sum(-1)) - _SMALLEST_PART * grid.spacing.min() * stride
    reach = reach.astype(np.float32)
    heights = np.abs(heights)
    free = np.ones(len(heights), dtype=bool)
    for octant in range(8):
        free &= (heights >= slopes[:, None] * reach[octant]).any(-1)
    return free


def _crosses(values: np.ndarray, level: float) -> np.ndarray:
    """Cells `(cells,)` with values `(cells, n)` on both sides; a value at the level is outside, as for libigl."""
    return (values.max(-1) > level) & (values.min(-1) <= level)


def _inside_box(grid: _Grid, cells: np.ndarray) -> np.ndarray:
    return ((cells >= 0) & (cells < grid.resolution)).all(-1)


def _divide(grid: _Grid, cells: np.ndarray, slopes: np.ndarray, stride: int, child_stride: int):
    """The children of `cells` in the full grid, and the parents' slopes."""
    offsets = np.array(list(itertools.product(range(0, stride, child_stride), repeat=3)), dtype=np.int32)
    children = cells[:, None] + offsets
    exists = (children < grid.ends(cells, stride)[:, None]).all(-1)
    return children[exists], np.broadcast_to(slopes[:, None], exists.shape)[exists]


def _follow(sampler: _Sampler, cells: np.ndarray, slopes: np.ndarray, stride: int):
    """Ask the cells' corners, and add neighbours while the surface leaves through a face into a cell not yet listed.

    Returns cells, slopes and corner values `(cells, 8)`.
    """
    grid, level = sampler.grid, sampler.level
    keys = grid.corner_keys(cells, stride)
    sampler.ask(keys)
    found = [(cells, slopes, sampler(keys))]
    listed = np.sort(grid.keys(*cells.T))
    while len(found[-1][0]):
        cells, slopes, values = found[-1]
        crossing = _crosses(values, level)
        cells, slopes, values = cells[crossing], slopes[crossing], values[crossing]
        neighbours, inherited = [], []
        for axis, side in itertools.product(range(3), range(2)):
            through = _crosses(values[:, _CORNERS[:, axis] == side], level)
            beyond = cells[through]
            beyond[:, axis] = (grid.ends if side else grid.starts)(beyond[:, axis], stride)
            new = ~_among(grid.keys(*beyond.T), listed)
            neighbours.append(beyond[new])
            inherited.append(slopes[through][new])
        neighbours, inherited = np.concatenate(neighbours), np.concatenate(inherited)
        new_keys, first = np.unique(grid.keys(*neighbours.T), return_index=True)
        listed = np.insert(listed, np.searchsorted(listed, new_keys), new_keys)
        keys = grid.corner_keys(neighbours[first], stride)
        sampler.ask(keys)
        found.append((neighbours[first], inherited[first], sampler(keys)))
    return tuple(np.concatenate(parts) for parts in zip(*found))


def _march(sampler: _Sampler, cells: np.ndarray) -> trimesh.Trimesh:
    """Marching cubes on full-grid cells `(cells, 3)`, all of which cross the level."""
    keys = sampler.grid.corner_keys(cells, 1)
    corners = _distinct(keys)
    values = sampler(corners).astype(np.float64)
    points = sampler.grid.positions(sampler.grid.indices(corners))
    vertices, faces, _ = igl.marching_cubes(values, points, np.searchsorted(corners, keys), float(sampler.level))
    # libigl's faces look towards the larger values, which are inside.
    return trimesh.Trimesh(vertices, faces[:, ::-1], process=False)


def _distinct(keys: np.ndarray) -> np.ndarray:
    """Sorted and without repeats: much faster here than `np.unique`, which hashes."""
    keys = np.sort(keys, axis=None)
    return keys[np.r_[True, keys[1:] != keys[:-1]][: len(keys)]]


def _among(keys: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Which `keys` are in `listed`, which is sorted and distinct."""
    if len(listed) == 0:
        return np.zeros(keys.shape, dtype=bool)
    return listed[np.minimum(np.searchsorted(listed, keys), len(listed) - 1)] == keys
