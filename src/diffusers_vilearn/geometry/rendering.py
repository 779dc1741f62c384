# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A mesh and a camera become depth, normals, positions, a mask and a lit colour image.

A backend answers one question only: which triangle does each pixel centre see, and where in it. Embree answers it on
the CPU, nvdiffrast on CUDA. Everything else is the same code for both, so that they differ at most where a pixel
centre falls on an edge.

Shading is Blinn-Phong in display (sRGB) space, opaque and two-sided: colour = albedo · (ambient + key · (n·l) +
head · (n·v)) + gloss · (key · (n·h)^p + head · (n·v)^p), dot products and result clipped to [0, 1], the same slight
gloss on everything so that black objects show their shape. The albedo is the texture, else the vertex or face colours,
else the material's diffuse colour, else grey; glTF base colour and COLOR_0 factors multiply the texture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import igl
import numpy as np
import trimesh
from PIL import Image

from .cameras import Camera, image_size
from .colors import linear_to_srgb
from .mesh import Mesh, mesh_parts, nondegenerate_faces, placed_triangles, unique_positions

# Faces that meet at a sharper angle (degrees) get an edge in the shading and in the normals.
_CREASE_ANGLE = 50.0
# Where more faces meet in a vertex there is no smooth normal to speak of: the middle of a disc, the tip of a cone.
_MAX_VALENCE = 1000
# Larger textures are reduced: an image of at most this side shows no more detail.
_MAX_TEXTURE_SIDE = 1024
_GREY = (0.7, 0.7, 0.7)
_GLOSS = 0.3
# Pixels whose premultiplied colours differ by more, in [0, 1], are supersampled.
_CONTRAST = 0.15
_SHININESS = 12


@dataclass(frozen=True)
class Light:
    """One white key light that moves with the camera, a headlight on the camera, and ambient light.

    Args:
        direction: towards the key light in camera axes (+X right, +Y up, +Z from the object to the camera).
        key: strength of the key light.
        head: strength of the headlight.
        ambient: strength of the ambient light.
    """

    direction: tuple[float, float, float] = (-0.5, 0.7, 0.5)
    key: float = 0.45
    head: float = 0.25
    ambient: float = 0.4

    def __post_init__(self):
        if np.shape(self.direction) != (3,) or not 0 < np.linalg.norm(self.direction) < np.inf:
            raise ValueError(f"`direction` must be three finite numbers, not all zero, got {self.direction}")
        if not all(0 <= strength < np.inf for strength in (self.key, self.head, self.ambient)):
            raise ValueError(f"`key`, `head` and `ambient` must be at least 0, got {self}")


def sample_light(rng: np.random.Generator) -> Light:
    """A random light from the upper half in front of the object, of random strength and contrast."""
    azimuth, elevation = np.radians([rng.uniform(-80, 80), rng.uniform(0, 75)])
    direction = (np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation))
    return Light(
        direction=tuple(float(value) for value in direction),
        key=rng.uniform(0.2, 0.7),
        head=rng.uniform(0.0, 0.35),
        ambient=rng.uniform(0.25, 0.55),
    )


@dataclass(frozen=True, eq=False)
class Rendering:
    """What one camera sees; arrays of height × width pixels, taken at pixel centres.

    Attributes:
        depth: (H, W) float32, along the view axis, inf outside.
        normal: (H, W, 3) float32, unit, in the world, on the side that faces the camera; 0 outside.
        position: (H, W, 3) float32, in the world; 0 outside.
        mask: (H, W) bool, whether the pixel's centre sees the object.
        color: (H, W, 4) uint8, lit sRGB, not premultiplied; alpha is the covered part of the pixel; 0 outside.
    """

    depth: np.ndarray
    normal: np.ndarray
    position: np.ndarray
    mask: np.ndarray
    color: np.ndarray


