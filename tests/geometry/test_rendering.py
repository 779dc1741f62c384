# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Rendering against shapes whose images are known."""

from importlib.util import find_spec

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusers_vilearn.geometry import (
    Camera,
    EmbreeRenderer,
    Light,
    NvdiffrastRenderer,
    fit_camera,
    orbit_camera,
    render,
    sample_light,
    visible_points,
)

AMBIENT = Light(key=0, head=0, ambient=1)
FRONT = orbit_camera(0, 0, orthographic_height=2)


def quad(uv=None, material=None, z=0.0):
    """The square [-1, 1]² at depth z, facing +Z."""
    vertices = np.array([[-1, -1, z], [1, -1, z], [1, 1, z], [-1, 1, z]], dtype=float)
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], process=False)
    if material is not None:
        mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return mesh


def checker():
    """Texture of four squares: red top left, green top right, blue bottom left, white bottom right."""
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    return Image.fromarray(pixels.repeat(16, axis=0).repeat(16, axis=1))


UNIT_UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)


def soup(seed):
    return trimesh.Trimesh(
        np.random.default_rng(seed).uniform(-1, 1, (60, 3)), np.arange(60).reshape(-1, 3), process=False
    )


@pytest.mark.parametrize("kind", [{"vertical_fov": 40.0}, {"orthographic_height": 2.5}])
def test_a_sphere_is_a_sphere(kind):
    camera = orbit_camera(40, 25, distance=4, **kind)
    view = render(trimesh.creation.icosphere(5), camera, 96)
    inside = view.position[view.mask].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(inside, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose((view.normal[view.mask] * inside).sum(axis=1), 1, atol=2e-3)
    origins, directions = camera.rays(96)
    closest = np.linalg.norm(np.cross(origins, directions), axis=1).reshape(96, 96)
    assert view.mask[closest < 0.995].all() and not view.mask[closest > 1].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-180, 180), st.floats(-90, 90), st.booleans())
def test_every_pixel_lies_on_its_ray_and_on_the_surface(seed, azimuth, elevation, orthographic):
    mesh = soup(seed)
    camera = fit_camera(mesh.vertices, azimuth, elevation, vertical_fov=None if orthographic else 35.0)
    view = render(mesh, camera, (24, 32))
    assert view.mask.any()
    pixels, depth = camera.project(view.position[view.mask], (24, 32))
    rows, columns = np.nonzero(view.mask)
    np.testing.assert_allclose(pixels, np.stack([columns, rows], axis=1) + 0.5, atol=2e-3)
    np.testing.assert_allclose(depth, view.depth[view.mask], rtol=1e-5)
    _, distance, _ = trimesh.proximity.closest_point(mesh, view.position[view.mask])
    assert distance.max() < 1e-6
    # Nearest: no other triangle stands between the camera and the point.
    origins, directions = (rays.reshape(24, 32, 3)[view.mask] for rays in camera.rays((24, 32)))
    naive = trimesh.ray.ray_triangle.RayMeshIntersector(mesh)
    points, index, _ = naive.intersects_location(origins, directions, multiple_hits=True)
    gap = (points - view.position[view.mask][index]) @ camera.camera_to_world[:3, 2]
    # On a grazing triangle single precision barycentrics move the point along the ray.
    assert gap.max() < 1e-3


def test_outside_is_empty():
    view = render(trimesh.creation.icosphere(2), orbit_camera(0, 0, vertical_fov=60.0), 32)
    outside = ~view.mask
    assert outside[0].all() and np.isinf(view.depth[outside]).all()
    for array in (view.normal, view.position, view.color):
        assert not array[outside].any()
    assert view.color.dtype == np.uint8
    assert (view.depth.dtype, view.normal.dtype, view.position.dtype) == (np.float32,) * 3
    assert (view.depth.shape, view.color.shape, view.mask.dtype) == ((32, 32), (32, 32, 4), bool)


def test_the_near_surface_hides_the_far_one():
    scene = trimesh.Scene([quad(z=0.3), quad(z=-0.3)])
    np.testing.assert_allclose(render(scene, FRONT, 8).position[..., 2], 0.3, atol=1e-7)
    np.testing.assert_allclose(render(scene, orbit_camera(180, 0, orthographic_height=2), 8).position[..., 2], -0.3)


