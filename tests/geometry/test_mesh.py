# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Mesh files, validation, normalisation and simplification."""

import io
import zipfile

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusers_vilearn.geometry import (
    MeshError,
    drop_specks,
    export_mesh,
    load_mesh,
    merge_geometry,
    mesh_parts,
    normalize_mesh,
    simplify_mesh,
    validate_mesh,
)

OBJ = """mtllib thing.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0 0 1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl painted
f 1/1 2/2 3/3 4/4
usemtl plain
f 1 2 5
"""
MTL = "newmtl painted\nKd 0 0 0\nmap_Kd paint.png\nnewmtl plain\nKd 1 0 0\n"


def write_obj(folder, mtl=MTL):
    folder.mkdir(exist_ok=True)
    (folder / "thing.obj").write_text(OBJ)
    (folder / "thing.mtl").write_text(mtl)
    Image.new("RGB", (4, 4), (10, 200, 30)).save(folder / "paint.png")
    return folder / "thing.obj"


def textures(mesh):
    return [part.visual.material.image for part, _ in mesh_parts(mesh) if part.visual.material.image is not None]


def two_boxes():
    """Two boxes that share one geometry, one of them moved and mirrored."""
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box(), geom_name="box", node_name="a")
    mirror = np.diag([-2.0, 1, 1, 1])
    mirror[0, 3] = 5
    scene.graph.update("b", matrix=mirror, geometry="box")
    return scene


def test_obj_keeps_materials_and_textures(tmp_path):
    mesh = load_mesh(write_obj(tmp_path))
    assert sum(len(part.faces) for part, _ in mesh_parts(mesh)) == 3
    (image,) = textures(mesh)
    assert image.convert("RGB").getpixel((0, 0)) == (10, 200, 30)
    colors = [tuple(part.visual.material.diffuse[:3]) for part, _ in mesh_parts(mesh)]
    assert (255, 0, 0) in colors


def test_obj_reads_no_asset_outside_its_folder(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    path = write_obj(tmp_path / "inner", MTL.replace("paint.png", "../secret.png"))
    assert textures(load_mesh(path)) == []


def test_obj_without_its_texture_still_loads(tmp_path):
    path = write_obj(tmp_path)
    (tmp_path / "paint.png").unlink()
    assert textures(load_mesh(path)) == []


def test_zip_members(tmp_path):
    write_obj(tmp_path)
    archive = tmp_path / "things.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("thing.obj", "thing.mtl", "paint.png"):
            file.write(tmp_path / name, f"deep/{name}")
    assert len(textures(load_mesh(archive))) == 1
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("other.off", trimesh.creation.box().export(file_type="off"))
    with pytest.raises(ValueError, match="member"):
        load_mesh(archive)
    with pytest.raises(ValueError, match=r"nothing\.obj"):
        load_mesh(archive, member="nothing.obj")
    assert len(textures(load_mesh(archive, member="deep/thing.obj"))) == 1
    assert merge_geometry(load_mesh(archive, member="other.off")).volume == pytest.approx(1)


def test_archive_bombs_are_refused_before_they_unpack(tmp_path):
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("bomb.stl", b"x")
        file.getinfo("bomb.stl").file_size = 2 << 30
    with pytest.raises(ValueError, match="unpacks to"):
        load_mesh(archive)


def test_damaged_archive_members_are_refused(tmp_path):
    archive = tmp_path / "damaged.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("ball.stl", b"solid ball" * 100)
    archive.write_bytes(archive.read_bytes().replace(b"solid ball", b"solid bull"))
    with pytest.raises(ValueError, match="cannot be unpacked"):
        load_mesh(archive)


@pytest.mark.parametrize("file_type", ["obj", "glb", "gltf", "ply", "stl", "off"])
def test_every_format_from_a_path(tmp_path, file_type):
    path = tmp_path / f"bäll.{file_type}"
    exported = trimesh.creation.icosphere(2).export(file_type=file_type)
    if file_type == "gltf":
        for name, content in exported.items():
            (path if name == "model.gltf" else tmp_path / name).write_bytes(content)
    else:
        path.write_bytes(exported.encode() if isinstance(exported, str) else exported)
    assert merge_geometry(load_mesh(path)).is_watertight


def test_open_files_need_a_type():
    content = trimesh.creation.box().export(file_type="stl")
    assert merge_geometry(load_mesh(io.BytesIO(content), "stl")).volume == pytest.approx(1)
    with pytest.raises(ValueError, match="file_type"):
        load_mesh(io.BytesIO(content))


def test_loading_repairs_nothing():
    mesh = load_mesh(io.BytesIO(b"v 0 0 0\nv 1 0 0\nv nan 1 0\nf 1 2 3\n"), "obj")
    with pytest.raises(ValueError, match="finite"):
        validate_mesh(mesh)


@pytest.mark.parametrize("file_type", ["obj", "glb", "ply", "stl", "off", "zip"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 50, b"solid nothing\nendsolid\n"])
def test_garbage_is_refused(file_type, content):
    with pytest.raises(ValueError, match="source"):
        load_mesh(io.BytesIO(content), file_type)


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 900))
def test_truncated_glb_is_refused(cut):
    content = trimesh.creation.box().export(file_type="glb")
    with pytest.raises(ValueError, match="GLB"):
        load_mesh(io.BytesIO(content[: min(cut, len(content) - 1)]), "glb")