class _Surface:
    """Triangles of a mesh with everything that shading looks up, as flat arrays over all parts and materials."""

    def __init__(self, mesh: Mesh):
        parts = [_Part(part, transform) for part, transform in mesh_parts(mesh)]
        parts = [part for part in parts if len(part.faces)]
        if not parts:
            raise ValueError("`mesh` must have a triangle with an area to be rendered, got none")
        offsets = np.cumsum([0] + [len(part.vertices) for part in parts])
        self.vertices = np.concatenate([part.vertices for part in parts])
        self.faces = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets)])
        self.face_part = np.repeat(np.arange(len(parts)), [len(part.faces) for part in parts])
        self.corner_uv = _by_corner(np.concatenate([part.corner_uv for part in parts]))
        self.corner_color = None
        if any(part.corner_color is not None for part in parts):
            white = [np.ones((len(part.faces), 3, 3), np.float32) for part in parts]
            colors = [w if p.corner_color is None else p.corner_color for p, w in zip(parts, white)]
            self.corner_color = _by_corner(np.concatenate(colors))
        self.part_color = np.stack([part.color for part in parts])
        self.textures = _TextureAtlas([part.texture for part in parts])
        used = self.vertices[self.faces].reshape(-1, 3)
        low, high = used.min(axis=0), used.max(axis=0)
        self.corners_of_box = trimesh.bounds.corners((low, high))
        self.center, self.radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
        # float32 ray casting is exact only near the origin and at scale one.
        self.unit_vertices = (self.vertices - self.center) / self.radius
        self.unit_corners = self.unit_vertices[self.faces.T]
        corner_normal, self.face_normal = _normals(self.unit_vertices, self.faces)
        self.corner_normal = _by_corner(corner_normal)

    def position(self, triangle: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, 3) float64 world positions of points given by triangle and barycentric coordinates."""
        # In the unit frame first: the weights sum to one only in single precision.
        return self.center + self.radius * _interpolate(self.unit_corners, triangle, weights)

    def albedo(self, triangle: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, 3) float32 colours in [0, 1] of such points."""
        part = self.face_part[triangle]
        color = self.part_color[part]
        if self.corner_color is not None:
            color = color * _interpolate(self.corner_color, triangle, weights)
        if self.textures:
            color = color * self.textures.lookup(part, _interpolate(self.corner_uv, triangle, weights))
        return color

    def normal(self, triangle: np.ndarray, weights: np.ndarray, to_camera: np.ndarray) -> np.ndarray:
        """(N, 3) float32 unit normals of such points on the side that `to_camera` (N, 3) or (3,) points to."""
        normal = _normalize(_interpolate(self.corner_normal, triangle, weights))
        normal[_dot(self.face_normal[triangle], to_camera) < 0] *= -1
        return normal


class _Part:
    """One placed triangle mesh with its colours brought to one form: colour × corner colours × texture."""

    def __init__(self, mesh: trimesh.Trimesh, transform: np.ndarray):
        self.vertices, faces = placed_triangles(mesh, transform)
        if not np.isfinite(self.vertices[faces]).all():
            raise ValueError("`mesh` must have finite coordinates to be rendered")
        kept = nondegenerate_faces(self.vertices, faces)
        self.faces = faces[kept]
        self.color = np.ones(3, np.float32)
        self.corner_color = None
        self.texture = None
        self.corner_uv = np.zeros((len(self.faces), 3, 2), np.float32)
        visual = mesh.visual
        if isinstance(visual, trimesh.visual.TextureVisuals):
            self._take_material(visual)
        elif visual.kind == "vertex":
            self.corner_color = _to_unit(visual.vertex_colors)[self.faces]
        elif visual.kind == "face":
            self.corner_color = np.repeat(_to_unit(visual.face_colors)[kept][:, None], 3, axis=1)
        else:
            self.color = np.array(_GREY, np.float32)

    def _take_material(self, visual: trimesh.visual.TextureVisuals):
        material = visual.material
        uv = visual.uv
        if isinstance(material, trimesh.visual.material.PBRMaterial):
            image = material.baseColorTexture
            factor = material.baseColorFactor
            # glTF's factor is linear light, its texture sRGB.
            self.color = np.ones(3, np.float32) if factor is None else linear_to_srgb(_to_unit(factor))
        else:
            image = material.image if isinstance(material, trimesh.visual.material.SimpleMaterial) else None
            # MTL files with a texture often carry a meaningless (even black) diffuse colour: the texture replaces it.
            self.color = np.ones(3, np.float32) if image is not None else _to_unit(material.main_color)
        if image is not None and uv is not None and len(uv) == len(self.vertices):
            self.texture = image
            # A face without usable coordinates shows the texture's corner, as viewers do.
            self.corner_uv = np.nan_to_num(uv, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)[self.faces]
        colors = visual.vertex_attributes.get("color")
        if colors is not None and len(colors) == len(self.vertices):
            self.corner_color = _to_unit(trimesh.visual.color.to_rgba(colors))[self.faces]


