# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Meshes as numbers: files, cameras, renderings, samples, fields and the way back to a mesh. No neural networks."""

from importlib import import_module

_NAMES = {
    "cameras": (
        "Camera",
        "fit_camera",
        "focal_length_to_fov",
        "look_at",
        "orbit_camera",
        "sample_condition_camera",
        "sphere_cameras",
    ),
    "extraction": ("extract_mesh", "field_grid"),
    "field": ("signed_distance", "solid_surface", "winding_number"),
    "mesh": (
        "MeshError",
        "drop_specks",
        "export_mesh",
        "load_mesh",
        "merge_geometry",
        "mesh_parts",
        "normalize_mesh",
        "simplify_mesh",
        "validate_mesh",
    ),
    "rendering": (
        "EmbreeRenderer",
        "Light",
        "NvdiffrastRenderer",
        "Rendering",
        "make_renderer",
        "render",
        "sample_light",
        "visible_points",
    ),
    "sampling": ("sample_sharp_edges", "sample_surface"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str):
    """Import the module behind a public name on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