@settings(max_examples=30, deadline=None)
@given(missing=st.integers(1, 20))
@pytest.mark.parametrize("file_type, options", [("off", {}), ("ply", {"encoding": "ascii"})])
def test_truncated_text_is_refused(file_type, options, missing):
    content = trimesh.creation.box().export(file_type=file_type, **options)
    lines = (content if isinstance(content, bytes) else content.encode()).splitlines(keepends=True)
    assert len(merge_geometry(load_mesh(io.BytesIO(b"".join(lines)), file_type)).faces) == 12
    with pytest.raises(ValueError, match=file_type.upper()):
        load_mesh(io.BytesIO(b"".join(lines[:-missing])), file_type)


@pytest.mark.parametrize("name", ["thing.fbx", "thing"])
def test_unknown_types_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match="file_type"):
        load_mesh(tmp_path / name)
    with pytest.raises(ValueError, match=r"\.glb"):
        export_mesh(trimesh.creation.box(), tmp_path / name)


def test_merge_places_instances_and_turns_mirrored_ones():
    merged = merge_geometry(two_boxes())
    assert len(merged.faces) == 24 and len(merged.vertices) == 16
    assert merged.volume == pytest.approx(3)
    np.testing.assert_allclose(merged.bounds, [[-0.5, -0.5, -0.5], [6, 0.5, 0.5]])


def test_merge_shares_vertices_and_drops_degenerate_faces():
    box = trimesh.creation.box()
    soup = trimesh.Trimesh(box.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    faces = np.concatenate([soup.faces, [[0, 0, 1], [0, 1, 0]]])
    merged = merge_geometry(trimesh.Trimesh(soup.vertices, faces, process=False))
    assert len(merged.vertices) == 8 and len(merged.faces) == 12 and merged.is_watertight


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e-6, 1.0, 1e30])
def test_merge_keeps_real_triangles_of_any_size(scale):
    assert len(merge_geometry(trimesh.Trimesh(np.eye(3) * scale, [[0, 1, 2]], process=False)).faces) == 1


def test_valid_meshes_pass():
    validate_mesh(trimesh.creation.box())
    validate_mesh(two_boxes())
    validate_mesh(trimesh.Trimesh(np.eye(3) * 1e-30, [[0, 1, 2]], process=False))


