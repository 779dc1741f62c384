# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: a mesh as grey-brown clay from several sides, and sheets of such pictures."""

from collections.abc import Sequence

import numpy as np
import trimesh
from PIL import Image, ImageDraw, ImageFont

from ..geometry.cameras import fit_camera, orbit_camera
from ..geometry.mesh import Mesh, merge_geometry
from ..geometry.rendering import EmbreeRenderer, Light

_CLAY = (201, 184, 168, 255)
_LIGHT = Light(direction=(-0.55, 0.75, 0.5), key=0.6, head=0.2, ambient=0.3)
_VERTICAL_FOV = 30.0
_GAP = 8


def render_views(
    mesh: Mesh | None, azimuths: Sequence[float] = (0, 90, 180, 270), elevation: float = 15, size: int = 256
) -> list[Image.Image]:
    """The shape of `mesh` in clay, whatever its own colours, from cameras around it at one distance.

    Args:
        mesh: `trimesh.Trimesh` or `trimesh.Scene`, +Y up; `None`, a shape that failed, gives white pictures.
        azimuths: degrees; 0 looks at the front from +Z, 90 stands on +X.
        elevation: degrees above the horizon.
        size: side of each picture in pixels.

    Returns:
        One RGB image per azimuth, on white.
    """
    if mesh is None:
        return [Image.new("RGB", (size, size), "white")] * len(azimuths)
    merged = merge_geometry(mesh)
    clay = trimesh.Trimesh(merged.vertices, merged.faces, process=False)
    clay.visual.face_colors = _CLAY
    fitted = [fit_camera(clay.vertices, azimuth, elevation, vertical_fov=_VERTICAL_FOV) for azimuth in azimuths]
    distance = max(np.linalg.norm(camera.position) for camera in fitted)
    renderer = EmbreeRenderer(clay)
    views = []
    for azimuth in azimuths:
        camera = orbit_camera(azimuth, elevation, distance=distance, vertical_fov=_VERTICAL_FOV)
        color = Image.fromarray(renderer.render(camera, size, light=_LIGHT, supersampling=3).color)
        views.append(Image.alpha_composite(Image.new("RGBA", color.size, "white"), color).convert("RGB"))
    return views


def render_preview(image: Image.Image, mesh: Mesh, size: int = 320) -> Image.Image:
    """The input image beside four views of the mesh: front, right, back and left.

    Args:
        image: the condition image, square.
        mesh: what the pipeline made of it.
        size: side of each of the five pictures in pixels.
    """
    picture = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return contact_sheet([[picture, *render_views(mesh, size=size)]])


def example_picture(size: int = 512) -> Image.Image:
    """RGBA picture of a chair made of boxes, on nothing: an input to try a pipeline with."""
    seat, back = ((1.0, 0.12, 1.0), (0.0, 0.0, 0.0)), ((1.0, 1.1, 0.12), (0.0, 0.55, -0.44))
    legs = [((0.12, 0.9, 0.12), (x, -0.5, z)) for x in (-0.42, 0.42) for z in (-0.42, 0.42)]
    chair = trimesh.util.concatenate(
        [trimesh.creation.box(extents).apply_translation(centre) for extents, centre in (seat, back, *legs)]
    )
    chair.visual.face_colors = _CLAY
    camera = fit_camera(chair.vertices, 30, 20, vertical_fov=_VERTICAL_FOV)
    return Image.fromarray(EmbreeRenderer(chair).render(camera, size, light=_LIGHT, supersampling=3).color)


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    labels: Sequence[str] | None = None,
    headings: Sequence[str] | None = None,
) -> Image.Image:
    """Rows of equally large pictures on one white sheet.

    Args:
        rows: pictures, all of one size; each row from the left.
        labels: a line of text above each row.
        headings: a word above each column.

    Raises:
        ValueError: there is no picture, sizes differ, or the number of labels or headings is wrong.
    """
    sizes = {picture.size for row in rows for picture in row}
    if len(sizes) != 1:
        raise ValueError(f"`rows` must hold pictures of one size, but their sizes are {sorted(sizes)}.")
    columns = max(len(row) for row in rows)
    if labels is not None and len(labels) != len(rows):
        raise ValueError(f"`labels` must be one per row ({len(rows)}), but there are {len(labels)}.")
    if headings is not None and len(headings) != columns:
        raise ValueError(f"`headings` must be one per column ({columns}), but there are {len(headings)}.")

    width, height = sizes.pop()
    font = ImageFont.load_default(size=max(10, height // 18))
    line = round(font.size * 1.6)
    top = _GAP + (line if headings else 0)
    pitch = height + _GAP + (line if labels else 0)
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, top + len(rows) * pitch), "white")
    draw = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings or ()):
        draw.text((_GAP + column * (width + _GAP) + width / 2, top - line / 2), heading, "black", font, anchor="mm")
    for index, row in enumerate(rows):
        y = top + index * pitch
        if labels:
            draw.text((_GAP, y + line / 2), labels[index], "black", font, anchor="lm")
            y += line
        for column, picture in enumerate(row):
            sheet.paste(picture, (_GAP + column * (width + _GAP), y))
    return sheet
