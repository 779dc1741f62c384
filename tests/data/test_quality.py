# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from diffusers_vilearn.data.quality import QualityLimits, measure_quality
from diffusers_vilearn.geometry import MeshError, merge_geometry, normalize_mesh, solid_surface


def box(size, at=(0, 0, 0)) -> trimesh.Trimesh:
    return trimesh.creation.box(size, trimesh.transformations.translation_matrix(at))


def scores_of(mesh) -> dict:
    mesh, _ = normalize_mesh(mesh)
    merged = merge_geometry(mesh)
    return measure_quality(mesh, merged, solid_surface(merged, resolution=48))


def reason_of(mesh) -> str:
    with pytest.raises(MeshError) as error:
        QualityLimits().check(scores_of(mesh))
    return error.value.reason


def test_a_plain_solid_passes_with_known_scores():
    scores = scores_of(box((1, 2, 0.5)))
    QualityLimits().check(scores)
    assert scores["thickness"] == pytest.approx(0.25) and scores["num_faces"] == 12 and scores["num_parts"] == 1
    # Bottom 0.5, sides 2 * (2 + 1), top 0.5.
    assert scores["base_share"] == pytest.approx(0.5 / 7) and scores["largest_share"] == 1
    assert scores["flags"] == ["textureless"] and not scores["is_shell"]


def test_a_solid_inside_out_is_no_shell():
    ball = trimesh.creation.icosphere(subdivisions=2)
    ball.invert()
    assert not scores_of(ball)["is_shell"]
    ball.update_faces(ball.triangles_center[:, 1] > 0)
    assert scores_of(ball)["is_shell"]


def test_a_sheet_is_flat():
    assert reason_of(box((1, 0.03, 1))) == "flat"


def test_an_object_on_a_ground_plate_is_rejected_but_a_table_is_not():
    cup = trimesh.creation.cylinder(0.1, 0.6, transform=trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    cup.apply_translation((0, 0.3, 0))
    assert reason_of(trimesh.util.concatenate([cup, box((2, 0.01, 2), (0, 0, 0))])) == "planar_base"
    legs = [box((0.1, 0.7, 0.1), (x, 0.35, z)) for x in (-0.5, 0.5) for z in (-0.3, 0.3)]
    QualityLimits().check(scores_of(trimesh.util.concatenate([box((1.2, 0.1, 0.8), (0, 0.75, 0)), *legs])))


def test_several_objects_are_rejected_but_a_loose_lid_is_not():
    assert reason_of(trimesh.util.concatenate([box((0.3,) * 3, (x, 0, 0)) for x in (-1, 0, 1)])) == "several_objects"
    scores = scores_of(trimesh.util.concatenate([box((1, 1, 1)), box((0.6, 0.15, 0.6), (0, 0.8, 0))]))
    QualityLimits().check(scores)
    assert "several_components" in scores["flags"] and "shell" in scores["flags"]


def test_appearance_tells_texture_colours_and_plain_apart():
    textured = box((1, 1, 1))
    image = Image.new("RGB", (4, 4), (9, 9, 9))
    textured.visual = TextureVisuals(uv=np.zeros((8, 2)), material=PBRMaterial(baseColorTexture=image))
    assert scores_of(textured)["appearance"] == "texture"
    coloured = box((1, 1, 1))
    coloured.visual.vertex_colors = np.random.default_rng(0).integers(0, 255, (8, 4))
    assert scores_of(coloured)["appearance"] == "colours"
    two = [box((1, 1, 1)), box((0.5, 1, 0.5), (0, 0.7, 0))]
    for mesh, colour in zip(two, ((1, 0, 0), (0, 1, 0))):
        mesh.visual = TextureVisuals(material=SimpleMaterial(diffuse=(*colour, 1.0)))
    assert scores_of(trimesh.Scene(two))["appearance"] == "colours"
    assert scores_of(box((1, 1, 1)))["appearance"] == "plain"


def test_transparent_objects_are_flagged_and_invisible_ones_rejected():
    glass = PBRMaterial(baseColorFactor=(255, 255, 255, 0), alphaMode="BLEND")
    hidden = box((1, 1, 1))
    hidden.visual = TextureVisuals(material=glass)
    assert reason_of(hidden) == "invisible"
    scores = scores_of(trimesh.Scene([hidden, box((0.8, 2, 0.8))]))
    QualityLimits().check(scores)
    # The cube has an area of 6, the pillar one of 7.68.
    assert scores["invisible_share"] == pytest.approx(6 / 13.68, rel=1e-3) and "partly_invisible" in scores["flags"]
