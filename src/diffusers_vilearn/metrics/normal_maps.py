# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Normal maps as pictures, one frame and one colour coding for all: what is estimated and what is rendered.

Normals are in the camera's frame, +X right, +Y up, +Z towards the camera, so that visible surfaces have z ≥ 0; red,
green and blue are (x, y, z) from -1 to 1. The object is centred on a white square that its bounding box fills to 90%.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from ..data.images import OBJECT_ALPHA, prepare_condition_image
from ..geometry.cameras import Camera
from ..geometry.rendering import Rendering

# An RGBA picture of an object -> its normal map (height, width, 3), float, unit, in the camera's frame as above.
NormalEstimator = Callable[[Image.Image], np.ndarray]

FOREGROUND = 0.9


def camera_normals(rendering: Rendering, camera: Camera) -> np.ndarray:
    """Normals (height, width, 3) of a rendering in the frame of the camera that made it."""
    return rendering.normal @ camera.camera_to_world[:3, :3].astype(np.float32)


def normal_colors(normals: np.ndarray) -> np.ndarray:
    """Normals (..., 3) as red, green and blue, uint8."""
    return np.rint((np.clip(normals, -1, 1) + 1) * 127.5).astype(np.uint8)


def normal_picture(normals: np.ndarray, mask: np.ndarray, size: int, foreground: float = FOREGROUND) -> Image.Image:
    """The picture of a normal map with the object at `foreground` of the square.

    Args:
        normals (`np.ndarray`): (height, width, 3), unit, in the camera's frame.
        mask (`np.ndarray`): (height, width) bool, where the object is; an empty one gives a white picture.
        size (`int`): side of the picture in pixels.
        foreground (`float`): longer side of the object's bounding box as a share of the square's side.
    """
    if not mask.any():
        return Image.new("RGB", (size, size), "white")
    coded = np.concatenate([normal_colors(normals), np.where(mask, 255, 0)[..., None].astype(np.uint8)], axis=-1)
    return prepare_condition_image(Image.fromarray(coded), size, foreground)


def estimated_normal_picture(
    image: Image.Image, estimate: NormalEstimator, size: int, foreground: float = FOREGROUND
) -> Image.Image:
    """`normal_picture` of the normals that `estimate` sees in an RGBA `image`, whose alpha is the mask.

    Raises:
        ValueError: `image` is not RGBA, or the estimate is no normal map of its size.
    """
    if image.mode != "RGBA":
        raise ValueError(f"`image` must be RGBA, its alpha the mask of the object, but its mode is {image.mode!r}.")
    normals = np.asarray(estimate(image))
    if normals.shape != (image.height, image.width, 3):
        raise ValueError(
            f"`estimate` must return normals of shape {(image.height, image.width, 3)}, one a pixel of the image, but"
            f" returned {normals.shape}."
        )
    return normal_picture(normals, np.asarray(image.getchannel("A")) >= OBJECT_ALPHA, size, foreground)


class MoGeNormalEstimator:
    """MoGe-2 (Wang et al. 2025), the estimator of the paper's IS-AS, on the object before white.

    Args:
        model: a `moge.model.v2.MoGeModel` with a normal head.
    """

    def __init__(self, model):
        self.model = model

    @classmethod
    def from_pretrained(cls, name: str = "Ruicheng/moge-2-vitl-normal", device: str = "cpu") -> "MoGeNormalEstimator":
        """Load `name`, a Hub id or a file, through the package `moge` (code MIT), which is on GitHub only.

        Raises:
            ImportError: `moge` is not installed.
        """
        try:
            from moge.model.v2 import MoGeModel
        except ImportError as error:
            raise ImportError(
                "MoGe-2 needs the package `moge`, which is not on PyPI:"
                " pip install git+https://github.com/microsoft/MoGe.git; or give another normal estimator"
            ) from error
        return cls(MoGeModel.from_pretrained(name).to(device).eval())

    def __call__(self, image: Image.Image) -> np.ndarray:
        white = Image.new("RGBA", image.size, "white")
        picture = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1) / 255
        device = next(self.model.parameters()).device
        output = self.model.infer(pixels.to(device), apply_mask=False, use_fp16=device.type == "cuda")
        # MoGe's camera is OpenCV's: +Y down, +Z away.
        return output["normal"].float().cpu().numpy() * np.array([1, -1, -1], np.float32)