class _TextureAtlas:
    """The textures of all parts in one array of texels, so that one lookup serves every pixel. No texture is white."""

    def __init__(self, images: list[Image.Image | None]):
        self.is_used = any(image is not None for image in images)
        blocks, sizes, offsets, known = [], [], [], {}
        total = 0
        for image in images:
            if id(image) not in known:
                texels = _texels(image)
                known[id(image)] = (total, texels.shape[:2])
                blocks.append(texels.reshape(-1, 3))
                total += len(blocks[-1])
            offset, size = known[id(image)]
            offsets.append(offset)
            sizes.append(size)
        self.texels = np.concatenate(blocks)
        self.offset = np.array(offsets)
        self.height, self.width = np.array(sizes).T

    def __bool__(self):
        return self.is_used

    def lookup(self, index: np.ndarray, uv: np.ndarray) -> np.ndarray:
        """(N, 3) float32 in [0, 1], bilinear, repeating; `index` (N,): the texture, `uv` (N, 2): from bottom left."""
        width, height, offset = self.width[index], self.height[index], self.offset[index]
        x = (uv[:, 0] - np.floor(uv[:, 0])) * width - np.float32(0.5)
        y = (np.ceil(uv[:, 1]) - uv[:, 1]) * height - np.float32(0.5)
        left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        fx, fy = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
        columns = (left % width, (left + 1) % width)
        rows = (offset + top % height * width, offset + (top + 1) % height * width)
        upper, lower = (self.texels[r + columns[0]] * (1 - fx) + self.texels[r + columns[1]] * fx for r in rows)
        return (upper * (1 - fy) + lower * fy) * np.float32(1 / 255)