@pytest.mark.parametrize(
    "vertices, faces, message",
    [
        (np.zeros((0, 3)), np.zeros((0, 3), int), "at least one triangle"),
        (np.eye(3), np.zeros((0, 3), int), "at least one triangle"),
        (np.eye(3) * np.nan, [[0, 1, 2]], "finite"),
        (np.full((3, 3), np.inf), [[0, 1, 2]], "finite"),
        (np.array([[1.7e308, 0, 0], [-1.7e308, 0, 0], [0, 1, 0]]), [[0, 1, 2]], "finite"),
        (np.ones((3, 3)), [[0, 1, 2]], "extent"),
        (np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2.0]]), [[0, 1, 2]], "area"),
        (np.eye(3), [[0, 1, 3]], "do not exist"),
        (np.eye(3), [[0, 1, -1]], "do not exist"),
    ],
)
def test_invalid_meshes_are_named(vertices, faces, message):
    with pytest.raises(ValueError, match=message):
        validate_mesh(trimesh.Trimesh(vertices, faces, process=False))


def test_too_many_faces_are_refused():
    with pytest.raises(ValueError, match="at most 11 triangles, got 12"):
        validate_mesh(trimesh.creation.box(), max_faces=11)


@settings(max_examples=40, deadline=None)
@given(
    exponent=st.integers(-30, 30),
    extents=st.tuples(*[st.floats(0.01, 1)] * 3),
    offset=st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_normalised_meshes_fill_the_cube(exponent, extents, offset):
    box = trimesh.creation.box(extents)
    box.vertices = (box.vertices + offset) * 10.0**exponent
    before = box.vertices.copy()
    normalized, transform = normalize_mesh(box)
    np.testing.assert_array_equal(box.vertices, before)
    np.testing.assert_allclose(normalized.bounds.sum(axis=0), 0, atol=1e-9)
    assert normalized.extents.max() == pytest.approx(1.9)
    np.testing.assert_allclose(trimesh.transform_points(before, transform), normalized.vertices, atol=1e-9)


def test_normalised_scenes_move_as_a_whole():
    scene = two_boxes()
    normalized, transform = normalize_mesh(scene, half_side=1.0)
    np.testing.assert_allclose(merge_geometry(normalized).bounds[:, 0], [-1, 1], atol=1e-12)
    np.testing.assert_allclose(
        merge_geometry(normalized).triangles,
        trimesh.transform_points(merge_geometry(scene).triangles.reshape(-1, 3), transform).reshape(-1, 3, 3),
        atol=1e-12,
    )
    assert merge_geometry(scene).bounds[1, 0] == 6


def test_unused_vertices_do_not_count_in_normalisation():
    box = trimesh.creation.box()
    mesh = trimesh.Trimesh(np.concatenate([box.vertices, [[100, 100, 100]]]), box.faces, process=False)
    _, transform = normalize_mesh(mesh, half_side=0.5)
    np.testing.assert_allclose(transform, np.eye(4), atol=1e-12)


def test_meshes_without_extent_cannot_be_normalised():
    with pytest.raises(ValueError, match="an area"):
        normalize_mesh(trimesh.Trimesh(np.ones((3, 3)), [[0, 1, 2]], process=False))


def test_simplify_keeps_the_shape():
    sphere = trimesh.creation.icosphere(4)
    simple = simplify_mesh(sphere, 500)
    assert len(simple.faces) <= 500 and simple.is_watertight
    assert simple.volume == pytest.approx(sphere.volume, rel=0.02)
    assert len(simplify_mesh(sphere, 10**6).faces) == len(sphere.faces)


def test_simplify_copes_with_what_is_no_manifold():
    first, second = trimesh.creation.icosphere(3), trimesh.creation.icosphere(3)
    # A fin on an edge of the first sphere makes three faces meet there.
    a, b = first.edges[0]
    vertices = np.concatenate([first.vertices, [1.3 * first.vertices[[a, b]].mean(axis=0)], second.vertices + 3])
    fin = [[a, b, len(first.vertices)]]
    faces = np.concatenate([first.faces, fin, second.faces + len(first.vertices) + 1])
    simple = simplify_mesh(trimesh.Trimesh(vertices, faces, process=False), 600)
    assert 300 < len(simple.faces) <= 600
    np.testing.assert_allclose(simple.bounds, [[-1, -1, -1], [4, 4, 4]], atol=0.1)


def test_simplify_turns_faces_to_agree():
    sphere = trimesh.creation.icosphere(3)
    for turned in ([0], [100], range(0, 600)):
        faces = sphere.faces.copy()
        faces[list(turned)] = faces[list(turned), ::-1]
        simple = simplify_mesh(trimesh.Trimesh(sphere.vertices, faces, process=False), 200)
        assert simple.is_winding_consistent and simple.volume == pytest.approx(sphere.volume, rel=0.1)


def test_simplify_refuses_what_has_one_side():
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    across = np.cos(angles / 2)[:, None] * ring + np.sin(angles / 2)[:, None] * [0, 0, 1]
    vertices = np.concatenate([ring - 0.3 * across, ring + 0.3 * across])
    here, there = np.arange(64), np.roll(np.arange(64), -1)
    # Once around, the strip meets itself upside down.
    low, high = np.where(there == 0, 64, there), np.where(there == 0, 0, there + 64)
    faces = np.concatenate([np.stack([here, low, high], 1), np.stack([here, high, here + 64], 1)])
    with pytest.raises(ValueError, match="one side only"):
        simplify_mesh(trimesh.Trimesh(vertices, faces, process=False), 50)


@pytest.mark.parametrize("far", [3.0, 1e6])
def test_a_face_without_an_area_has_no_say_in_the_size(far):
    box = trimesh.creation.box((1, 2, 1))
    faces = np.concatenate([box.faces, [[0, 8, 8], [8, 9, 8]]])
    needle = trimesh.Trimesh(np.concatenate([box.vertices, [[far, 0, 0], [0, far, 0]]]), faces, process=False)
    validate_mesh(needle)
    normalized, transform = normalize_mesh(needle)
    np.testing.assert_allclose(transform, normalize_mesh(box)[1])
    merged = merge_geometry(normalized)
    assert len(merged.vertices) == 8 and len(merged.faces) == 12
    needle.vertices[9] = np.nan
    with pytest.raises(MeshError, match="finite"):
        validate_mesh(needle)


def test_specks_are_dropped_and_nothing_else():
    ball = trimesh.creation.icosphere(2)
    speck = trimesh.creation.icosphere(1, radius=0.01).apply_translation([2, 0, 0])
    small = trimesh.creation.icosphere(1, radius=0.2).apply_translation([0, 2, 0])
    cleaned = drop_specks(trimesh.util.concatenate([ball, speck, small]))
    assert len(cleaned.faces) == len(ball.faces) + len(small.faces)
    assert cleaned.volume == pytest.approx(ball.volume + small.volume)


@pytest.mark.parametrize("file_type", ["glb", "obj", "ply", "stl"])
def test_export_and_load_again(tmp_path, file_type):
    path = tmp_path / f"out.{file_type}"
    export_mesh(two_boxes(), path)
    merged = merge_geometry(load_mesh(path))
    assert merged.volume == pytest.approx(3) and merged.is_watertight
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_glb_keeps_textures(tmp_path):
    export_mesh(load_mesh(write_obj(tmp_path / "in")), tmp_path / "out.glb")
    images = [part.visual.material.baseColorTexture for part, _ in mesh_parts(load_mesh(tmp_path / "out.glb"))]
    assert [image is not None for image in images].count(True) == 1


def test_a_full_disk_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    path = tmp_path / "out.stl"
    export_mesh(trimesh.creation.box(), path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(OSError):
            export_mesh(trimesh.creation.icosphere(4), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