def test_what_is_behind_the_camera_is_not_seen():
    camera = orbit_camera(0, 0, distance=0.1, vertical_fov=60.0)
    view = render(trimesh.Scene([quad(z=0.5), quad(z=-0.5)]), camera, 8)
    np.testing.assert_allclose(view.position[view.mask][:, 2], -0.5)


def test_normals_face_the_camera_whatever_the_winding():
    sphere = trimesh.creation.icosphere(3)
    camera = orbit_camera(10, 20, vertical_fov=30.0)
    inverted = sphere.copy()
    inverted.invert()
    half = trimesh.Trimesh(sphere.vertices, sphere.faces.copy(), process=False)
    half.faces[::2] = half.faces[::2, ::-1]
    expected = render(sphere, camera, 48)
    for mesh, tolerance in ((inverted, 1e-6), (half, 0.2)):
        view = render(mesh, camera, 48)
        np.testing.assert_allclose(view.normal, expected.normal, atol=tolerance)
    to_camera = camera.position - expected.position[expected.mask]
    assert ((expected.normal[expected.mask] * to_camera).sum(axis=1) > -0.05).all()


def test_creases_stay_sharp_and_curves_smooth():
    camera = orbit_camera(30, 20, vertical_fov=40.0)
    box = render(trimesh.creation.box(), camera, 64)
    np.testing.assert_allclose(np.sort(np.abs(box.normal[box.mask]), axis=1), [[0, 0, 1]] * box.mask.sum(), atol=1e-6)
    coarse = trimesh.creation.icosphere(2)
    view = render(coarse, camera, 64)
    true = view.position[view.mask] / np.linalg.norm(view.position[view.mask], axis=1, keepdims=True)
    error = np.degrees(np.arccos(np.clip((view.normal[view.mask] * true).sum(axis=1), -1, 1)))
    # Faces of this sphere are 18 degrees wide: flat normals would be off by 5 on average.
    assert error.mean() < 0.5


def test_a_vertex_of_very_many_faces_has_the_normal_of_each():
    cone = trimesh.creation.cone(radius=1.0, height=0.2, sections=4000)
    view = render(cone, orbit_camera(0, 85, vertical_fov=40.0), 64)
    up = view.normal[view.mask]
    # The mantle is 11 degrees steep; were its normals smooth at the tip, they would lean to the axis there.
    np.testing.assert_allclose(up @ [0, 0, 1], up[0] @ [0, 0, 1], atol=0.02)


def test_smooth_normals_cross_texture_seams():
    sphere = trimesh.creation.icosphere(2)
    split = trimesh.Trimesh(
        sphere.triangles.reshape(-1, 3), np.arange(len(sphere.faces) * 3).reshape(-1, 3), process=False
    )
    camera = orbit_camera(0, 0)
    np.testing.assert_allclose(render(split, camera, 32).normal, render(sphere, camera, 32).normal, atol=1e-5)


def test_textures_stand_upright():
    mesh = quad(UNIT_UV, trimesh.visual.material.SimpleMaterial(image=checker(), diffuse=[0, 0, 0]))
    color = render(mesh, FRONT, 16, light=AMBIENT).color
    assert color[0, 0].tolist() == [255, 0, 0, 255]
    assert color[0, -1].tolist() == [0, 255, 0, 255]
    assert color[-1, 0].tolist() == [0, 0, 255, 255]
    assert color[-1, -1].tolist() == [255, 255, 255, 255]


def test_textures_repeat():
    mesh = quad(4 * UNIT_UV - 2, trimesh.visual.material.SimpleMaterial(image=checker()))
    color = render(mesh, FRONT, 32, light=AMBIENT).color
    assert color[1, 1].tolist() == [255, 0, 0, 255] and color[6, 6].tolist() == [255, 255, 255, 255]
    np.testing.assert_array_equal(np.tile(color[:8, :8], (4, 4, 1)), color)


def test_textures_blend_between_texels():
    image = Image.fromarray(np.array([[[0, 0, 0], [200, 0, 0]]], np.uint8))
    row = render(quad(UNIT_UV, trimesh.visual.material.SimpleMaterial(image=image)), FRONT, 16, light=AMBIENT).color[3]
    # Texel centres lie at a quarter and three quarters of the width.
    np.testing.assert_allclose(row[4:12, 0], (np.arange(8) + 0.5) / 8 * 200, atol=1)


