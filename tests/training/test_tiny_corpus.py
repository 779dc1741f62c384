# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The corpus of the tiny checkpoint: procedural objects, conversion, near-duplicates, split, image encoder."""

import json
import struct
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import trimesh
from PIL import Image
from safetensors.torch import load_file
from transformers import Dinov2Config, Dinov2Model

from diffusers_vilearn.data.duplicates import sketch_mesh

TINY = Path(__file__).parents[2] / "training/tiny"
sys.path.insert(0, str(TINY))

import corpus  # noqa: E402
import image_encoder  # noqa: E402
import packages  # noqa: E402
import sources  # noqa: E402
import zero_ad  # noqa: E402
from procedural import CATEGORIES, Builder, procedural_object  # noqa: E402
from procedural.primitives import THIN  # noqa: E402


def build(category: str, seed: int) -> trimesh.Scene:
    builder = Builder(np.random.default_rng(seed))
    CATEGORIES[category][0](builder)
    return builder.scene(category)


@pytest.mark.parametrize("category", CATEGORIES)
def test_procedural_parts_are_closed_outward_and_not_thin(category):
    for seed in range(5):
        scene = build(category, seed)
        bounds = scene.bounds
        size = bounds[1] - bounds[0]
        assert bounds[0, 1] == pytest.approx(0, abs=1e-9)
        assert bounds[:, [0, 2]].mean(axis=0) == pytest.approx((0, 0), abs=1e-9)
        assert 0.5 < size.max() < 2.0
        assert size.min() > corpus.FLAT_RATIO * size.max()
        for geometry in scene.geometry.values():
            assert len(geometry.visual.material.baseColorFactor) == 4
            for part in geometry.split(only_watertight=False):
                assert part.is_watertight and part.is_winding_consistent
                assert part.volume > 0
                assert part.extents.min() > 0.6 * THIN * size.max()


def test_procedural_object_follows_its_seed_only():
    first, again, other = (procedural_object(seed).to_mesh() for seed in (3, 3, 4))
    assert np.array_equal(first.vertices, again.vertices) and np.array_equal(first.faces, again.faces)
    assert len(first.vertices) != len(other.vertices) or not np.allclose(first.vertices, other.vertices)


def test_procedural_categories_vary():
    categories = [procedural_object(seed).metadata["category"] for seed in range(300)]
    assert len(set(categories)) > 40
    assert max(categories.count(category) for category in set(categories)) < 75


def test_write_procedural_keeps_geometry_and_colours_and_does_not_write_twice(tmp_path):
    record = corpus.write_procedural(5, tmp_path)
    path = tmp_path / record["path"]
    original, loaded = procedural_object(5), trimesh.load_scene(path)
    assert loaded.to_mesh().volume == pytest.approx(original.to_mesh().volume, rel=1e-4)
    colours = {tuple(mesh.visual.material.baseColorFactor) for mesh in original.geometry.values()}
    assert {tuple(mesh.visual.material.baseColorFactor) for mesh in loaded.geometry.values()} == colours
    assert record["split"] == "train" and record["faces"] == len(loaded.to_mesh().faces)
    path.write_bytes(b"kept")
    corpus.write_procedural(5, tmp_path)
    assert path.read_bytes() == b"kept"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_stretched_copies_are_other_shapes_of_the_same_object(tmp_path):
    record = corpus.write_procedural(5, tmp_path)
    copies = [corpus.write_stretched(record, copy, tmp_path) for copy in range(2)]
    original, *stretched = (trimesh.load_scene(tmp_path / one["path"]) for one in (record, *copies))
    ratios = np.array([scene.extents / original.extents for scene in stretched])
    assert (ratios < corpus.STRETCH * 1.001).all() and (ratios > 0.999 / corpus.STRETCH).all()
    assert (ratios.std(axis=0) > 0.01).all() and (ratios.std(axis=1) > 0.01).all()
    volumes = [scene.to_mesh().volume for scene in (original, *stretched)]
    assert volumes[1:] == pytest.approx(volumes[0] * ratios.prod(axis=1), rel=1e-3)
    assert {one["group"] for one in copies} == {record["group"]} and len({one["uid"] for one in copies}) == 2


# --- packages --------------------------------------------------------------------------------------------------------


def test_fetch_refuses_another_file_of_the_same_name(tmp_path):
    (tmp_path / sources.MYOSUITE.file).write_bytes(b"something else")
    with pytest.raises(RuntimeError, match="SHA-256"):
        packages.fetch(sources.MYOSUITE, tmp_path)


def test_fetch_names_the_missing_command(tmp_path):
    package = replace(sources.SWEET_HOME, command=("no-such-command-here", "download"))
    with pytest.raises(RuntimeError, match="no-such-command-here"):
        packages.fetch(package, tmp_path)


