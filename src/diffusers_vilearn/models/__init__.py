# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The two networks: the shape autoencoder and the diffusion transformer."""

from .autoencoder_vecset import VecSetVAE, VecSetVAEOutput
from .transformer_vilearn import ViLearnTransformer3DModel

__all__ = ["VecSetVAE", "VecSetVAEOutput", "ViLearnTransformer3DModel"]
