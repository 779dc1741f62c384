# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A whole pipeline, small enough to run in milliseconds."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from diffusers_vilearn import VecSetVAE, ViLearnTransformer3DModel

# 16 shape tokens of 8 channels, 4 image tokens of 32
NUM_TOKENS, LATENT_CHANNELS, NUM_IMAGE_TOKENS, IMAGE_CHANNELS = 16, 8, 4, 32

VAE = {
    "latent_channels": LATENT_CHANNELS,
    "num_tokens": NUM_TOKENS,
    "num_freqs": 3,
    "encoder_width": 32,
    "encoder_heads": 2,
    "num_encoder_layers": 1,
    "decoder_width": 32,
    "decoder_heads": 2,
    "num_decoder_layers": 1,
    "scaling_factor": 0.5,
    "shift_factor": 0.25,
    "bounds": 1.0,
    "truncation": 0.25,
}
# What trainers start from, in seconds.
TRAINED_VAE = {
    "latent_channels": 4,
    "num_tokens": 8,
    "num_freqs": 4,
    "encoder_width": 16,
    "encoder_heads": 2,
    "num_encoder_layers": 1,
    "decoder_width": 16,
    "decoder_heads": 2,
    "num_decoder_layers": 1,
    "truncation": 0.1,
    "frame": "view",
}
TRANSFORMER = {
    "in_channels": LATENT_CHANNELS,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "joint_attention_dim": IMAGE_CHANNELS,
    "visible_fraction": 0.25,
}
DINOV2 = {
    "hidden_size": IMAGE_CHANNELS,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 28,
    "patch_size": 14,
}


def randomize(module: torch.nn.Module) -> torch.nn.Module:
    """Adds noise to all weights: layers that start at zero would hide what flows through them."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module


def build_components(randomized: bool = False, **transformer_config) -> dict:
    """Components of a pipeline, from the global generator: as they are initialised, or random throughout."""
    finish = randomize if randomized else torch.nn.Module.eval
    return {
        "vae": finish(VecSetVAE(**VAE)).eval(),
        "transformer": finish(ViLearnTransformer3DModel(**{**TRANSFORMER, **transformer_config})).eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "image_encoder": finish(Dinov2Model(Dinov2Config(**DINOV2))).eval(),
        "feature_extractor": BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
    }
