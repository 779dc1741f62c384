# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Detail behind: known areas, and bumps that only one side has."""

import numpy as np
import pytest
import trimesh

from diffusers_vilearn.metrics.detail import detail_behind

TOWARDS_CAMERA = np.array([0.0, 0.0, 1.0])


@pytest.fixture
def sphere() -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=4)


def bumpy(sphere: trimesh.Trimesh, where: np.ndarray) -> trimesh.Trimesh:
    mesh = sphere.copy()
    noise = 0.03 * np.random.default_rng(0).standard_normal((len(mesh.vertices), 1))
    mesh.vertices *= np.where(where[:, None], 1 + noise, 1)
    return mesh


def test_half_of_a_sphere_looks_away(sphere):
    assert detail_behind(sphere, TOWARDS_CAMERA)["area_behind"] == pytest.approx(2 * np.pi, rel=0.02)


def test_a_front_alone_has_nothing_behind(sphere):
    front = sphere.submesh([np.flatnonzero(sphere.triangles_center[:, 2] > 0)], append=True, repair=False)
    assert detail_behind(front, TOWARDS_CAMERA) == {"area_behind": 0, "roughness_behind": 0}


def test_a_flat_back_is_not_rough():
    box = detail_behind(trimesh.creation.box((1, 2, 3)), TOWARDS_CAMERA)
    assert box["area_behind"] == pytest.approx(2) and box["roughness_behind"] == pytest.approx(0, abs=1e-12)


def test_only_bumps_behind_count(sphere):
    height = sphere.vertices[:, 2]
    smooth, behind, in_front = (
        detail_behind(mesh, TOWARDS_CAMERA)["roughness_behind"]
        for mesh in (sphere, bumpy(sphere, height < -0.1), bumpy(sphere, height > 0.1))
    )
    assert behind > 3 * smooth and in_front == pytest.approx(smooth, rel=0.1)


def test_a_failed_shape_has_none():
    assert detail_behind(None, TOWARDS_CAMERA) == {"area_behind": 0, "roughness_behind": 0}