def test_grey_of_sixteen_bits_is_as_dark_as_it_is():
    colors = [
        render(quad(UNIT_UV, trimesh.visual.material.SimpleMaterial(image=image)), FRONT, 8, light=AMBIENT).color[4, 4]
        for image in (
            Image.fromarray(np.full((2, 2), 64, np.uint8)),
            Image.fromarray(np.full((2, 2), 64 * 257, np.uint16)),
            Image.fromarray(np.full((2, 2), 64 * 257, np.int32)),
        )
    ]
    assert [color.tolist() for color in colors] == 3 * [[64, 64, 64, 255]]
    floating = trimesh.visual.material.SimpleMaterial(image=Image.fromarray(np.full((2, 2), 0.25, np.float32)))
    with pytest.raises(ValueError, match=r"a texture of `mesh` cannot be decoded: .*floating-point"):
        render(quad(UNIT_UV, floating), FRONT, 8)


def test_large_textures_keep_their_picture():
    ramp = np.repeat(np.linspace(0, 255, 2500).astype(np.uint8)[None, :, None], 3, axis=2).repeat(10, axis=0)
    mesh = quad(UNIT_UV, trimesh.visual.material.SimpleMaterial(image=Image.fromarray(ramp)))
    row = render(mesh, FRONT, 64, light=AMBIENT).color[32, 2:-2, 0].astype(float)
    np.testing.assert_allclose(row, (np.arange(64)[2:-2] + 0.5) / 64 * 255, atol=2)


@pytest.mark.parametrize(
    "material, expected",
    [
        (trimesh.visual.material.SimpleMaterial(diffuse=[200, 100, 50, 255]), (200, 100, 50)),
        # Half the linear light is 188 of 255 in sRGB.
        (trimesh.visual.material.PBRMaterial(baseColorFactor=[0.5, 0.5, 1.0, 1.0]), (188, 188, 255)),
        (trimesh.visual.material.PBRMaterial(), (255, 255, 255)),
        (
            trimesh.visual.material.PBRMaterial(
                baseColorFactor=[1.0, 0.0, 1.0, 1.0], baseColorTexture=Image.new("RGB", (3, 3), (100, 100, 40))
            ),
            (100, 0, 40),
        ),
    ],
)
def test_material_colours(material, expected):
    color = render(quad(UNIT_UV, material), FRONT, 4, light=AMBIENT).color
    np.testing.assert_allclose(color[..., :3], np.broadcast_to(expected, (4, 4, 3)), atol=1)


def test_plain_meshes_are_grey():
    color = render(quad(), FRONT, 4, light=AMBIENT).color
    assert np.ptp(color[..., :3]) == 0 and 100 < color[0, 0, 0] < 220


def test_vertex_colours_blend_and_face_colours_do_not():
    mesh = quad()
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=[[0, 0, 0], [255, 0, 0], [255, 0, 0], [0, 0, 0]])
    row = render(mesh, FRONT, 16, light=AMBIENT).color[8, :, 0].astype(float)
    np.testing.assert_allclose(row, (np.arange(16) + 0.5) / 16 * 255, atol=1)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, face_colors=[[255, 0, 0], [0, 0, 255]])
    color = render(mesh, FRONT, 16, light=AMBIENT).color
    assert color[-1, -3].tolist() == [255, 0, 0, 255] and color[0, 3].tolist() == [0, 0, 255, 255]


def test_parts_of_a_scene_keep_their_own_looks():
    left, right = (quad(UNIT_UV, trimesh.visual.material.SimpleMaterial(image=checker())), quad())
    right.visual.face_colors = [[10, 20, 30], [10, 20, 30]]
    scene = trimesh.Scene()
    scene.add_geometry(left, transform=trimesh.transformations.translation_matrix([-1, 0, 0]))
    scene.add_geometry(right, transform=trimesh.transformations.translation_matrix([1, 0, 0]))
    color = render(scene, orbit_camera(0, 0, orthographic_height=2), (8, 16), light=AMBIENT).color
    assert color[0, 0].tolist() == [255, 0, 0, 255]
    assert (color[:, 8:] == [10, 20, 30, 255]).all()


