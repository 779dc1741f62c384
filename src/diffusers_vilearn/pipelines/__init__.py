# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Pipelines: from an image to a mesh."""

from .image_processor import ViLearnImageProcessor
from .pipeline_output import ViLearnPipelineOutput
from .pipeline_vilearn import ViLearnImageTo3DPipeline

__all__ = ["ViLearnImageProcessor", "ViLearnImageTo3DPipeline", "ViLearnPipelineOutput"]
