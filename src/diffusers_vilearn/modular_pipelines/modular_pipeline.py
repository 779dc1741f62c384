# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The class that holds the components of the blocks."""

from diffusers.modular_pipelines import ModularPipeline

from ..loaders import ViLearnLoraLoaderMixin


class ViLearnModularPipeline(ModularPipeline, ViLearnLoraLoaderMixin):
    """
    A [`ModularPipeline`] for ViLearn: one image to a mesh. It loads the checkpoints of
    [`ViLearnImageTo3DPipeline`] as they are; a folder that it saved itself, `ModularPipeline.from_pretrained` loads.

    Examples:
        ```py
        >>> import torch
        >>> from PIL import Image
        >>> from diffusers_vilearn import ViLearnModularPipeline

        >>> pipe = ViLearnModularPipeline(pretrained_model_name_or_path="checkpoints/vilearn-tiny")
        >>> pipe.load_components()
        >>> generator = torch.Generator().manual_seed(0)
        >>> meshes = pipe(image=Image.open("chair.png"), generator=generator, output="meshes")
        ```
    """

    default_blocks_name = "ViLearnImageTo3DBlocks"
