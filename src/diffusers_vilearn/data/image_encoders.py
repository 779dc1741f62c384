# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Image encoders from folders and the Hub: DINOv2, with or without registers, and whole."""

import torch
from transformers import AutoConfig, Dinov2Model, Dinov2WithRegistersModel

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