def test_mirrored_parts_keep_their_texture_on_their_corners():
    mesh = quad(UNIT_UV, trimesh.visual.material.SimpleMaterial(image=checker()))
    scene = trimesh.Scene()
    scene.add_geometry(mesh, transform=np.diag([-1.0, 1, 1, 1]))
    color = render(scene, FRONT, 8, light=AMBIENT).color
    assert color[0, 0].tolist() == [0, 255, 0, 255] and color[0, -1].tolist() == [255, 0, 0, 255]


def test_light_comes_from_where_it_says():
    camera = orbit_camera(70, 0, orthographic_height=2)
    sphere = trimesh.creation.icosphere(4, radius=0.9)
    color = render(sphere, camera, 32, light=Light(direction=(1, 0, 0.2), key=0.8, head=0, ambient=0.1)).color
    assert color[16, 26, 0] > 2 * color[16, 16, 0] > 2 * color[16, 5, 0] - 10
    up = render(sphere, camera, 32, light=Light(direction=(0, 1, 0.2), key=0.8, head=0, ambient=0.1)).color
    assert up[6, 16, 0] > 2 * up[26, 16, 0]


def test_random_lights_leave_objects_visible():
    sphere = EmbreeRenderer(trimesh.creation.icosphere(3))
    rng = np.random.default_rng(0)
    means = []
    for _ in range(20):
        view = sphere.render(FRONT, 16, light=sample_light(rng))
        means.append(view.color[view.mask][:, :3].mean())
    assert min(means) > 40 and max(means) < 250 and np.std(means) > 5


def test_supersampling_gives_fractional_edges_and_changes_nothing_else():
    # The square covers 12.5 of 20 pixels to each side: every second sample column of the border pixel.
    mesh = quad()
    mesh.apply_scale(0.625)
    plain, fine, odd = (render(mesh, FRONT, 20, light=AMBIENT, supersampling=s) for s in (1, 2, 3))
    for view in (fine, odd):
        for name in ("depth", "normal", "position", "mask"):
            np.testing.assert_allclose(getattr(view, name), getattr(plain, name), atol=1e-6)
    np.testing.assert_array_equal(plain.color[..., 3], 255 * plain.mask)
    assert set(np.unique(fine.color[..., 3])) == {0, 64, 128, 255}
    covered = fine.color[..., 3] > 0
    assert (fine.color[covered][:, :3] == plain.color[10, 10, :3]).all()


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6, 1e15])
def test_units_do_not_matter(scale):
    mesh = soup(3)
    camera = fit_camera(mesh.vertices, 20, 10)
    scaled_mesh = trimesh.Trimesh(mesh.vertices * scale, mesh.faces, process=False)
    matrix = camera.camera_to_world.copy()
    matrix[:3, 3] *= scale
    expected = render(mesh, camera, 32)
    view = render(scaled_mesh, Camera(matrix, camera.vertical_fov), 32)
    assert (view.mask != expected.mask).sum() <= 1
    both = view.mask & expected.mask
    np.testing.assert_allclose(view.depth[both] / scale, expected.depth[both], rtol=1e-4)
    assert np.abs(view.color[both].astype(int) - expected.color[both]).max() <= 2


def test_far_from_the_origin_nothing_is_lost():
    mesh, offset = soup(4), np.array([1e5, -2e5, 3e5])
    camera = fit_camera(mesh.vertices, 20, 10)
    matrix = camera.camera_to_world.copy()
    matrix[:3, 3] += offset
    moved = trimesh.Trimesh(mesh.vertices + offset, mesh.faces, process=False)
    expected, view = render(mesh, camera, 32), render(moved, Camera(matrix, camera.vertical_fov), 32)
    assert (view.mask != expected.mask).sum() <= 1
    both = view.mask & expected.mask
    np.testing.assert_allclose(view.depth[both], expected.depth[both], atol=1e-4)


def test_one_renderer_serves_many_views():
    mesh = soup(5)
    renderer = EmbreeRenderer(mesh)
    for azimuth in (0, 120, 240):
        camera = orbit_camera(azimuth, 10)
        first, second = renderer.render(camera, 24), render(mesh, camera, 24)
        np.testing.assert_array_equal(first.color, second.color)
        np.testing.assert_array_equal(first.position, second.position)


