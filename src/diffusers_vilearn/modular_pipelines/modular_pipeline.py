# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The class that holds the components of the blocks."""

from diffusers.modular_pipelines import ComponentSpec, ModularPipeline

from ..data.image_encoders import check_image_encoder_weights
from ..hub import folder_of_model
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

    def load_components(self, names: list[str] | str | None = None, workflow: str | None = None, **kwargs):
        """As diffusers', but an image encoder that is not whole is an error."""
        super().load_components(names, workflow, **kwargs)
        load_id = getattr(getattr(self, "image_encoder", None), "_diffusers_load_id", "null")
        source = ComponentSpec.decode_load_id(load_id)
        name = source.pop("pretrained_model_name_or_path")
        if name and (folder := folder_of_model(name, cache_dir=kwargs.get("cache_dir"), **source)):
            try:
                check_image_encoder_weights(folder)
            except ValueError:
                self.unload_components("image_encoder")
                raise
