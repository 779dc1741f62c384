# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Mesh files in and out, and the few operations on whole meshes that everything else rests on.

Functions take a `trimesh.Trimesh` or a `trimesh.Scene`. Scenes keep materials and textures; geometry code merges them
to bare triangles first (`merge_geometry`).
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import igl
import numpy as np
import trimesh

from ..files import write_atomically
from .gltf import plain_gltf
from .obj import plain_obj

Mesh = trimesh.Trimesh | trimesh.Scene

LOAD_TYPES = ("obj", "glb", "gltf", "ply", "stl", "off")
EXPORT_TYPES = ("glb", "obj", "ply", "stl")
MAX_FACES = 4_000_000
# Largest unpacked size in bytes of one archive member; a guard against archives that explode.
MAX_MEMBER_SIZE = 1 << 30


class MeshError(ValueError):
    """A mesh, or the file it should come from, cannot be worked with.

    Args:
        reason (`str`): one word to count by: `unreadable`, `empty`, `degenerate`, `not_finite`, `too_large`, and those
            of the quality gate.
        message (`str`): what is wrong, in a sentence.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.reason, str(self))


class _ZipMembers(Mapping):
    """The members of an open archive as a mapping from name to bytes, each unpacked only when asked for."""

    def __init__(self, archive: zipfile.ZipFile):
        self.archive = archive

    def __getitem__(self, name: str) -> bytes:
        info = self.archive.getinfo(name)
        if info.file_size > MAX_MEMBER_SIZE:
            raise MeshError(
                "too_large", f"archive member {name!r} unpacks to {info.file_size} bytes, above {MAX_MEMBER_SIZE}"
            )
        try:
            return self.archive.read(info)
        except MemoryError:
            raise
        except Exception as error:
            # Wrong checksums, unknown compression, passwords: each has an exception class of its own.
            raise MeshError("unreadable", f"archive member {name!r} cannot be unpacked: {error}") from error

    def __contains__(self, name) -> bool:
        return name in self.archive.NameToInfo

    def __iter__(self) -> Iterator[str]:
        return iter(self.archive.namelist())

    def __len__(self) -> int:
        return len(self.archive.namelist())


def load_mesh(
    source: str | os.PathLike | BinaryIO, file_type: str | None = None, *, member: str | None = None
) -> trimesh.Scene:
    """Read a mesh with its materials and textures.

    Args:
        source: path of an OBJ (with its MTL and images beside it), GLB, GLTF, PLY, STL or OFF file, or of a zip
            archive with one of these inside; or an open binary file with `file_type`. Assets outside the file's
            folder are not read.
        file_type: "obj", "glb", "gltf", "ply", "stl", "off" or "zip"; taken from the suffix where left out.
        member: name of the mesh inside an archive; may be left out when the archive holds just one.

    Returns:
        trimesh.Scene: one geometry per material or node; only triangle meshes are kept.

    Raises:
        ValueError: the type is unknown, or `member` does not say which mesh of an archive.
        MeshError: the content cannot be read, is too large, or there is no triangle in it.
        OSError: the file cannot be opened.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        file_type = file_type or path.suffix[1:]
        with open(path, "rb") as file:
            resolver = trimesh.resolvers.FilePathResolver(str(path))
            return _load_open_file(file, file_type, member, resolver, str(source))
    if file_type is None:
        raise ValueError("`file_type` must be given where `source` is an open file")
    return _load_open_file(source, file_type, member, None, "source")


def _load_open_file(file, file_type, member, resolver, name) -> trimesh.Scene:
    file_type = file_type.lower().removeprefix(".")
    if file_type == "zip" or member is not None:
        return _load_zip_member(file, member, name)
    if file_type not in LOAD_TYPES:
        raise ValueError(f"{name!r}: `file_type` must be one of {', '.join((*LOAD_TYPES, 'zip'))}, got {file_type!r}")
    content = file.read()
    try:
        # The parsers raise whatever their input makes them stumble over. Unprocessed: nothing is repaired in silence.
        if file_type in ("glb", "gltf"):
            content = plain_gltf(content, file_type, resolver)
        elif file_type == "obj":
            content = plain_obj(content)
        scene = trimesh.load_scene(io.BytesIO(content), file_type=file_type, resolver=resolver, process=False)
        _check_lines(content, file_type)
    except (MemoryError, MeshError):
        raise
    except Exception as error:
        raise MeshError("unreadable", f"{name!r} cannot be read as {file_type.upper()}: {error!r}") from error
    others = [key for key, part in scene.geometry.items() if not isinstance(part, trimesh.Trimesh) or part.is_empty]
    scene.delete_geometry(others)
    if not any(len(part.faces) for part, _ in mesh_parts(scene)):
        raise MeshError("empty", f"{name!r} holds no triangles")
    return scene


