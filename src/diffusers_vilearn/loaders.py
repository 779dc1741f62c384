# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Loading, fusing and saving LoRA layers of the transformer."""

from diffusers.loaders.lora_pipeline import CogVideoXLoraLoaderMixin


# CogVideoX's mixin is the one that diffusers copies for every pipeline whose transformer alone takes LoRA layers;
# nothing in it is particular to CogVideoX.
class ViLearnLoraLoaderMixin(CogVideoXLoraLoaderMixin):
    r"""
    Loads LoRA layers into [`ViLearnTransformer3DModel`]. Specific to [`ViLearnImageTo3DPipeline`].

    `load_lora_weights`, `set_adapters`, `fuse_lora`, `unfuse_lora`, `unload_lora_weights`, `save_lora_weights` and so
    on are those of diffusers. Files are safetensors, or torch files without code in them (`weights_only`).
    """
