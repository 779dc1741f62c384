# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Other projects' checkpoints -> our models."""

from .vae import VAE_SOURCES, convert_vae_checkpoint, convert_vae_state_dict

__all__ = ["VAE_SOURCES", "convert_vae_checkpoint", "convert_vae_state_dict"]