def _check_lines(content: bytes, file_type: str) -> None:
    """Raise `EOFError` for an OFF or text PLY file that ends early: trimesh takes the part that is there."""
    if file_type == "off":
        _, _, text = trimesh.util.comment_strip(trimesh.util.decode_text(content)).partition("OFF")
        counts, *lines = filter(str.strip, text.splitlines())
        declared = sum(int(count) for count in counts.split()[:2])
    elif file_type == "ply" and b"ascii" in content.split(b"\n", 2)[1]:
        header, _, text = content.partition(b"end_header")
        lines = list(filter(bytes.strip, text.split(b"\n")))
        declared = sum(int(line.split()[2]) for line in header.splitlines() if line.startswith(b"element"))
    else:
        return
    if len(lines) < declared:
        raise EOFError(f"the file ends early: of {declared} lines that it declares, {len(lines)} are there")


def open_archive(file, name: str) -> zipfile.ZipFile:
    """A zip archive, a path or an open file; `MeshError` if it is none that can be read."""
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError) as error:
        raise MeshError("unreadable", f"{name!r} is no zip archive that can be read: {error}") from error


def list_members(archive: zipfile.ZipFile) -> list[str]:
    """The meshes in an archive, each once; what macOS adds under `__MACOSX` is none."""
    names = sorted(set(archive.namelist()))
    paths = {name: PurePosixPath(name) for name in names}
    return [
        name for name, path in paths.items() if path.suffix[1:].lower() in LOAD_TYPES and "__MACOSX" not in path.parts
    ]


def _load_zip_member(file, member, name) -> trimesh.Scene:
    with open_archive(file, name) as archive:
        meshes = list_members(archive)
        if member is None and len(meshes) != 1:
            raise ValueError(f"`member` must name one of the {len(meshes)} meshes in {name!r}: {meshes[:10]}")
        member = meshes[0] if member is None else member
        if member not in meshes:
            raise ValueError(f"`member` {member!r} is not a mesh in {name!r}; it holds {meshes[:10]}")
        members = _ZipMembers(archive)
        folder = str(PurePosixPath(member).parent)
        resolver = trimesh.resolvers.ZipResolver(members, namespace=None if folder == "." else folder)
        file_type = PurePosixPath(member).suffix
        return _load_open_file(io.BytesIO(members[member]), file_type, None, resolver, f"{name}:{member}")


def mesh_parts(mesh: Mesh) -> list[tuple[trimesh.Trimesh, np.ndarray]]:
    """Every triangle mesh in `mesh` with its (4, 4) transform to the world; a geometry placed twice comes twice."""
    if isinstance(mesh, trimesh.Trimesh):
        return [(mesh, np.eye(4))]
    if not isinstance(mesh, trimesh.Scene):
        raise ValueError(f"`mesh` must be a trimesh.Trimesh or trimesh.Scene, got {type(mesh).__name__}")
    nodes = [mesh.graph.get(node) for node in mesh.graph.nodes_geometry]
    parts = [(mesh.geometry[name], np.asarray(transform, dtype=np.float64)) for transform, name in nodes]
    return [part for part in parts if isinstance(part[0], trimesh.Trimesh)]


