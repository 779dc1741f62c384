# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""PSNR, SSIM and LPIPS between renders of a generated and a true shape, by VFusion3D's protocol for Google Scanned
Objects: 16 azimuths at 20 degrees of elevation.

Generated shapes have no texture here, so both are rendered in the same grey under the same light unless told
otherwise: the numbers then speak of shape alone and are not comparable with those of textured renders.
"""

from collections.abc import Callable

import numpy as np
import torch

from ..geometry.cameras import orbit_camera
from ..geometry.mesh import Mesh, merge_geometry
from ..geometry.rendering import make_renderer

# Pictures (n, 3, height, width) in [0, 1], twice -> distances (n,).
PerceptualDistance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Decibels that are reported for equal pictures, whose PSNR is infinite.
MAX_PSNR = 100.0


def orbit_pictures(
    mesh: Mesh | None,
    *,
    elevation: float = 20.0,
    num_azimuths: int = 16,
    resolution: int = 256,
    textured: bool = False,
    backend: str = "embree",
) -> torch.Tensor:
    """Pictures of a shape on white from cameras around it, (num_azimuths, 3, resolution, resolution) in [0, 1].

    Args:
        mesh: normalised, longest half-side 0.95 or near it; `None`, a shape that failed, gives white pictures.
        elevation: degrees above the horizon.
        num_azimuths: evenly spaced, the first from the front.
        resolution: side of the pictures in pixels; each is the mean of 3 × 3 samples where it matters.
        textured: with the mesh's own colours instead of grey.
        backend: "embree" (CPU) or "nvdiffrast" (CUDA).
    """
    if mesh is None:
        return torch.ones(num_azimuths, 3, resolution, resolution)
    renderer = make_renderer(mesh if textured else merge_geometry(mesh), backend)
    pictures = []
    for azimuth in np.arange(num_azimuths) * 360 / num_azimuths:
        color = renderer.render(orbit_camera(azimuth, elevation), resolution, supersampling=3).color
        color = torch.from_numpy(color).permute(2, 0, 1) / 255
        pictures.append(color[:3] * color[3] + 1 - color[3])
    return torch.stack(pictures)


def psnr(pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in decibels, (n,), at most `MAX_PSNR`, of pictures (n, 3, h, w) in [0, 1]."""
    error = (pictures - truth).double().square().flatten(1).mean(dim=1)
    return -10 * torch.log10(error.clamp(min=10 ** (-MAX_PSNR / 10)))


def ssim(pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004: Gaussian window, deviation 1.5), (n,) in [-1, 1], of pictures
    (n, 3, h, w) in [0, 1]."""
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise ImportError("SSIM needs torchmetrics: pip install 'diffusers-vilearn[metrics]'") from error
    # Differences of squares: single precision would tell flat pictures apart from flat ones.
    pair = pictures.double(), truth.double()
    return structural_similarity_index_measure(*pair, data_range=1.0, reduction="none").reshape(-1)


def load_lpips(network: str = "vgg", device: str = "cpu") -> PerceptualDistance:
    """LPIPS (Zhang et al. 2018) by its authors' package, which needs torchvision and downloads weights.

    Args:
        network: "vgg" or "alex".
        device: to compute on.

    Raises:
        ImportError: the package `lpips` is not installed.
    """
    try:
        from lpips import LPIPS
    except ImportError as error:
        raise ImportError(
            "LPIPS needs the package `lpips`: pip install 'diffusers-vilearn[lpips]' (it brings torchvision); or give"
            " another perceptual distance"
        ) from error
    model = LPIPS(net=network, verbose=False).to(device).eval()
    return lambda pictures, truth: model(pictures.to(device), truth.to(device), normalize=True).reshape(-1)


@torch.no_grad()
def render_similarity(
    pictures: torch.Tensor, truth: torch.Tensor, lpips: PerceptualDistance | None = None
) -> dict[str, float]:
    """Means over the views of `psnr`, `ssim` and, where a distance is given, `lpips`.

    Args:
        pictures, truth (`torch.Tensor`): (n, 3, h, w) in [0, 1], from `orbit_pictures`; on any device.
        lpips (`PerceptualDistance`, *optional*): from `load_lpips`.
    """
    if pictures.shape != truth.shape:
        raise ValueError(
            f"`pictures` and `truth` must have the same shape, but have {tuple(pictures.shape)} and"
            f" {tuple(truth.shape)}."
        )
    scores = {"psnr": psnr(pictures, truth), "ssim": ssim(pictures, truth)}
    if lpips is not None:
        scores["lpips"] = lpips(pictures, truth)
    return {name: value.mean().item() for name, value in scores.items()}