def test_unpack_takes_the_prefix_and_leaves_nothing_when_it_fails(tmp_path):
    archive = tmp_path / "some.whl"
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("wanted/a.txt", "a")
        members.writestr("other/b.txt", "b")
    folder = packages.unpack(archive, tmp_path / "out/unpacked", prefix="wanted/")
    assert [path.name for path in folder.rglob("*.txt")] == ["a.txt"]
    broken = tmp_path / "broken.whl"
    broken.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(zipfile.BadZipFile):
        packages.unpack(broken, tmp_path / "out/broken")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["unpacked"]


def test_read_catalogue():
    text = "id=Library\nname#2=Frame H\\u00f4i An\nmodel#2=/a/b.obj\nname#1=Châir \n"
    assert sources.read_catalogue(text) == [{"name": "Châir"}, {"name": "Frame Hôi An", "model": "/a/b.obj"}]


# --- reading and conversion ------------------------------------------------------------------------------------------


def task(mesh: Path, reader, **changes) -> sources.Task:
    return sources.Task({"uid": "test/object"}, mesh, reader, **({"rotation": np.eye(3)} | changes))


def test_convert_turns_the_object_upright_and_keeps_its_colour(tmp_path):
    mesh = trimesh.creation.cone(radius=0.2, height=1.0)  # its axis is Z
    mesh.export(tmp_path / "cone.stl")
    source = task(tmp_path / "cone.stl", sources.read_plain, rotation=sources.Z_UP, colour=(1.0, 0.0, 0.5, 1.0))
    record, reason, sketch = corpus.convert(source, tmp_path)
    loaded = trimesh.load_scene(tmp_path / record["path"])
    (part,) = loaded.geometry.values()
    assert reason is None and record["up_axis"] == "y" and record["faces"] == len(mesh.faces)
    assert loaded.extents == pytest.approx((0.4, 1.0, 0.4), rel=0.02)
    assert loaded.to_mesh().vertices[:, 1].argmax() == np.linalg.norm(loaded.to_mesh().vertices, axis=1).argmax()
    assert tuple(part.visual.material.baseColorFactor) == (255, 0, 128, 255)
    assert sketch.samples.shape == (8192, 3) and np.abs(sketch.samples).max() == pytest.approx(1, abs=0.05)


def test_obj_images_are_shown_undimmed_and_opaque(tmp_path):
    Image.new("RGB", (4, 4), (200, 100, 50)).save(tmp_path / "skin.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nKd 0 0 0\nd 0.2\nmap_Kd skin.png\nnewmtl n\nKd 0.2 0.4 0.6\n")
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvt 1 0\nvt 0 1\n"
    faces = "usemtl m\nf 1/1 3/3 2/2\nf 1/1 2/2 4/3\nusemtl n\nf 1/1 4/2 3/3\nf 2/1 3/2 4/3\n"
    (tmp_path / "a.obj").write_text("mtllib a.mtl\n" + corners + faces)
    record, reason, _ = corpus.convert(task(tmp_path / "a.obj", sources.read_obj), tmp_path)
    materials = [part.visual.material for part in trimesh.load_scene(tmp_path / record["path"]).geometry.values()]
    (image,) = [material for material in materials if material.baseColorTexture is not None]
    (plain,) = [material for material in materials if material.baseColorTexture is None]
    assert reason is None
    assert image.baseColorFactor is None or tuple(image.baseColorFactor) == (255, 255, 255, 255)
    assert image.baseColorTexture.convert("RGB").getpixel((0, 0)) == (200, 100, 50)
    assert tuple(plain.baseColorFactor) == (51, 102, 153, 255)
    assert all(material.metallicFactor == 0 and material.alphaMode == "OPAQUE" for material in materials)


def test_mujoco_mesh_with_its_texture_the_right_way_up(tmp_path):
    vertices = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], "<f4")
    normals, uv = np.zeros((4, 3), "<f4"), np.array([(0, 0), (1, 0), (0, 1), (0.5, 0.25)], "<f4")
    faces = np.array([(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)], "<i4")
    counts = struct.pack("<4i", 4, 4, 4, 4)
    path = tmp_path / "a.msh"
    path.write_bytes(counts + vertices.tobytes() + normals.tobytes() + uv.tobytes() + faces.tobytes())
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    scene = sources.read_mujoco_msh(task(path, sources.read_mujoco_msh, texture=tmp_path / "a.png"))
    (mesh,) = scene.geometry.values()
    assert np.array_equal(mesh.vertices, vertices) and np.array_equal(mesh.faces, faces)
    assert mesh.visual.uv == pytest.approx(np.column_stack((uv[:, 0], 1 - uv[:, 1])))


