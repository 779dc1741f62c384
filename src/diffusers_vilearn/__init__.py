# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""ViLearn single-image-to-3D generation for Hugging Face diffusers."""

__version__ = "0.1.0.dev0"