def test_degenerate_faces_do_no_harm():
    sphere = trimesh.creation.icosphere(2)
    needles = np.array([[0, 0, 0], [0, 1, 1], [3, 3, 3]])
    mesh = trimesh.Trimesh(sphere.vertices, np.concatenate([needles, sphere.faces]), process=False)
    view = render(mesh, FRONT, 32)
    assert np.isfinite(view.normal).all()
    np.testing.assert_allclose(np.linalg.norm(view.normal[view.mask], axis=1), 1, atol=1e-5)


def test_visible_points_are_pixels_of_the_object():
    view = render(trimesh.creation.icosphere(3), orbit_camera(0, 0), 48)
    count = int(view.mask.sum())
    points = visible_points(view, 200, np.random.default_rng(0))
    seen = {tuple(point) for point in view.position[view.mask]}
    assert points.shape == (200, 3) and points.dtype == np.float32
    assert {tuple(point) for point in points} <= seen and len(np.unique(points, axis=0)) == 200
    every = visible_points(view, count, np.random.default_rng(0))
    assert {tuple(point) for point in every} == seen
    assert visible_points(view, count + 1, np.random.default_rng(0)).shape == (count + 1, 3)


def test_nothing_visible_is_an_error():
    view = render(quad(z=0.0), orbit_camera(90, 0, orthographic_height=2), 8)
    assert not view.mask.any()
    with pytest.raises(ValueError, match="no visible points"):
        visible_points(view, 5, np.random.default_rng(0))


@pytest.mark.parametrize(
    "mesh, message",
    [
        (trimesh.Trimesh(), "triangle"),
        (trimesh.Scene(), "triangle"),
        (trimesh.Trimesh(np.zeros((3, 3)), [[0, 1, 2]], process=False), "triangle"),
        (trimesh.PointCloud(np.eye(3)), "trimesh.Trimesh"),
    ],
)
def test_what_cannot_be_rendered_is_refused(mesh, message):
    with pytest.raises(ValueError, match=message):
        render(mesh, FRONT, 8)


def test_non_finite_meshes_are_refused():
    mesh = quad()
    mesh.vertices[0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        render(mesh, FRONT, 8)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"backend.*embree, nvdiffrast"):
        render(quad(), FRONT, 8, backend="opengl")
    for supersampling in (0, -1, 1.5):
        with pytest.raises(ValueError, match="supersampling"):
            render(quad(), FRONT, 8, supersampling=supersampling)
    for options in ({"direction": (0, 0, 0)}, {"direction": (1, 2)}, {"key": -1}, {"ambient": float("nan")}):
        with pytest.raises(ValueError):
            Light(**options)


@pytest.mark.skipif(find_spec("nvdiffrast") is not None, reason="nvdiffrast is installed")
def test_a_missing_nvdiffrast_names_its_extra():
    with pytest.raises(ImportError, match=r"diffusers-vilearn\[cuda\]"):
        render(quad(), FRONT, 8, backend="nvdiffrast")


@pytest.mark.cuda
@pytest.mark.parametrize("kind", [{"vertical_fov": 35.0}, {"orthographic_height": 2.4}])
@pytest.mark.parametrize("make", [lambda: trimesh.creation.icosphere(5), lambda: soup(7)])
def test_both_backends_agree(kind, make):
    pytest.importorskip("nvdiffrast.torch")
    mesh = make()
    cpu, gpu = EmbreeRenderer(mesh), NvdiffrastRenderer(mesh)
    for azimuth in range(0, 360, 60):
        camera = orbit_camera(azimuth, 15, distance=4, **kind)
        a, b = (renderer.render(camera, 256, supersampling=2) for renderer in (cpu, gpu))
        assert (a.mask != b.mask).mean() < 0.005
        both = a.mask & b.mask
        error = np.linalg.norm(a.position - b.position, axis=-1)[both]
        # Pixel centres on the edge between a near and a far triangle may go either way.
        assert (error > 1e-3).mean() < 0.005
        assert np.abs(a.color.astype(int) - b.color)[both].mean() < 1
