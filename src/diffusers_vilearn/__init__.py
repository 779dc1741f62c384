# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""ViLearn single-image-to-3D generation for Hugging Face diffusers.

Importing the package makes its classes known to diffusers, so that `DiffusionPipeline.from_pretrained` loads the
published checkpoints, from a folder or from the Hub, without custom code. Everything that needs a renderer or a mesh
library is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

import diffusers
from diffusers import ModelMixin
from diffusers.modular_pipelines.modular_pipeline import MODULAR_PIPELINE_MAPPING
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

from .models.autoencoder_vecset import VecSetVAE
from .models.transformer_vilearn import ViLearnTransformer3DModel
from .modular_pipelines import ViLearnImageTo3DBlocks, ViLearnModularPipeline
from .pipelines import ViLearnImageProcessor, ViLearnImageTo3DPipeline, ViLearnPipelineOutput

if TYPE_CHECKING:
    from .geometry.extraction import extract_mesh
    from .visibility import group_visible_tokens, inference_visible_mask

__version__ = "0.1.0.dev0"

__all__ = [
    "ModelMixin",
    "VecSetVAE",
    "ViLearnImageProcessor",
    "ViLearnImageTo3DBlocks",
    "ViLearnImageTo3DPipeline",
    "ViLearnModularPipeline",
    "ViLearnPipelineOutput",
    "ViLearnTransformer3DModel",
    "extract_mesh",
    "group_visible_tokens",
    "inference_visible_mask",
]

_LAZY = {
    "extract_mesh": "geometry.extraction",
    "group_visible_tokens": "visibility",
    "inference_visible_mask": "visibility",
}


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# diffusers resolves the components of `model_index.json` in the libraries it knows, and the class of a pipeline, of
# its blocks, or of a model alone (`AutoModel`), in its own namespace. `ModelMixin`, above, is how it recognises a
# library with models.
LOADABLE_CLASSES.setdefault(__name__, {})
for _class in (
    VecSetVAE,
    ViLearnImageTo3DBlocks,
    ViLearnImageTo3DPipeline,
    ViLearnModularPipeline,
    ViLearnTransformer3DModel,
):
    setattr(diffusers, _class.__name__, _class)

# Blocks find their modular pipeline by the name of the model.
MODULAR_PIPELINE_MAPPING["vilearn"] = lambda config_dict=None: ViLearnModularPipeline.__name__
