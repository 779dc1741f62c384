# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Image encoders from folders and the Hub: DINOv2, with or without registers, and whole."""

from pathlib import Path

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, Dinov2Model, Dinov2WithRegistersModel

from ..config_checks import check_weights
from ..errors import named_if_absent

IMAGE_ENCODERS = {"dinov2": Dinov2Model, "dinov2_with_registers": Dinov2WithRegistersModel}


def load_image_encoder(name: str, *, variant: str | None = None, **options) -> Dinov2Model | Dinov2WithRegistersModel:
    """An image encoder in float32 and evaluation mode.

    Args:
        name (`str`): folder or Hub id.
        variant (`str`, *optional*): of the weights, such as fp16.
        options: `subfolder`, `revision`, `cache_dir`.

    Raises:
        ValueError: it is not there, is another kind of model, or lacks weights: transformers would draw these at
            random.
    """
    with named_if_absent("image encoder", name):
        kind = AutoConfig.from_pretrained(name, **options).model_type
    if kind not in IMAGE_ENCODERS:
        raise ValueError(f"The image encoder must be one of {', '.join(IMAGE_ENCODERS)}, but {name!r} is a {kind!r}.")
    encoder, info = IMAGE_ENCODERS[kind].from_pretrained(
        name, variant=variant, dtype=torch.float32, output_loading_info=True, **options
    )
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"The image encoder {name!r} lacks weights: {', '.join(missing)}.")
    return encoder.eval()


def check_image_encoder_weights(folder: Path) -> None:
    """Refuse an image encoder of a pipeline that transformers would load with weights drawn at random, or made of
    integers. Passes over a folder without weights, other kinds of models and quantised ones.

    Raises:
        ValueError: the files hold integers, or fewer weights than the model has.
    """
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    config = AutoConfig.from_pretrained(folder) if files and (folder / "config.json").is_file() else None
    if getattr(config, "model_type", None) not in IMAGE_ENCODERS or hasattr(config, "quantization_config"):
        return
    names = check_weights(files)
    with init_empty_weights():
        needed = len(IMAGE_ENCODERS[config.model_type](config).state_dict())
    # By number: transformers renames some as it loads them.
    if len(names) < needed:
        raise ValueError(f"The image encoder in {folder} lacks {needed - len(names)} of its {needed} weights.")
