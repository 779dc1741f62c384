# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The quality gate: what is measured of every mesh, and which meshes cannot serve as training shapes, and why.

TripoSG's data system (section 4.1) scores its objects with a network that was never released, then drops scenes on
a ground plate and groups of objects. Here every score is a plain measure, stored with the object, so that a user may
filter by other limits later; flags mark what is kept but may be unwanted.
"""

from dataclasses import dataclass

import numpy as np
import trimesh

from ..geometry.field import face_components
from ..geometry.mesh import Mesh, MeshError, mesh_parts, placed_triangles

# A plate at the bottom is no thicker than this, relative to the longest side, and a third of the height at most.
_BASE_THICKNESS = 0.06


@dataclass(frozen=True)
class QualityLimits:
    """Beyond these an object is rejected.

    Args:
        min_thickness (`float`): smallest side of the bounding box relative to the longest (reason `flat`).
        max_base_share (`float`): part of the solid's area that is a horizontal plate at its bottom (`planar_base`).
        min_largest_share (`float`): part of the solid's area that its largest component has (`several_objects`).
        max_invisible_share (`float`): part of the mesh's area whose material is fully transparent (`invisible`).
    """

    min_thickness: float = 0.04
    max_base_share: float = 0.5
    min_largest_share: float = 0.4
    max_invisible_share: float = 0.9

    def check(self, scores: dict) -> None:
        """Raise `MeshError` with the reason if a score is beyond its limit."""
        if scores["thickness"] < self.min_thickness:
            raise MeshError(
                "flat", f"its smallest side is {scores['thickness']:.3f} of its longest, below {self.min_thickness}"
            )
        if scores["base_share"] > self.max_base_share:
            raise MeshError(
                "planar_base",
                f"a plate at its bottom is {scores['base_share']:.2f} of its area, above {self.max_base_share}",
            )
        if scores["largest_share"] < self.min_largest_share:
            raise MeshError(
                "several_objects",
                f"its largest component has {scores['largest_share']:.2f} of its area, below {self.min_largest_share}",
            )
        if scores["invisible_share"] > self.max_invisible_share:
            raise MeshError(
                "invisible",
                f"{scores['invisible_share']:.2f} of its area is fully transparent, above {self.max_invisible_share}",
            )


def measure_quality(mesh: Mesh, merged: trimesh.Trimesh, solid: trimesh.Trimesh) -> dict:
    """The scores of one object, the columns of `QUALITY_FEATURES`.

    Args:
        mesh (`trimesh.Trimesh` or `trimesh.Scene`): with its materials.
        merged (`trimesh.Trimesh`): its bare triangles (`merge_geometry`).
        solid (`trimesh.Trimesh`): the closed surface that stands for it (`solid_surface`).
    """
    components = np.bincount(face_components(solid), solid.area_faces)
    appearance, invisible_share = _appearance(mesh)
    scores = {
        "num_faces": len(merged.faces),
        "num_parts": int(face_components(merged).max()) + 1,
        # Turned inside out, a solid keeps its vertices.
        "is_shell": not np.array_equal(solid.vertices, merged.vertices),
        "thickness": float(merged.extents.min() / merged.extents.max()),
        "base_share": _base_share(solid),
        "largest_share": float(components.max() / components.sum()),
        "appearance": appearance,
        "invisible_share": invisible_share,
    }
    return scores | {"flags": _flags(scores)}


def _flags(scores: dict) -> list[str]:
    flags = {
        "shell": scores["is_shell"],
        "textureless": scores["appearance"] == "plain",
        "partly_invisible": scores["invisible_share"] > 0.01,
        "several_components": scores["largest_share"] < 0.99,
    }
    return [name for name, is_set in flags.items() if is_set]


def _base_share(solid: trimesh.Trimesh) -> float:
    """Part of the area that faces straight up or down within `_BASE_THICKNESS` of the bottom; 0 for low objects."""
    low, high = solid.bounds[:, 1]
    thickness = _BASE_THICKNESS * solid.extents.max()
    if high - low < 3 * thickness:
        return 0.0
    is_base = (solid.triangles_center[:, 1] < low + thickness) & (np.abs(solid.face_normals[:, 1]) > 0.99)
    return float(solid.area_faces[is_base].sum() / solid.area)


def _appearance(mesh: Mesh) -> tuple[str, float]:
    """`texture`, `colours` (more than one) or `plain`, and the part of the area that is fully transparent."""
    areas, opacities, colours = [], [], set()
    is_textured = False
    for part, transform in mesh_parts(mesh):
        vertices, faces = placed_triangles(part, transform)
        areas.append(trimesh.triangles.area(vertices[faces]).sum())
        visual = part.visual
        if isinstance(visual, trimesh.visual.TextureVisuals):
            colour, opacity, has_image = _material(visual.material)
            is_textured |= has_image and visual.uv is not None
            colours.add(colour)
        else:
            # Two of them are enough to know that there is more than one.
            rows = np.unique(visual.vertex_colors if visual.kind == "vertex" else visual.face_colors, axis=0)[:2]
            colours.update(map(tuple, rows[:, :3].tolist()))
            opacity = 1.0
        opacities.append(opacity)
    invisible = float(np.dot(areas, np.array(opacities) <= 0.01) / np.sum(areas))
    return "texture" if is_textured else "colours" if len(colours) > 1 else "plain", invisible


def _material(material) -> tuple[tuple[int, int, int], float, bool]:
    """Colour, opacity and whether there is an image, of a glTF or an MTL material."""
    red, green, blue, alpha = np.asarray(material.main_color).tolist()
    if isinstance(material, trimesh.visual.material.PBRMaterial):
        opacity = alpha / 255 if material.alphaMode in ("BLEND", "MASK") else 1.0
        return (red, green, blue), opacity, material.baseColorTexture is not None
    opacity = float(np.ravel(material.kwargs.get("d", 1.0))[0])
    return (red, green, blue), opacity, material.image is not None
