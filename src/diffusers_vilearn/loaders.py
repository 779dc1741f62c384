# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Loading, fusing and saving LoRA layers of the transformer."""

import torch
from diffusers.loaders.lora_pipeline import CogVideoXLoraLoaderMixin


class ViLearnLoraLoaderMixin(CogVideoXLoraLoaderMixin):
    r"""
    Loads LoRA layers into [`ViLearnTransformer3DModel`]. Specific to [`ViLearnImageTo3DPipeline`].

    `load_lora_weights`, `set_adapters`, `fuse_lora`, `unfuse_lora`, `unload_lora_weights`, `save_lora_weights` and so
    on are those of the pipelines of diffusers whose transformer alone takes LoRA layers. Only safetensors are read.
    """

    @classmethod
    def lora_state_dict(
        cls, pretrained_model_name_or_path_or_dict: str | dict[str, torch.Tensor], **kwargs
    ) -> dict[str, torch.Tensor] | tuple[dict[str, torch.Tensor], dict | None]:
        r"""
        LoRA layers of a folder, a Hub id or a state dict.

        Args:
            pretrained_model_name_or_path_or_dict (`str` or `dict[str, torch.Tensor]`):
                A folder or Hub id with a safetensors file, or the state dict itself.
            kwargs:
                `weight_name`, `subfolder`, `revision`, `cache_dir`, `token`, `local_files_only` and so on, as for
                [`~loaders.StableDiffusionLoraLoaderMixin.lora_state_dict`].

        Returns:
            `dict[str, torch.Tensor]`: the layers; with `return_lora_metadata=True` also the adapter's metadata.

        Raises:
            ValueError: if a file that would have to be unpickled is asked for.
        """
        weight_name = kwargs.get("weight_name")
        if weight_name is not None and not weight_name.endswith(".safetensors"):
            raise ValueError(
                f"`weight_name` is {weight_name!r}; it must be a .safetensors file: nothing is unpickled."
            )
        if kwargs.setdefault("use_safetensors", True) is not True:
            raise ValueError(
                f"`use_safetensors` is {kwargs['use_safetensors']!r}; it must be True: nothing is unpickled."
            )
        return super().lora_state_dict(pretrained_model_name_or_path_or_dict, **kwargs)
