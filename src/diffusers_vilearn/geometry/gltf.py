# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""glTF 2.0 files in the plain form that trimesh reads rightly.

trimesh takes normalised integers for the numbers that they stand for, always the first set of texture coordinates,
untransformed, and linear vertex colours for sRGB ones; and it reads what it can of a file that says that it cannot be
read without some extension.
"""

import base64
import copy
import importlib.util
import json
import math
import struct

import numpy as np
import trimesh

from .colors import linear_to_srgb

# What a file may need to be read: what is done here, what trimesh does, and what changes no more than the gloss.
_KNOWN_EXTENSIONS = {"EXT_texture_webp", "KHR_mesh_quantization", "KHR_texture_transform", "KHR_lights_punctual"}
_GLOSS = "KHR_materials_"
_DRACO = "KHR_draco_mesh_compression"
_TRANSFORM = "KHR_texture_transform"
# The first mode of primitives that are no points or lines.
_TRIANGLES = 4
_DTYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def plain_gltf(content: bytes, file_type: str, resolver) -> bytes:
    """A GLB or GLTF file whose positions, normals and texture coordinates are floats, in one set with its transform
    applied, and whose vertex colours are sRGB bytes; the same bytes where it is such a file already.

    Vertex colours that are bytes stay: by the standard they are linear, but programs that write bytes write sRGB.

    Args:
        content (`bytes`): of the file.
        file_type (`str`): `glb` or `gltf`.
        resolver: mapping from the names of other files to their bytes, or `None`.

    Raises:
        ValueError: the file needs an extension that is not known, or has sparse or compressed accessors where numbers
            must change.
        Exception: whatever a broken file makes the parsers raise.
    """
    if file_type == "gltf":
        header, binary = _parsed(content), b""
    else:
        (length,) = struct.unpack_from("<I", content, 12)
        header, binary = _parsed(content[20 : 20 + length]), memoryview(content)[20 + length :]
    _check_extensions(header.get("extensionsRequired", []))
    original = copy.deepcopy(header)
    # After the header of the binary chunk.
    plain = _PlainAccessors(header, binary[8:], resolver)
    materials = header.get("materials", [])
    for mesh in header.get("meshes", []):
        for primitive in mesh["primitives"]:
            if primitive.get("mode", _TRIANGLES) >= _TRIANGLES:
                plain.convert(primitive, materials[primitive["material"]] if "material" in primitive else {})
    if header == original:
        return content
    plain.finish()
    text = json.dumps(header).encode()
    if file_type == "gltf":
        return text
    text += b" " * (-len(text) % 4)
    chunk = struct.pack("<I4s", len(text), b"JSON") + text
    return b"".join((struct.pack("<4sII", b"glTF", 2, 12 + len(chunk) + len(binary)), chunk, binary))


def _parsed(text: bytes) -> dict:
    """Of JSON that should be UTF-8 and, by careless writers, is not always."""
    try:
        return json.loads(text)
    except UnicodeDecodeError:
        return json.loads(trimesh.util.decode_text(text))


def _check_extensions(required: list[str]) -> None:
    known = _KNOWN_EXTENSIONS | ({_DRACO} if importlib.util.find_spec("DracoPy") else set())
    if unknown := [name for name in required if name not in known and not name.startswith(_GLOSS)]:
        hint = "; `pip install DracoPy` for the latter" if unknown == [_DRACO] else ""
        raise ValueError(f"the file cannot be read without {', '.join(unknown)}{hint}")


class _PlainAccessors:
    """Adds accessors with the numbers that others of a file stand for, in a buffer of their own.

    Args:
        header (`dict`): of the file; it is changed.
        binary (`bytes`): of the first buffer, where that is no other file.
        resolver: see `plain_gltf`.
    """

    def __init__(self, header: dict, binary: bytes, resolver):
        self.header, self.binary, self.resolver = header, binary, resolver
        self.data = bytearray()
        self.known, self.buffers = {}, {}

    def convert(self, primitive: dict, material: dict) -> None:
        """Let the attributes of a primitive be plain; compressed by Draco, colours that are not are dropped."""
        attributes = primitive["attributes"]
        compressed = primitive.get("extensions", {}).get(_DRACO, {}).get("attributes", {})
        for name in ("POSITION", "NORMAL"):
            if name in attributes and self._accessor(attributes[name]).get("normalized"):
                attributes[name] = self._add(attributes[name], name in compressed, "numbers", _numbers)
        colors = attributes.get("COLOR_0")
        if colors is not None and _DTYPES[self._accessor(colors)["componentType"]] is not np.uint8:
            if compressed.pop("COLOR_0", None) is not None:
                del attributes["COLOR_0"]
            else:
                attributes["COLOR_0"] = self._add(colors, False, "colours", _srgb_bytes)

        texture = _color_texture(material)
        transform = texture.get("extensions", {}).get(_TRANSFORM, {})
        name = f"TEXCOORD_{transform.get('texCoord', texture.get('texCoord', 0))}"
        for names in (attributes, compressed):
            chosen = names.pop(name, None)
            names.pop("TEXCOORD_0", None)
            if chosen is not None:
                names["TEXCOORD_0"] = chosen
        index = attributes.get("TEXCOORD_0")
        if index is not None and (transform or self._accessor(index).get("normalized")):
            purpose, is_compressed = json.dumps(transform), "TEXCOORD_0" in compressed
            attributes["TEXCOORD_0"] = self._add(
                index, is_compressed, purpose, lambda *stored: _transformed(_numbers(*stored), transform)
            )

    def _accessor(self, index: int) -> dict:
        return self.header["accessors"][index]

    def _add(self, index: int, is_compressed: bool, purpose: str, function) -> int:
        """The accessor of `function(values, is_normalised)` of those of another one; the same for the same purpose."""
        if is_compressed or "sparse" in self._accessor(index):
            raise ValueError(
                "normalised, transformed or linear attributes are not read where they are sparse or compressed by"
                " Draco"
            )
        if (index, purpose) not in self.known:
            accessor = self._accessor(index)
            values = function(self._stored(accessor), accessor.get("normalized", False))
            views, accessors = self.header["bufferViews"], self.header["accessors"]
            place = {"buffer": len(self.header["buffers"]), "byteOffset": len(self.data), "byteLength": values.nbytes}
            self.data += values.tobytes() + b"\0" * (-values.nbytes % 4)
            self.known[index, purpose] = len(accessors)
            accessors.append(
                {
                    "bufferView": len(views),
                    "componentType": _CODES[values.dtype],
                    "count": len(values),
                    "type": accessor["type"],
                    "normalized": values.dtype == np.uint8,
                }
            )
            views.append(place)
        return self.known[index, purpose]

    def _stored(self, accessor: dict) -> np.ndarray:
        """(count, components) as the file has them; zeros where it has none."""
        shape, dtype = (accessor["count"], _WIDTHS[accessor["type"]]), np.dtype(_DTYPES[accessor["componentType"]])
        if "bufferView" not in accessor:
            return np.zeros(shape, dtype)
        view = self.header["bufferViews"][accessor["bufferView"]]
        return np.ndarray(
            shape,
            dtype,
            self._buffer(view["buffer"]),
            view.get("byteOffset", 0) + accessor.get("byteOffset", 0),
            (view.get("byteStride", shape[1] * dtype.itemsize), dtype.itemsize),
        )

    def _buffer(self, index: int) -> bytes:
        """Decoded or read once for all accessors."""
        if index not in self.buffers:
            uri = self.header["buffers"][index].get("uri")
            _, is_inline, encoded = (uri or "").partition("base64,")
            if uri is None:
                self.buffers[index] = self.binary
            else:
                self.buffers[index] = base64.b64decode(encoded) if is_inline else self.resolver[uri]
        return self.buffers[index]

    def finish(self) -> None:
        """Put the new buffer, if there is one, into the header."""
        if not self.data:
            return
        uri = "data:application/octet-stream;base64," + base64.b64encode(self.data).decode()
        self.header["buffers"].append({"uri": uri, "byteLength": len(self.data)})


def _color_texture(material: dict) -> dict:
    """The texture that trimesh takes for the colour, or nothing."""
    gloss = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
    return gloss.get("diffuseTexture") or material.get("pbrMetallicRoughness", {}).get("baseColorTexture", {})


def _numbers(values: np.ndarray, is_normalised: bool) -> np.ndarray:
    """What stored values stand for, float32: normalised integers reach from 0, or from -1, to 1."""
    if not is_normalised:
        return values.astype(np.float32)
    return np.maximum(values.astype(np.float32) / np.iinfo(values.dtype).max, -1)


def _srgb_bytes(values: np.ndarray, is_normalised: bool) -> np.ndarray:
    """Linear colours (n, 3 or 4) as sRGB, uint8; alpha, the fourth, stays linear."""
    colors = _numbers(values, is_normalised).clip(0, 1)
    colors[:, :3] = linear_to_srgb(colors[:, :3])
    return np.rint(255 * colors).astype(np.uint8)


def _transformed(uv: np.ndarray, transform: dict) -> np.ndarray:
    """Texture coordinates (n, 2) scaled, turned counter-clockwise as the image is seen, and moved."""
    angle = transform.get("rotation", 0.0)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    scaled = uv * np.array(transform.get("scale", (1, 1)))
    return (scaled @ turn.T + np.array(transform.get("offset", (0, 0)))).astype(np.float32)
