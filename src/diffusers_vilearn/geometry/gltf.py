# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""glTF 2.0 files in the plain form that trimesh reads rightly.

trimesh takes normalised integers for the numbers that they stand for, always the first set of texture coordinates,
untransformed, and linear vertex colours for sRGB ones; it passes over triangle fans and what sparse accessors change;
and it reads what it can of a file that says that it cannot be read without some extension.
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
# The first mode of primitives that are no points or lines, and the last.
_TRIANGLES, _FAN = 4, 6
_DTYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TYPES = {width: name for name, width in _WIDTHS.items()}


def plain_gltf(content: bytes, file_type: str, resolver) -> bytes:
    """A GLB or GLTF file whose positions, normals and texture coordinates are floats, in one set with its transform
    applied, whose vertex colours are sRGB bytes, and which has no triangle fans and nothing sparse; the same bytes
    where it is such a file already.

    Vertex colours that are bytes stay: by the standard they are linear, but programs that write bytes write sRGB.

    Args:
        content (`bytes`): of the file.
        file_type (`str`): `glb` or `gltf`.
        resolver: mapping from the names of other files to their bytes, or `None`.

    Raises:
        ValueError: the file needs an extension that is not known, or has compressed accessors where numbers must
            change.
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
            if name in attributes and self._is_encoded(attributes[name]):
                attributes[name] = self._add(attributes[name], name in compressed, "numbers", _numbers)
        self._convert_indices(primitive)
        colors = attributes.get("COLOR_0")
        if colors is not None:
            are_bytes = _DTYPES[self._accessor(colors)["componentType"]] is np.uint8
            if not are_bytes and compressed.pop("COLOR_0", None) is not None:
                del attributes["COLOR_0"]
            elif not are_bytes or "sparse" in self._accessor(colors):
                attributes["COLOR_0"] = self._add(colors, False, "colours", _as_stored if are_bytes else _srgb_bytes)

        texture = _color_texture(material)
        transform = texture.get("extensions", {}).get(_TRANSFORM, {})
        name = f"TEXCOORD_{transform.get('texCoord', texture.get('texCoord', 0))}"
        for names in (attributes, compressed):
            chosen = names.pop(name, None)
            names.pop("TEXCOORD_0", None)
            if chosen is not None:
                names["TEXCOORD_0"] = chosen
        index = attributes.get("TEXCOORD_0")
        if index is not None and (transform or self._is_encoded(index)):
            purpose, is_compressed = json.dumps(transform), "TEXCOORD_0" in compressed
            attributes["TEXCOORD_0"] = self._add(
                index, is_compressed, purpose, lambda *stored: _transformed(_numbers(*stored), transform)
            )

    def _convert_indices(self, primitive: dict) -> None:
        """Let the corners of triangles be plain, and of a fan a list."""
        indices = primitive.get("indices")
        if primitive.get("mode", _TRIANGLES) == _FAN:
            if indices is None:
                primitive["indices"] = self._add(primitive["attributes"]["POSITION"], False, "fan", _fanned_in_order)
            else:
                primitive["indices"] = self._add(indices, False, "fan", _fanned)
            primitive["mode"] = _TRIANGLES
        elif indices is not None and "sparse" in self._accessor(indices):
            primitive["indices"] = self._add(indices, False, "indices", _as_stored)

    def _accessor(self, index: int) -> dict:
        return self.header["accessors"][index]

    def _is_encoded(self, index: int) -> bool:
        """Whether an accessor stands for other numbers than its own buffer has."""
        accessor = self._accessor(index)
        return bool(accessor.get("normalized")) or "sparse" in accessor

    def _add(self, index: int, is_compressed: bool, purpose: str, function) -> int:
        """The accessor of `function(values, is_normalised)` of those of another one; the same for the same purpose."""
        if is_compressed:
            raise ValueError("normalised, transformed or linear attributes are not read where Draco compressed them")
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
                    "type": _TYPES[values.shape[1]],
                    "normalized": purpose == "colours",
                }
            )
            views.append(place)
        return self.known[index, purpose]

    def _stored(self, accessor: dict) -> np.ndarray:
        """(count, components) as the file has them; zeros where it has none."""
        count, width, kind = accessor["count"], _WIDTHS[accessor["type"]], accessor["componentType"]
        if "bufferView" in accessor:
            values = self._read(accessor, count, width, kind)
        else:
            values = np.zeros((count, width), _DTYPES[kind])
        if sparse := accessor.get("sparse"):
            values = values.copy()
            places = self._read(sparse["indices"], sparse["count"], 1, sparse["indices"]["componentType"])
            values[places[:, 0]] = self._read(sparse["values"], sparse["count"], width, kind)
        return values

    def _read(self, place: dict, count: int, width: int, kind: int) -> np.ndarray:
        """(count, width) numbers of a component type, from the buffer view that `place` names."""
        view, dtype = self.header["bufferViews"][place["bufferView"]], np.dtype(_DTYPES[kind])
        return np.ndarray(
            (count, width),
            dtype,
            self._buffer(view["buffer"]),
            view.get("byteOffset", 0) + place.get("byteOffset", 0),
            (view.get("byteStride", width * dtype.itemsize), dtype.itemsize),
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


def _as_stored(values: np.ndarray, _: bool) -> np.ndarray:
    return values


def _numbers(values: np.ndarray, is_normalised: bool) -> np.ndarray:
    """What stored values stand for, float32: normalised integers reach from 0, or from -1, to 1."""
    if not is_normalised:
        return values.astype(np.float32)
    return np.maximum(values.astype(np.float32) / np.iinfo(values.dtype).max, -1)


def _fanned(corners: np.ndarray, _: bool) -> np.ndarray:
    """The corners of a fan (n, 1) as those of its triangles (3 (n - 2), 1), uint32."""
    first = np.repeat(corners[:1], len(corners) - 2, axis=0)
    return np.concatenate([corners[1:-1], corners[2:], first], axis=1).astype(np.uint32).reshape(-1, 1)


def _fanned_in_order(positions: np.ndarray, _: bool) -> np.ndarray:
    """As `_fanned`, of a fan without indices."""
    return _fanned(np.arange(len(positions))[:, None], False)


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
