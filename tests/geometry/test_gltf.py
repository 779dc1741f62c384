# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Files by the letter of glTF 2.0, of one triangle: what they stand for is what is read."""

import base64
import io
import json
import math
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from diffusers_vilearn.geometry.gltf import plain_gltf
from diffusers_vilearn.geometry.mesh import MeshError, load_mesh, mesh_parts

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
UV = np.array([[0, 0], [0.5, 0], [0, 0.25]], np.float32)
CODES = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "float32": 5126}


def picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), "blue").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def make(
    attributes: dict,
    *,
    texture: dict | None = None,
    is_gloss: bool = False,
    required: tuple = (),
    stride: int = 0,
    glb: bool = True,
):
    """A file of one triangle; integer attributes are normalised; the texture is of metals, or of gloss."""
    data, views, accessors = b"", [], []
    for values in attributes.values():
        rows = [row.tobytes().ljust(stride, b"\0") for row in values]
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": sum(map(len, rows))})
        views[-1] |= {"byteStride": stride} if stride else {}
        kind, is_integer = f"VEC{values.shape[1]}", values.dtype.kind in "iu"
        code = CODES[str(values.dtype)]
        accessors.append({"bufferView": len(accessors), "componentType": code, "count": len(values), "type": kind})
        accessors[-1] |= {"normalized": True} if is_integer else {}
        data += b"".join(rows)
        data += b"\0" * (-len(data) % 4)
    header = {
        "asset": {"version": "2.0"},
        "extensionsRequired": list(required),
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [{"mesh": 0}, {"mesh": 0, "translation": [3, 0, 0]}],
        "buffers": [{"byteLength": len(data)}],
        "bufferViews": views,
        "accessors": accessors,
        "meshes": [{"primitives": [{"attributes": {name: index for index, name in enumerate(attributes)}}]}],
    }
    if texture is not None:
        header |= {"images": [{"uri": picture()}], "textures": [{"source": 0}]}
        texture = {"index": 0, **texture}
        gloss = {"extensions": {"KHR_materials_pbrSpecularGlossiness": {"diffuseTexture": texture}}}
        header["materials"] = [gloss if is_gloss else {"pbrMetallicRoughness": {"baseColorTexture": texture}}]
        header["meshes"][0]["primitives"][0]["material"] = 0
    if not glb:
        header["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
        return json.dumps(header).encode()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def load(content: bytes, file_type: str = "glb") -> list[tuple[trimesh.Trimesh, np.ndarray]]:
    return mesh_parts(load_mesh(io.BytesIO(content), file_type))


def uv_of(content: bytes, file_type: str = "glb") -> np.ndarray:
    """With the origin of glTF, the upper left corner."""
    return load(content, file_type)[0][0].visual.uv * [1, -1] + [0, 1]


def test_a_plain_file_is_left_as_it_is():
    for content in (
        make({"POSITION": TRIANGLE, "TEXCOORD_0": UV}, texture={}),
        trimesh.creation.box().export(file_type="glb"),
    ):
        assert plain_gltf(content, "glb", None) is content


@pytest.mark.parametrize("glb", [True, False])
@pytest.mark.parametrize("stride", [0, 12])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_normalised_texture_coordinates_are_what_they_stand_for(dtype, stride, glb):
    stored = np.rint(UV * np.iinfo(dtype).max).astype(dtype)
    content = make({"POSITION": TRIANGLE, "TEXCOORD_0": stored}, texture={}, stride=stride, glb=glb)
    np.testing.assert_allclose(uv_of(content, "glb" if glb else "gltf"), UV, atol=1 / 255)


@pytest.mark.parametrize("is_gloss", [True, False])
def test_the_set_that_the_texture_names_is_taken(is_gloss):
    both = {"POSITION": TRIANGLE, "TEXCOORD_0": 0 * UV, "TEXCOORD_1": UV}
    np.testing.assert_allclose(uv_of(make(both, texture={"texCoord": 1}, is_gloss=is_gloss)), UV)
    (part, _), _ = load(make(both, texture={"texCoord": 2}))
    assert part.visual.uv is None
    override = {"extensions": {"KHR_texture_transform": {"texCoord": 1}}}
    np.testing.assert_allclose(uv_of(make(both, texture=override)), UV)


def test_texture_transforms_are_applied():
    attributes = {"POSITION": TRIANGLE, "TEXCOORD_0": UV}

    def transformed(**transform):
        texture = {"extensions": {"KHR_texture_transform": transform}}
        return uv_of(make(attributes, texture=texture, required=("KHR_texture_transform",)))

    np.testing.assert_allclose(transformed(offset=[0.5, 0.25], scale=[2, 4]), UV * [2, 4] + [0.5, 0.25], atol=1e-6)
    # Counter-clockwise as it is seen: what points right points up, where the second coordinate is smaller.
    turned = transformed(rotation=math.pi / 2)
    np.testing.assert_allclose(turned, np.c_[UV[:, 1], -UV[:, 0]], atol=1e-6)


def test_quantised_positions_keep_their_place():
    stored = np.rint(TRIANGLE * 32767).astype(np.int16)
    parts = load(make({"POSITION": stored}, stride=8, required=("KHR_mesh_quantization",)))
    np.testing.assert_allclose(parts[0][0].vertices, TRIANGLE, atol=1e-4)
    assert sorted(transform[0, 3] for _, transform in parts) == [0, 3]
    lowest = make({"POSITION": np.array([[-32768, 0, 0], [32767, 0, 0], [0, 32767, 0]], np.int16)}, stride=8)
    assert load(lowest)[0][0].vertices.min() == -1


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_linear_vertex_colours_become_srgb(dtype):
    linear = np.array([[0.5, 0, 1, 0.5]] * 3)
    stored = linear.astype(dtype) if dtype == "float32" else np.rint(linear * 65535).astype(dtype)
    (part, _), _ = load(make({"POSITION": TRIANGLE, "COLOR_0": stored}))
    assert part.visual.vertex_colors.tolist() == [[188, 0, 255, 128]] * 3


def test_colours_in_bytes_stay():
    stored = np.array([[128, 0, 255, 255]] * 3, np.uint8)
    (part, _), _ = load(make({"POSITION": TRIANGLE, "COLOR_0": stored}))
    assert part.visual.vertex_colors.tolist() == stored.tolist()


def test_colours_without_numbers_are_black():
    content = make({"COLOR_0": np.ones((3, 4), np.float32), "POSITION": TRIANGLE})
    (part, _), _ = load(content.replace(b'"bufferView": 0, ', b" " * 17))
    assert part.visual.vertex_colors.tolist() == [[0, 0, 0, 0]] * 3


def test_compressed_attributes_keep_up_with_the_others():
    header = json.loads(make({"POSITION": TRIANGLE, "TEXCOORD_1": UV}, texture={"texCoord": 1}, glb=False))
    (primitive,) = header["meshes"][0]["primitives"]
    header["accessors"].append({"componentType": 5126, "count": 3, "type": "VEC4"})
    primitive["attributes"]["COLOR_0"] = 2
    compressed = {"attributes": {"POSITION": 5, "TEXCOORD_1": 7, "COLOR_0": 6}}
    primitive["extensions"] = {"KHR_draco_mesh_compression": compressed}
    (primitive,) = json.loads(plain_gltf(json.dumps(header).encode(), "gltf", None))["meshes"][0]["primitives"]
    assert primitive["attributes"] == {"POSITION": 0, "TEXCOORD_0": 1}
    assert primitive["extensions"]["KHR_draco_mesh_compression"]["attributes"] == {"POSITION": 5, "TEXCOORD_0": 7}


def test_names_need_not_be_utf8():
    content = make({"POSITION": TRIANGLE}, glb=False).replace(
        b'{"mesh": 0}', '{"mesh": 0, "name": "Stühle"}'.encode("latin-1")
    )
    assert len(load(content, "gltf")) == 2


def test_a_byte_order_mark_is_no_harm():
    linear = {"POSITION": TRIANGLE, "COLOR_0": np.ones((3, 4), np.float32)}
    assert load(b"\xef\xbb\xbf" + make(linear, glb=False), "gltf")


def test_lines_are_not_looked_at():
    lines = make({"POSITION": TRIANGLE, "COLOR_0": np.ones((3, 4), np.float32)}, glb=False)
    lines = lines.replace(b'"primitives": [{', b'"primitives": [{"mode": 1, ')
    assert plain_gltf(lines, "gltf", None) is lines


def test_what_cannot_be_read_is_refused_by_name():
    with pytest.raises(MeshError, match="cannot be read without KHR_texture_basisu, FOO_unknown"):
        load(make({"POSITION": TRIANGLE}, required=("KHR_texture_basisu", "KHR_materials_sheen", "FOO_unknown")))
    content = make({"POSITION": np.rint(TRIANGLE * 127).astype(np.int8)}, stride=4)
    with pytest.raises(MeshError, match="cannot be read as GLB"):
        load(content.replace(b'"count": 3', b'"count": 9'))


# A pyramid of height 1 over a square, and its corners, which a file may give in many ways.
PYRAMID = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 1]], np.float32)
SIDES = np.array([0, 1, 4, 1, 2, 4, 2, 3, 4, 3, 0, 4], np.uint16)


