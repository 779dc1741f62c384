# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA for the pipeline: the loader mixin that diffusers' pipelines have, for the one transformer of ours."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.loaders.lora_base import LoraBaseMixin, _fetch_state_dict
from diffusers.utils import USE_PEFT_BACKEND
from huggingface_hub.utils import validate_hf_hub_args

_FETCH_OPTIONS = (
    "cache_dir",
    "force_download",
    "proxies",
    "token",
    "revision",
    "subfolder",
    "weight_name",
    "local_files_only",
)


class ViLearnLoraLoaderMixin(LoraBaseMixin):
    r"""
    Load LoRA layers into [`ViLearnTransformer3DModel`]. Specific to [`ViLearnImageTo3DPipeline`].
    """

    _lora_loadable_modules = ["transformer"]  # noqa: RUF012, as the superclass declares it
    transformer_name = "transformer"

    @classmethod
    @validate_hf_hub_args
    def lora_state_dict(
        cls, pretrained_model_name_or_path_or_dict: str | dict[str, torch.Tensor], **kwargs
    ) -> dict[str, torch.Tensor] | tuple[dict[str, torch.Tensor], dict | None]:
        r"""
        The state dict of the LoRA layers, and with `return_lora_metadata=True` its metadata too. See
        [`~loaders.StableDiffusionLoraLoaderMixin.lora_state_dict`] for the arguments.
        """
        return_lora_metadata = kwargs.pop("return_lora_metadata", False)
        use_safetensors = kwargs.pop("use_safetensors", None)
        options = dict.fromkeys(_FETCH_OPTIONS) | {"force_download": False}
        options |= {name: kwargs.pop(name) for name in _FETCH_OPTIONS if name in kwargs}
        state_dict, metadata = _fetch_state_dict(
            pretrained_model_name_or_path_or_dict=pretrained_model_name_or_path_or_dict,
            use_safetensors=True if use_safetensors is None else use_safetensors,
            allow_pickle=use_safetensors is None,
            user_agent={"file_type": "attn_procs_weights", "framework": "pytorch"},
            **options,
        )
        return (state_dict, metadata) if return_lora_metadata else state_dict

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | dict[str, torch.Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        **kwargs,
    ) -> None:
        r"""
        Load LoRA layers into `self.transformer`. See [`~loaders.StableDiffusionLoraLoaderMixin.load_lora_weights`] for
        the arguments.

        Raises:
            ValueError: PEFT is missing, or a key of the state dict is of no LoRA layer.
        """
        if not USE_PEFT_BACKEND:
            raise ValueError("PEFT backend is required for this method.")
        low_cpu_mem_usage = kwargs.pop("low_cpu_mem_usage", True)
        if isinstance(pretrained_model_name_or_path_or_dict, dict):
            # loading pops its keys
            pretrained_model_name_or_path_or_dict = pretrained_model_name_or_path_or_dict.copy()
        kwargs["return_lora_metadata"] = True
        state_dict, metadata = self.lora_state_dict(pretrained_model_name_or_path_or_dict, **kwargs)
        if not all("lora" in key for key in state_dict):
            raise ValueError("Invalid LoRA checkpoint. Make sure all LoRA param names contain `'lora'` substring.")
        self.load_lora_into_transformer(
            state_dict,
            transformer=self.transformer,
            adapter_name=adapter_name,
            metadata=metadata,
            _pipeline=self,
            low_cpu_mem_usage=low_cpu_mem_usage,
            hotswap=hotswap,
        )

    @classmethod
    def load_lora_into_transformer(
        cls,
        state_dict: dict[str, torch.Tensor],
        transformer,
        adapter_name: str | None = None,
        _pipeline=None,
        low_cpu_mem_usage: bool = False,
        hotswap: bool = False,
        metadata: dict | None = None,
    ) -> None:
        r"""Load the LoRA layers of `state_dict` into `transformer`; keys start with `transformer.`."""
        transformer.load_lora_adapter(
            state_dict,
            network_alphas=None,
            adapter_name=adapter_name,
            metadata=metadata,
            _pipeline=_pipeline,
            low_cpu_mem_usage=low_cpu_mem_usage,
            hotswap=hotswap,
        )

    @classmethod
    def save_lora_weights(
        cls,
        save_directory: str | Path,
        transformer_lora_layers: dict[str, torch.nn.Module | torch.Tensor] | None = None,
        is_main_process: bool = True,
        weight_name: str | None = None,
        save_function: Callable | None = None,
        safe_serialization: bool = True,
        transformer_lora_adapter_metadata: dict | None = None,
    ) -> None:
        r"""
        Save LoRA layers so that `load_lora_weights` loads them. See
        [`~loaders.StableDiffusionLoraLoaderMixin.save_lora_weights`] for the arguments.
        """
        if not transformer_lora_layers:
            raise ValueError("You must pass `transformer_lora_layers`.")
        cls._save_lora_weights(
            save_directory=save_directory,
            lora_layers={cls.transformer_name: transformer_lora_layers},
            lora_metadata={cls.transformer_name: transformer_lora_adapter_metadata},
            is_main_process=is_main_process,
            weight_name=weight_name,
            save_function=save_function,
            safe_serialization=safe_serialization,
        )

    def fuse_lora(
        self,
        components: list[str] = ["transformer"],  # noqa: B006, as in every pipeline of diffusers
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: list[str] | None = None,
        **kwargs,
    ) -> None:
        r"""See [`~loaders.StableDiffusionLoraLoaderMixin.fuse_lora`] for more details."""
        super().fuse_lora(
            components=components,
            lora_scale=lora_scale,
            safe_fusing=safe_fusing,
            adapter_names=adapter_names,
            **kwargs,
        )

    def unfuse_lora(self, components: list[str] = ["transformer"], **kwargs) -> None:  # noqa: B006
        r"""See [`~loaders.StableDiffusionLoraLoaderMixin.unfuse_lora`] for more details."""
        super().unfuse_lora(components=components, **kwargs)
