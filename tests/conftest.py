# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A whole pipeline, small enough to run in milliseconds, and a picture for it."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image, ImageDraw
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from diffusers_vilearn import VecSetVAE, ViLearnImageTo3DPipeline, ViLearnTransformer3DModel


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def randomize(module: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere: layers that start at zero would hide what flows through them."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module.eval()


def build_components() -> dict:
    """Components of a pipeline: 16 shape tokens of 8 channels, 4 image tokens."""
    vae = VecSetVAE(
        latent_channels=8,
        num_tokens=16,
        num_freqs=3,
        encoder_width=32,
        encoder_heads=2,
        num_encoder_layers=1,
        decoder_width=32,
        decoder_heads=2,
        num_decoder_layers=1,
        scaling_factor=0.5,
        shift_factor=0.25,
        bounds=1.0,
        truncation=0.25,
    )
    transformer = ViLearnTransformer3DModel(
        in_channels=8,
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=32,
        visible_fraction=0.25,
    )
    dinov2 = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14
    )
    return {
        "vae": randomize(vae),
        "transformer": randomize(transformer),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "image_encoder": randomize(Dinov2Model(dinov2)),
        "feature_extractor": BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
    }


@pytest.fixture
def components():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        components = build_components()
    pipe = ViLearnImageTo3DPipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    # half of the box inside for one shape, so that all have a surface
    embeds, generator = torch.zeros(1, 4, 32), torch.Generator().manual_seed(0)
    field = pipe(
        image_embeds=embeds, num_inference_steps=2, generator=generator, resolution=8, output_type="pt"
    ).meshes
    with torch.no_grad():
        components["vae"].geometry.proj_out.bias -= field.median()
    return components


@pytest.fixture
def pipe(components):
    pipe = ViLearnImageTo3DPipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def image():
    """RGBA picture of a blue ellipse with a yellow spot; red hides under the transparent pixels."""
    picture = Image.new("RGBA", (120, 80), (255, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((20, 15, 100, 60), fill=(30, 60, 200, 255))
    draw.ellipse((35, 25, 55, 40), fill=(240, 220, 40, 255))
    return picture
