# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import sys

import numpy as np
import pytest
import torch
import trimesh

from diffusers_vilearn.metrics.render_similarity import load_lpips, orbit_pictures, psnr, render_similarity, ssim


def noisy(pictures: torch.Tensor, deviation: float) -> torch.Tensor:
    return pictures + deviation * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))


def test_psnr_of_known_errors():
    black = torch.zeros(3, 3, 8, 8)
    others = torch.stack([torch.full((3, 8, 8), error) for error in (1.0, 0.1, 0.0)])
    torch.testing.assert_close(psnr(black, others), torch.tensor([0.0, 20.0, 100.0], dtype=torch.float64))


def test_psnr_of_noise_is_its_variance():
    grey = torch.full((1, 3, 200, 200), 0.5)
    assert psnr(noisy(grey, 0.05), grey).item() == pytest.approx(-20 * np.log10(0.05), abs=0.05)


def test_ssim_of_constant_pictures_is_the_luminance_term():
    first, second = torch.full((2, 3, 32, 32), 0.25), torch.full((2, 3, 32, 32), 0.75)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    torch.testing.assert_close(ssim(first, second), torch.full((2,), expected, dtype=torch.float64))


def test_pictures_of_a_shape_are_taken_around_it():
    pictures = orbit_pictures(trimesh.creation.box((1.9, 0.2, 0.2)), num_azimuths=4, resolution=48)
    assert pictures.shape == (4, 3, 48, 48) and pictures.max() == 1
    assert (pictures[:, :, [0, -1]] == 1).all(), "white around the object"
    covered = (pictures < 0.99).any(dim=1).sum(dim=(1, 2))
    # lengthwise from the front and the back, end on from the sides
    assert covered[0] == pytest.approx(covered[2].item(), rel=0.1) and covered[0] > 2 * covered[1]


def test_elevation_is_from_above():
    lid = trimesh.creation.box((1, 0.1, 1))
    above, level = (
        (orbit_pictures(lid, elevation=e, num_azimuths=1, resolution=64) < 0.99).sum() for e in (20.0, 0.0)
    )
    assert above > 2 * level > 0


def test_the_same_shape_is_perfect_and_others_are_worse():
    ball = orbit_pictures(trimesh.creation.icosphere(subdivisions=3, radius=0.9), num_azimuths=3, resolution=64)
    smaller = orbit_pictures(trimesh.creation.icosphere(subdivisions=3, radius=0.8), num_azimuths=3, resolution=64)
    nothing = orbit_pictures(None, num_azimuths=3, resolution=64)
    assert render_similarity(ball, ball) == {"psnr": 100.0, "ssim": pytest.approx(1, abs=1e-6)}
    scores = [render_similarity(pictures, ball) for pictures in (nothing, smaller)]
    for name in ("psnr", "ssim"):
        assert scores[0][name] < scores[1][name] < render_similarity(ball, ball)[name]


def test_a_perceptual_distance_is_an_argument():
    pictures = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scores = render_similarity(pictures, 1 - pictures, lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)))
    assert scores["lpips"] == pytest.approx((2 * pictures - 1).abs().mean().item())
    with pytest.raises(ValueError, match="same shape"):
        render_similarity(pictures, pictures[:2])


@pytest.mark.parametrize(
    "package, function, extra",
    [
        ("torchmetrics.functional.image", lambda: ssim(torch.ones(1, 3, 16, 16), torch.ones(1, 3, 16, 16)), "metrics"),
        ("lpips", load_lpips, "lpips"),
    ],
)
def test_missing_packages_are_one_clear_error(monkeypatch, package, function, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'diffusers-vilearn\[{extra}\]'"):
        function()