def pmd(version: int, mesh: trimesh.Trimesh, uv: np.ndarray) -> bytes:
    """A PMD file whose triangles are clockwise seen from outside, as the game wants them."""
    vertices = np.concatenate([mesh.vertices, mesh.vertex_normals, uv], axis=1).astype("<f4")
    rows = [row.tobytes() + bytes(20) for row in vertices]
    head = struct.pack("<4sIII", b"PSMD", version, 0, len(rows)) + (struct.pack("<I", 1) if version == 4 else b"")
    faces = mesh.faces[:, ::-1].astype("<u2")
    return head + b"".join(rows) + struct.pack("<I", len(faces)) + faces.tobytes() + struct.pack("<I", 0)


@pytest.mark.parametrize("version", [3, 4])
def test_zero_ad_actors_give_meshes_their_textures(version, tmp_path):
    box = trimesh.creation.box((1, 2, 3))
    uv = np.linspace(0, 1, 16).reshape(8, 2)
    for name, content in {
        "meshes/props/box.dae.cached.pmd": pmd(version, box, uv),
        "actors/a.xml": b"<actor><group><variant><mesh>props/box.dae</mesh></variant></group>"
        b"<group><variant><textures><texture file='skin.png' name='baseTex'/></textures></variant></group></actor>",
        "actors/bare.xml": b"<actor><group><variant><mesh>props/box.dae</mesh></variant></group></actor>",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "textures/skins").mkdir(parents=True)
    Image.new("RGB", (4, 4), "green").save(tmp_path / "textures/skins/skin.png")
    assert zero_ad.read_actor(tmp_path / "actors/bare.xml", tmp_path) is None
    mesh, texture = zero_ad.read_actor(tmp_path / "actors/a.xml", tmp_path)
    assert zero_ad.count_faces(mesh) == 12
    record, reason, _ = corpus.convert(
        task(mesh, zero_ad.read_pmd, rotation=zero_ad.MIRROR, texture=texture), tmp_path
    )
    loaded = trimesh.load_scene(tmp_path / record["path"]).to_mesh()
    assert reason is None and loaded.volume == pytest.approx(6) and loaded.extents == pytest.approx((1, 2, 3))
    assert loaded.visual.uv == pytest.approx(np.column_stack((uv[:, 0], 1 - uv[:, 1])), abs=1e-6)
    with pytest.raises(ValueError, match="no PMD mesh"):
        texture.with_suffix(".pmd").write_bytes(bytes(40))
        zero_ad.count_faces(texture.with_suffix(".pmd"))


@pytest.mark.parametrize(
    ("extents", "reason"), [((1, 1, 0.05), None), ((1, 0.02, 0.5), "flat: smallest side is 0.020 of the largest")]
)
def test_reject_flat_objects(extents, reason):
    assert corpus.reject_reason(trimesh.creation.box(extents)) == reason


def test_reject_empty_and_broken_objects():
    box = trimesh.creation.box()
    assert corpus.reject_reason(trimesh.Trimesh(box.vertices, box.faces[:2], process=False)) == "2 faces"
    assert "empty" in corpus.reject_reason(trimesh.Trimesh(box.vertices * 0, box.faces, process=False))


# --- near-duplicates and split ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a/table1", "a/table2"),
        ("a/beige_sofa", "a/beige_sofa_2seats"),
        ("a/fireplace-left", "a/fireplace-right"),
        ("a/smallUpperCabinet", "a/upperCabinet"),
        ("myosuite/spherelarge", "myosuite/spheresmall"),
    ],
)
def test_variants_share_a_name_group(first, second):
    assert corpus.name_group(first) == corpus.name_group(second)


@pytest.mark.parametrize(("first", "second"), [("a/chair", "a/table"), ("a/chair", "b/chair"), ("a/1", "a/2")])
def test_others_do_not(first, second):
    assert corpus.name_group(first) != corpus.name_group(second)


def lamp() -> trimesh.Trimesh:
    return build("desk lamp", 0).to_mesh()