def placed_triangles(part: trimesh.Trimesh, transform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World vertices (V, 3) float64 and faces (F, 3) int64 of one part; a mirroring transform keeps faces outwards."""
    vertices = np.asarray(part.vertices, dtype=np.float64) @ transform[:3, :3].T + transform[:3, 3]
    faces = np.asarray(part.faces, dtype=np.int64)
    if np.linalg.det(transform[:3, :3]) < 0:
        faces = faces[:, ::-1]
    return vertices, faces


def nondegenerate_faces(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) bool: the triangle is no needle or point, whatever its size (height above 1e-12 of its longest edge)."""
    corners = vertices[faces]
    edges = corners[:, [1, 2, 0]] - corners
    longest = np.linalg.norm(edges, axis=2).max(axis=1, initial=0.0)
    # Unit edges first: squares of tiny or huge coordinates would leave the range of floats.
    unit = edges[:, :2] / np.where(longest > 0, longest, 1.0)[:, None, None]
    return np.linalg.norm(np.cross(unit[:, 0], unit[:, 1]), axis=1) > 1e-12


def merge_geometry(mesh: Mesh) -> trimesh.Trimesh:
    """All triangles of `mesh` as one bare mesh: transforms applied, equal positions shared, needles dropped."""
    placed = _triangles_with_an_area(mesh)
    offsets = np.cumsum([0] + [len(vertices) for vertices, _ in placed])
    vertices = np.concatenate([np.zeros((0, 3)), *(vertices for vertices, _ in placed)])
    faces = np.concatenate([np.zeros((0, 3), np.int64), *(f + o for (_, f), o in zip(placed, offsets))])
    if len(vertices):
        vertices, faces = _share_vertices(vertices, faces)
    return trimesh.Trimesh(vertices, faces, process=False)


def _triangles_with_an_area(mesh: Mesh) -> list[tuple[np.ndarray, np.ndarray]]:
    """`placed_triangles` of each part, without needles and points."""
    placed = (placed_triangles(part, transform) for part, transform in mesh_parts(mesh))
    return [(vertices, faces[nondegenerate_faces(vertices, faces)]) for vertices, faces in placed]


def _share_vertices(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same triangles with every distinct referenced position once."""
    used, faces = np.unique(faces, return_inverse=True)
    vertices = vertices[used]
    first, shared = unique_positions(vertices)
    return vertices[first], shared[faces.reshape(-1, 3)]


def unique_positions(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of one vertex per distinct position (U,), and for each of the (V, 3) vertices which of them it is (V,)."""
    # Bytes sort much faster than rows; adding zero makes -0 and 0 the same bytes.
    rows = np.ascontiguousarray(vertices + 0.0, dtype=np.float64).view(np.dtype((np.void, 24))).ravel()
    _, first, shared = np.unique(rows, return_index=True, return_inverse=True)
    return first, shared.ravel()


def surface_bounds(mesh: Mesh) -> np.ndarray:
    """(2, 3) lowest and highest corner of the box about all triangles with an area: what cannot be seen has no say."""
    parts = _triangles_with_an_area(mesh)
    if not any(len(faces) for _, faces in parts):
        raise ValueError("`mesh` must have at least one triangle with an area, got none")
    return _box_about(parts)


def _box_about(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(2, 3) box about the vertices that a face uses."""
    used = [vertices[np.unique(faces)] for vertices, faces in parts if len(faces)]
    return np.stack([np.min([v.min(axis=0) for v in used], axis=0), np.max([v.max(axis=0) for v in used], axis=0)])


def validate_mesh(mesh: Mesh, max_faces: int = MAX_FACES) -> None:
    """Raise `MeshError` unless `mesh` is an object one can work with.

    That is: at least one triangle of non-zero area, at most `max_faces` in all, faces that refer to existing vertices,
    finite coordinates and a finite extent.
    """
    parts = mesh_parts(mesh)
    faces = sum(len(part.faces) for part, _ in parts)
    if faces == 0:
        raise MeshError("empty", "`mesh` must have at least one triangle, got none")
    if faces > max_faces:
        raise MeshError("too_large", f"`mesh` must have at most {max_faces} triangles, got {faces}")
    for part, _ in parts:
        if part.faces.min(initial=0) < 0 or part.faces.max(initial=-1) >= len(part.vertices):
            raise MeshError("degenerate", "`mesh` has faces that refer to vertices which do not exist")
    with np.errstate(over="ignore", invalid="ignore"):
        bounds = _box_about(placed_triangles(part, transform) for part, transform in parts)
        extent = bounds[1] - bounds[0]
    if not np.isfinite(bounds).all() or not np.isfinite(extent).all():
        raise MeshError("not_finite", f"`mesh` must have finite coordinates, got bounds {bounds.tolist()}")
    if extent.max() <= np.finfo(np.float64).eps * np.abs(bounds).max():
        raise MeshError("degenerate", f"`mesh` must have an extent, got all vertices at {bounds[0].tolist()}")
    if not any(len(faces) for _, faces in _triangles_with_an_area(mesh)):
        raise MeshError("degenerate", "`mesh` must have a triangle with an area, got only degenerate ones")


def normalize_mesh(mesh: Mesh, half_side: float = 0.95) -> tuple[Mesh, np.ndarray]:
    """A copy with the box about its triangles centred on the origin and its longest half-side scaled to `half_side`.

    Returns:
        The copy, and the (4, 4) float64 transform that maps the input to it.
    """
    low, high = surface_bounds(mesh)
    longest = (high - low).max() / 2
    if not 0 < longest < np.inf:
        raise ValueError(f"`mesh` must have a finite extent above zero, got bounds {low.tolist()} to {high.tolist()}")
    scale = half_side / longest
    transform = np.diag([scale, scale, scale, 1.0])
    transform[:3, 3] = -scale * (low + (high - low) / 2)
    normalized = mesh.copy()
    normalized.apply_transform(transform)
    return normalized, transform


def simplify_mesh(mesh: Mesh, faces: int) -> trimesh.Trimesh:
    """Bare triangles of `mesh`, reduced to at most `faces` by quadric edge collapse where the topology allows.

    Faces are oriented alike and non-manifold edges cut open first: libigl's decimation needs an oriented manifold.

    Raises:
        ValueError: `faces` is below 4, no triangle is left, or a part has one side only (a Möbius strip).
    """
    if faces < 4:
        raise ValueError(f"`faces` must be at least 4, got {faces}")
    merged = merge_geometry(mesh)
    if len(merged.faces) <= faces:
        return merged
    vertices, triangles = np.asarray(merged.vertices), np.asarray(merged.faces, dtype=np.int64)
    if not _is_manifold(triangles):
        vertices, triangles, _ = igl.split_nonmanifold(vertices, triangles)
    triangles = _oriented(triangles)
    vertices, triangles, _, _ = igl.qslim(np.asfortranarray(vertices), np.asfortranarray(triangles, np.int32), faces)
    if not len(triangles):
        raise ValueError(f"`mesh` could not be simplified from {len(merged.faces)} to {faces} triangles")
    return trimesh.Trimesh(vertices, triangles, process=False)


def _oriented(faces: np.ndarray) -> np.ndarray:
    """Faces (F, 3) of a manifold, the minority of each connected part turned round to agree with the majority."""
    turned, parts = igl.bfs_orient(faces)
    votes = np.bincount(parts, np.where((turned == faces).all(axis=1), 1, -1))
    turned[votes[parts] < 0] = turned[votes[parts] < 0, ::-1]
    edges = turned[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    if len(np.unique(edges[:, 0] * (edges.max() + 1) + edges[:, 1])) < len(edges):
        raise ValueError("`mesh` could not be simplified: it has a part with one side only")
    return turned


def _is_manifold(faces: np.ndarray) -> bool:
    return bool(np.all(igl.is_edge_manifold(faces)[0]) and np.all(igl.is_vertex_manifold(faces)))


def drop_specks(mesh: Mesh, min_area_fraction: float = 1e-3) -> trimesh.Trimesh:
    """Bare triangles of `mesh` without its connected components of less than this part of the largest one's area."""
    merged = merge_geometry(mesh)
    if not len(merged.faces):
        return merged
    _, labels = igl.facet_components(np.asarray(merged.faces, dtype=np.int64))
    area = np.bincount(labels, weights=merged.area_faces)
    kept = np.asarray(merged.faces)[(area >= min_area_fraction * area.max())[labels]]
    return trimesh.Trimesh(*_share_vertices(np.asarray(merged.vertices), kept), process=False)


def export_mesh(mesh: Mesh, path: str | os.PathLike) -> None:
    """Write `mesh` as GLB, OBJ, PLY or STL, by the suffix of `path`, whole or not at all.

    GLB keeps scenes, materials and textures. The other formats get one mesh: a `Trimesh` with its vertex colours where
    the format has them, a `Scene` as bare triangles.
    """
    path = Path(path)
    file_type = path.suffix[1:].lower()
    if file_type not in EXPORT_TYPES:
        raise ValueError(f"`path` must end in one of {', '.join('.' + t for t in EXPORT_TYPES)}, got {str(path)!r}")
    if file_type != "glb" and isinstance(mesh, trimesh.Scene):
        mesh = merge_geometry(mesh)
    options = {"include_texture": False} if file_type == "obj" else {}
    content = mesh.export(file_type=file_type, **options)
    write_atomically(path, content.encode() if isinstance(content, str) else content)
