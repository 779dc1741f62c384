# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A whole pipeline, small enough to run in milliseconds, and a picture for it."""

import pytest
import torch
from PIL import Image, ImageDraw
from tiny import build_components

from diffusers_vilearn import ViLearnImageTo3DPipeline


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def components():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        components = build_components(randomized=True)
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