def test_split_keeps_names_and_equal_shapes_together():
    sketches = {
        f"sweethome3d/lib/{name}": sketch_mesh(build("assembly", i).to_mesh(), name) for i, name in enumerate("cdefgh")
    }
    sketches["sweethome3d/lib/chair1"] = sketch_mesh(build("chair", 1).to_mesh(), "1")
    sketches["sweethome3d/lib/chair2"] = sketch_mesh(build("chair", 2).to_mesh(), "2")
    sketches["sweethome3d/lib/lamp"] = sketch_mesh(lamp(), "lamp")
    sketches["myosuite/light"] = sketch_mesh(lamp(), "light")
    split = corpus.make_split(sketches, 3)
    parts = {uid: part for part in split for uids in split[part].values() for uid in uids}
    assert set(parts) == set(sketches)
    assert parts["myosuite/light"] == parts["sweethome3d/lib/lamp"] == "heldout"
    assert parts["sweethome3d/lib/chair1"] == parts["sweethome3d/lib/chair2"]
    furniture = [uid for uid, part in parts.items() if part == "heldout" and uid.startswith("sweethome3d")]
    assert 2 <= len(furniture) <= 3
    assert corpus.make_split(dict(reversed(sketches.items())), 3) == split


def test_repeated_out_of_domain_objects_are_dropped_once():
    ball, cube = trimesh.creation.icosphere(), trimesh.creation.box()
    shapes = {
        "myosuite/spherelarge": ball,
        "myosuite/spheresmall": ball,
        "myosuite/globe": ball,
        "myosuite/cube": cube,
    }
    repeats = corpus.drop_repeats({uid: sketch_mesh(mesh, uid) for uid, mesh in shapes.items()})
    assert sorted(repeats) == ["myosuite/spherelarge", "myosuite/spheresmall"]


def test_published_split():
    split = json.loads(corpus.SPLIT_FILE.read_text())
    uids = {part: [uid for members in split[part].values() for uid in members] for part in split}
    assert sorted(uids) == ["heldout", "train"]
    assert len(set(uids["train"] + uids["heldout"])) == len(uids["train"]) + len(uids["heldout"])
    assert len(uids["heldout"]) >= 200
    assert sum(uid.startswith("sweethome3d/") for uid in uids["heldout"]) == corpus.HELDOUT_FURNITURE
    assert not any(uid.startswith(corpus.OUT_OF_DOMAIN) for uid in uids["train"])
    names = {part: {corpus.name_group(uid) for uid in uids[part]} for part in uids}
    assert not names["train"] & names["heldout"]
    assert not set(split["train"]) & set(split["heldout"])


def test_apply_split_refuses_an_object_that_is_in_no_part():
    members = {"sweethome3d/a/b": ("heldout", "g")}
    record = {"uid": "sweethome3d/a/b", "source": "sweethome3d"}
    assert corpus.apply_split(record, members) == record | {"split": "heldout", "group": "g"}
    with pytest.raises(ValueError, match="sweethome3d/a/c"):
        corpus.apply_split(record | {"uid": "sweethome3d/a/c"}, members)


# --- image encoder ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, torch.Tensor]:
    """Random weights of all 12 layers under their checkpoint names."""
    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518)).save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def test_cut_encoder_gives_the_normed_tokens_of_its_last_layer(weights):
    full, cut = image_encoder.build_encoder(weights, 12), image_encoder.build_encoder(weights, 3)
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = full(pixels, output_hidden_states=True).hidden_states[3]
        expected = torch.nn.functional.layer_norm(hidden, (384,), eps=1e-6)
        torch.testing.assert_close(cut(pixels).last_hidden_state, expected)
    assert cut.config.num_hidden_layers == 3


def test_encoder_refuses_missing_weights(weights):
    fewer = {name: value for name, value in weights.items() if "layer.1.norm1" not in name}
    with pytest.raises(RuntimeError, match="norm1"):
        image_encoder.build_encoder(fewer, 3)


def test_read_weights_turns_matrices_and_joins_positions():
    rng = np.random.default_rng(0)
    arrays = {
        "onnx::MatMul_7": rng.standard_normal((384, 16)),
        "backbone.encoder.layer.0.mlp.fc1.bias": rng.standard_normal(16),
        "cls_position": rng.standard_normal((1, 1, 384)),
        "patch_positions": rng.standard_normal((1, image_encoder.POSITIONS, 384)),
    }
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    node = onnx.helper.make_node(
        "MatMul", ["x", "onnx::MatMul_7"], ["y"], name="/backbone/encoder/layer.0/mlp/fc1/MatMul"
    )
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()]
    read = image_encoder.read_weights(onnx.helper.make_graph([node], "g", [], [], initializer=tensors))
    assert np.array_equal(read["encoder.layer.0.mlp.fc1.weight"], arrays["onnx::MatMul_7"].T)
    assert np.array_equal(read["encoder.layer.0.mlp.fc1.bias"], arrays["backbone.encoder.layer.0.mlp.fc1.bias"])
    positions = np.concatenate((arrays["cls_position"], arrays["patch_positions"]), axis=1)
    assert np.array_equal(read["embeddings.position_embeddings"], positions)
