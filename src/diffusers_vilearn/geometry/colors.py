# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Linear light and sRGB."""

import numpy as np


def linear_to_srgb(color: np.ndarray) -> np.ndarray:
    """sRGB values of linear ones, both in [0, 1], float32 of any shape."""
    return np.where(color <= 0.0031308, 12.92 * color, 1.055 * color ** (1 / 2.4) - 0.055).astype(np.float32)