def in_pieces(*primitives: dict, accessors: list[tuple[np.ndarray, dict]]) -> bytes:
    """A GLTF file of accessors (values, further keys); those of `sparse` are arrays `(indices, values)`."""
    data, views, entries = b"", [], []

    def view(values: np.ndarray) -> dict:
        nonlocal data
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": values.nbytes})
        data += values.tobytes() + b"\0" * (-values.nbytes % 4)
        return {"bufferView": len(views) - 1, "componentType": CODES[str(values.dtype)]}

    for values, further in accessors:
        kind = f"VEC{values.shape[1]}" if values.ndim == 2 else "SCALAR"
        entry = {**view(values), "count": len(values), "type": kind, **further}
        if "sparse" in further:
            indices, others = map(view, further["sparse"])
            del others["componentType"]
            entry["sparse"] = {"count": len(further["sparse"][0]), "indices": indices, "values": others}
        entries.append(entry)
    header = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "buffers": [{"byteLength": len(data)}],
        "bufferViews": views,
        "accessors": entries,
        "meshes": [{"primitives": list(primitives)}],
    }
    header["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    return json.dumps(header).encode()


def corners_of(content: bytes) -> np.ndarray:
    """Corners of all triangles, sorted: (triangles, 9)."""
    triangles = np.concatenate([part.triangles for part, _ in load(content, "gltf")])
    # The first corner of a triangle is whichever.
    first = [min(range(3), key=lambda start: tuple(triangle[start])) for triangle in triangles]
    turned = [np.roll(triangle, -start, axis=0).ravel() for triangle, start in zip(triangles, first)]
    return np.array(sorted(map(tuple, turned)))


EXPECTED = corners_of(in_pieces({"attributes": {"POSITION": 0}, "indices": 1}, accessors=[(PYRAMID, {}), (SIDES, {})]))


def test_what_is_sparse_is_read_as_it_stands():
    few = np.array([4], np.uint8)
    flat = PYRAMID * np.array([1, 1, 0], np.float32)
    everything = (np.arange(5, dtype=np.uint16), PYRAMID)
    for positions in ((flat, {"sparse": (few, PYRAMID[4:])}), (PYRAMID + 7, {"sparse": everything})):
        content = in_pieces({"attributes": {"POSITION": 0}, "indices": 1}, accessors=[positions, (SIDES, {})])
        np.testing.assert_array_equal(corners_of(content), EXPECTED)
    indices = SIDES.copy()
    indices[[2, 5]] = 0
    places = np.array([2, 5], np.uint8)
    content = in_pieces(
        {"attributes": {"POSITION": 0}, "indices": 1},
        accessors=[(PYRAMID, {}), (indices, {"sparse": (places, np.array([4, 4], np.uint16))})],
    )
    np.testing.assert_array_equal(corners_of(content), EXPECTED)


def test_fans_are_read():
    fan = np.array([4, 0, 1, 2, 3, 0], np.uint16)
    indexed = in_pieces({"attributes": {"POSITION": 0}, "indices": 1, "mode": 6}, accessors=[(PYRAMID, {}), (fan, {})])
    in_order = in_pieces({"attributes": {"POSITION": 0}, "mode": 6}, accessors=[(PYRAMID[fan], {})])
    for content in (indexed, in_order):
        np.testing.assert_array_equal(corners_of(content), EXPECTED)
