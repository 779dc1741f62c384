# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTModel,
)

from diffusers_vilearn.data.image_encoders import load_image_encoder
from diffusers_vilearn.data.images import patch_tokens

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


@pytest.mark.parametrize(
    "saved",
    [Dinov2Model(Dinov2Config(**SIZES)), Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES))],
    ids=lambda model: type(model).__name__,
)
def test_every_patch_has_its_token_with_and_without_registers(tmp_path, saved):
    saved.half().save_pretrained(tmp_path)
    encoder = load_image_encoder(str(tmp_path))
    assert type(encoder) is type(saved) and encoder.dtype == torch.float32 and not encoder.training
    pixels = torch.randn(1, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    tokens = patch_tokens(encoder, pixels)
    assert tokens.shape == (1, 6, 16)
    # The last patch is the last token's: what changes there changes that token most.
    pixels[..., 14:, 28:] += 3
    assert (patch_tokens(encoder, pixels) - tokens).norm(dim=-1).argmax() == 5


def test_other_models_and_missing_weights_are_refused(tmp_path):
    ViTModel(ViTConfig(**SIZES, intermediate_size=16)).save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match=r"must be one of dinov2, dinov2_with_registers, but .* is a 'vit'"):
        load_image_encoder(str(tmp_path / "vit"))
    Dinov2Model(Dinov2Config(**SIZES)).save_pretrained(tmp_path / "dinov2")
    path = tmp_path / "dinov2" / "model.safetensors"
    weights = load_file(path)
    del weights["layernorm.bias"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights: layernorm\.bias"):
        load_image_encoder(str(tmp_path / "dinov2"))