def _texels(image: Image.Image | None) -> np.ndarray:
    """(H, W, 3) uint8, at most `_MAX_TEXTURE_SIDE` on a side; one white texel for no image."""
    if image is None:
        return np.full((1, 1, 3), 255, np.uint8)
    try:
        # Files are decoded only now, with whatever error the format's decoder has for a broken one.
        image = _eight_bits(image).convert("RGB")
    except Exception as error:
        raise ValueError(f"a texture of `mesh` cannot be decoded: {error!r}") from error
    factor = -(-max(image.size) // _MAX_TEXTURE_SIDE)
    return np.asarray(image.reduce(factor) if factor > 1 else image)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as what it stands for: PIL would cut it off at 255."""
    if image.mode == "F":
        raise ValueError("its grey is of floating-point numbers, whose range nothing tells")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8))


def _to_unit(color) -> np.ndarray:
    """Float32 RGB in [0, 1] of uint8 RGBA colours of any leading shape."""
    return np.asarray(color)[..., :3].astype(np.float32) / 255


def _normals(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corner normals (F, 3, 3), smooth within the crease angle, and face normals (F, 3), float32.

    Taken from the triangles, not from the file: stored normals are missing or wrong in many meshes.
    """
    first, shared = unique_positions(vertices)
    positions, joined = vertices[first], shared[faces]
    # libigl visits all faces of a vertex for each of its corners: where these are very many, each keeps to itself.
    crowded = (np.bincount(joined.ravel(), minlength=len(first)) > _MAX_VALENCE)[joined]
    joined[crowded] = len(first) + np.arange(crowded.sum())
    positions = np.concatenate([positions, vertices[faces[crowded]]])
    corners = igl.per_corner_normals(positions, joined, _CREASE_ANGLE)
    edges = vertices[faces[:, 1:]] - vertices[faces[:, :1]]
    face_normals = _normalize(np.cross(edges[:, 0], edges[:, 1]))
    return corners.reshape(-1, 3, 3).astype(np.float32), face_normals.astype(np.float32)


def _by_corner(values: np.ndarray) -> np.ndarray:
    """(3, F, C) of (F, 3, C): the order in which `_interpolate` reads them fastest."""
    return np.ascontiguousarray(values.swapaxes(0, 1))


def _interpolate(corner_values: np.ndarray, triangle: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, C) weighted sums of the (3, F, C) values at the corners of each point's triangle."""
    return sum(corner_values[k].take(triangle, axis=0) * weights[:, k, None] for k in range(3))


def _normalize(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors (..., 3) of vectors (..., 3); zero stays zero."""
    length = np.sqrt(np.einsum("...c,...c->...", vectors, vectors))
    return vectors / np.where(length > 0, length, 1)[..., None]


def _dot(vectors: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """(N,) dot products of (N, 3) with (N, 3) or (3,)."""
    return np.einsum("nc,c->n" if axis.ndim == 1 else "nc,nc->n", vectors, axis)


class _Renderer(ABC):
    """A mesh made ready to be rendered from many cameras.

    Args:
        mesh: trimesh.Trimesh or trimesh.Scene with at least one triangle of non-zero area.
    """

    def __init__(self, mesh: Mesh):
        self._surface = _Surface(mesh)

    @abstractmethod
    def _cast(self, camera: Camera, height: int, width: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Triangle (...,) int64 that each pixel's centre sees, -1 for none, and its barycentrics (..., 3) float32.

        Of the pixels of a (height, width) image with the flat indices (...,).
        """

    def render(
        self, camera: Camera, resolution: int | tuple[int, int], *, light: Light | None = None, supersampling: int = 1
    ) -> Rendering:
        """Render one view.

        Args:
            camera: the view.
            resolution: side of a square image, or (height, width).
            light: `Light()` if left out.
            supersampling: where a pixel's colour or alpha differs from a neighbour's, they are means over this many
                samples squared (Whitted 1980); all else is taken at pixel centres.
        """
        height, width = image_size(resolution)
        if int(supersampling) != supersampling or supersampling < 1:
            raise ValueError(f"`supersampling` must be a positive integer, got {supersampling}")
        s = int(supersampling)
        light = Light() if light is None else light
        pixels = self._window(camera, height, width)
        triangle, weights = self._cast(camera, height, width, pixels)
        pixels, triangle, weights = (values[triangle >= 0] for values in (pixels, triangle, weights))
        points, to_camera, facing = self._look(camera, triangle, weights)

        depth = np.full(height * width, np.inf, np.float32)
        position, normal = np.zeros((2, height * width, 3), np.float32)
        mask = np.zeros(height * width, bool)
        color = np.zeros((height * width, 4), np.float32)
        depth[pixels] = (camera.position - points) @ camera.camera_to_world[:3, 2]
        position[pixels] = points
        normal[pixels] = facing
        mask[pixels] = True
        color[pixels] = self._color(camera, light, triangle, weights, to_camera, facing)
        if s > 1:
            edges = np.flatnonzero(_is_contrasted(color.reshape(height, width, 4)))
            parts = _subpixels(edges, width, s)
            color[edges] = self._sample(camera, light, height * s, width * s, parts).mean(axis=0)
        size = (height, width)
        return Rendering(
            depth.reshape(size),
            normal.reshape(*size, 3),
            position.reshape(*size, 3),
            mask.reshape(size),
            _to_bytes(color).reshape(*size, 4),
        )

    def _window(self, camera: Camera, height: int, width: int) -> np.ndarray:
        """Flat indices (P,) of the pixels of a rectangle that holds all that can be seen."""
        low, high = np.zeros(2, np.int64), np.array([width, height])
        projected, depth = camera.project(self._surface.corners_of_box, (height, width))
        if (depth > 0).all():
            low = np.clip(np.floor(projected.min(axis=0)), low, high).astype(np.int64)
            high = np.clip(np.ceil(projected.max(axis=0)), low, high).astype(np.int64)
        rows, columns = (np.arange(*ends) for ends in zip(low[::-1], high[::-1]))
        return (rows[:, None] * width + columns).ravel()

    def _sample(self, camera: Camera, light: Light, height: int, width: int, pixels: np.ndarray) -> np.ndarray:
        """(..., 4) float32 in [0, 1]: premultiplied colours at the centres of pixels given by flat indices (...,)."""
        color = np.zeros((*pixels.shape, 4), np.float32)
        triangle, weights = self._cast(camera, height, width, pixels)
        mask = triangle >= 0
        triangle, weights = triangle[mask], weights[mask]
        _, to_camera, normal = self._look(camera, triangle, weights)
        color[mask] = self._color(camera, light, triangle, weights, to_camera, normal)
        return color

    def _look(
        self, camera: Camera, triangle: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions (N, 3), directions to the camera (N, 3) or (3,), normals (N, 3) on its side, of seen points."""
        points = self._surface.position(triangle, weights)
        to_camera = self._to_camera(camera, points)
        return points, to_camera, self._surface.normal(triangle, weights, to_camera)

    def _color(
        self,
        camera: Camera,
        light: Light,
        triangle: np.ndarray,
        weights: np.ndarray,
        to_camera: np.ndarray,
        normal: np.ndarray,
    ) -> np.ndarray:
        """(N, 4) float32 lit colours in [0, 1], opaque, of points given by triangle (N,) and barycentrics (N, 3)."""
        diffuse, specular = _shade(normal, to_camera, camera, light)
        color = np.ones((len(triangle), 4), np.float32)
        color[:, :3] = self._surface.albedo(triangle, weights) * diffuse[:, None] + specular[:, None]
        return np.minimum(color, 1)

    def _to_camera(self, camera: Camera, points: np.ndarray) -> np.ndarray:
        """Unit directions (N, 3), or (3,) for all, from world points towards the camera."""
        if camera.is_orthographic:
            return camera.camera_to_world[:3, 2].astype(np.float32)
        # In units of the object, so that single precision holds for any size of it.
        return _normalize(((camera.position - points) / self._surface.radius).astype(np.float32))


def _shade(normal: np.ndarray, to_camera: np.ndarray, camera: Camera, light: Light) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse factor (N,) and specular summand (N,) of points with unit normals (N, 3)."""
    to_key = (camera.camera_to_world[:3, :3] @ _normalize(np.asarray(light.direction))).astype(np.float32)
    halfway = _normalize(to_key + to_camera)
    key, head, highlight = (np.clip(_dot(normal, axis), 0, 1) for axis in (to_key, to_camera, halfway))
    diffuse = light.ambient + light.key * key + light.head * head
    return diffuse, _GLOSS * (light.key * highlight**_SHININESS + light.head * head**_SHININESS)


def _is_contrasted(color: np.ndarray) -> np.ndarray:
    """(H, W) bool: the pixels of a premultiplied (H, W, 4) image that differ from one of their eight neighbours."""
    channels = np.ascontiguousarray(np.moveaxis(color, -1, 0))
    contrasted = np.zeros(color.shape[:2], bool)
    height, width = contrasted.shape
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = (slice(0, height - down), slice(max(0, -right), width - max(0, right)))
        there = (slice(down, height), slice(max(0, right), width + min(0, right)))
        differs = (np.abs(channels[(slice(None), *here)] - channels[(slice(None), *there)]) > _CONTRAST).any(axis=0)
        contrasted[here] |= differs
        contrasted[there] |= differs
    return contrasted


def _subpixels(pixels: np.ndarray, width: int, s: int) -> np.ndarray:
    """(s², P) flat indices in an image s times as large of the parts of the pixels (P,) of one `width` wide."""
    row, column = np.divmod(pixels, width)
    part_row, part_column = np.divmod(np.arange(s * s)[:, None], s)
    return (row * s + part_row) * (width * s) + column * s + part_column


def _to_bytes(color: np.ndarray) -> np.ndarray:
    """(..., 4) uint8, not premultiplied, of premultiplied colours in [0, 1]."""
    alpha = color[..., 3:]
    straight = np.concatenate([color[..., :3] / np.where(alpha > 0, alpha, 1), alpha], axis=-1)
    return np.rint(straight * 255).astype(np.uint8)


class EmbreeRenderer(_Renderer):
    """Renders on the CPU by ray casting with Embree; the acceleration structure is built once per mesh."""

    def __init__(self, mesh: Mesh):
        super().__init__(mesh)
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        # Robust: no ray slips through the edge between two triangles.
        self._scene = EmbreeScene(robust=True)
        vertices = self._surface.unit_vertices.astype(np.float32)
        TriangleMesh(self._scene, vertices, self._surface.faces.astype(np.int32))

    def _cast(self, camera: Camera, height: int, width: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        origins, directions = camera.rays((height, width), pixels)
        origins = ((origins - self._surface.center) / self._surface.radius).astype(np.float32)
        hits = self._scene.run(origins, directions.astype(np.float32), query="INTERSECT", output=True)
        triangle = hits["primID"].astype(np.int64)
        weights = np.stack([1 - hits["u"] - hits["v"], hits["u"], hits["v"]], axis=1)
        return triangle.reshape(pixels.shape), weights.reshape(*pixels.shape, 3)


class NvdiffrastRenderer(_Renderer):
    """Renders on a CUDA device by rasterisation with nvdiffrast.

    Args:
        mesh: trimesh.Trimesh or trimesh.Scene.
        device: CUDA device.
    """

    def __init__(self, mesh: Mesh, device: str = "cuda"):
        try:
            import nvdiffrast.torch as dr
        except ImportError as error:
            raise ImportError(
                "the nvdiffrast backend needs the `cuda` extra: pip install setuptools wheel ninja, then pip install "
                "--no-build-isolation 'diffusers-vilearn[cuda]'; "
                "backend='embree' renders the same on the CPU"
            ) from error
        import torch

        super().__init__(mesh)
        self._rasterize = dr.rasterize
        self._context = dr.RasterizeCudaContext(device=device)
        homogeneous = np.concatenate([self._surface.unit_vertices, np.ones((len(self._surface.vertices), 1))], axis=1)
        self._vertices = torch.from_numpy(homogeneous).to(device)
        self._faces = torch.from_numpy(self._surface.faces.astype(np.int32)).to(device)

    def _cast(self, camera: Camera, height: int, width: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        clip = torch.from_numpy(self._clip_from_unit(camera, width / height)).to(self._vertices.device)
        # In float64, which neither TF32 nor autocast touches.
        positions = (self._vertices @ clip.T).float()[None].contiguous()
        rast, _ = self._rasterize(self._context, positions, self._faces, resolution=(height, width), grad_db=False)
        # Row 0 of nvdiffrast is the bottom; (u, v) weigh the first two corners.
        u, v, _, index = rast[0].flip(0).cpu().numpy().transpose(2, 0, 1)
        triangle, weights = index.astype(np.int64) - 1, np.stack([u, v, 1 - u - v], axis=-1)
        return triangle.reshape(-1)[pixels], weights.reshape(-1, 3)[pixels]

    def _clip_from_unit(self, camera: Camera, aspect: float) -> np.ndarray:
        """(4, 4) float64 from the surface's unit frame to clip space, near and far planes tight about the object."""
        surface = self._surface
        world_from_unit = np.diag([surface.radius] * 3 + [1.0])
        world_from_unit[:3, 3] = surface.center
        camera_from_unit = camera.world_to_camera @ world_from_unit
        # Of the box: vertices that no face uses may lie anywhere.
        depth = -(surface.corners_of_box @ camera.world_to_camera[2, :3] + camera.world_to_camera[2, 3])
        margin = 1e-3 * surface.radius
        near, far = depth.min() - margin, max(depth.max(), 0.0) + margin
        # What lies behind the camera or on it is not seen, as with rays.
        near = max(near, margin * 1e-3 if not camera.is_orthographic else 0.0)
        return camera.projection_matrix(aspect, near, far) @ camera_from_unit


_RENDERERS = {"embree": EmbreeRenderer, "nvdiffrast": NvdiffrastRenderer}


def make_renderer(mesh: Mesh, backend: str) -> EmbreeRenderer | NvdiffrastRenderer:
    """The renderer of `mesh` with a backend: "embree" (CPU) or "nvdiffrast" (CUDA)."""
    if backend not in _RENDERERS:
        raise ValueError(f"`backend` must be one of {', '.join(_RENDERERS)}, got {backend!r}")
    return _RENDERERS[backend](mesh)


def render(
    mesh: Mesh,
    camera: Camera,
    resolution: int | tuple[int, int],
    *,
    light: Light | None = None,
    supersampling: int = 1,
    backend: str = "embree",
) -> Rendering:
    """Render one view of `mesh`; for many views of one mesh keep the renderer that `make_renderer` returns.

    Args:
        mesh: trimesh.Trimesh or trimesh.Scene.
        camera: the view.
        resolution: side of a square image, or (height, width).
        light: `Light()` if left out.
        supersampling: samples per pixel side for colour and alpha.
        backend: "embree" (CPU) or "nvdiffrast" (CUDA).
    """
    return make_renderer(mesh, backend).render(camera, resolution, light=light, supersampling=supersampling)


def visible_points(rendering: Rendering, num_points: int, rng: np.random.Generator) -> np.ndarray:
    """(num_points, 3) float32 world positions of random pixels that see the object; a pixel comes twice only if there
    are fewer of them than `num_points`."""
    points = rendering.position[rendering.mask]
    if not len(points):
        raise ValueError("`rendering` shows no surface: there are no visible points")
    return points[rng.choice(len(points), num_points, replace=len(points) < num_points)]
