# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What the conformance harness asks of a package: classes, tiny configurations, deterministic inputs.

`make conformance` runs diffusers' own test mixins on what is named in here; docs/conformance.md tells how and what
comes out. Nothing in here asserts anything.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from diffusers_vilearn import VecSetVAE, ViLearnImageTo3DPipeline, ViLearnTransformer3DModel
from diffusers_vilearn.custom_code import add_custom_code

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "conformance")]
import tiny  # noqa: E402
from training_data import write_training_data  # noqa: E402

PACKAGE = "diffusers_vilearn"
# importing the package promises that Hub ids and the generic `DiffusionPipeline` work without `trust_remote_code`
HUB_STRICT = True

CACHES = ["PyramidAttentionBroadcast", "FirstBlockCache", "FasterCache", "MagCache", "TaylorSeerCache"]
# FasterCache approximates the unconditional branch in the frequency domain of an image, which shape tokens are not.
FASTER_CACHE = {
    "spatial_attention_block_skip_range": 2,
    "spatial_attention_timestep_skip_range": (-1, 901),
    "tensor_format": "BCHW",
    "is_guidance_distilled": True,
}


def seeded() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(0)


class Transformer:
    model_class = ViLearnTransformer3DModel
    main_input_name = "hidden_states"
    output_shape = (tiny.NUM_TOKENS, tiny.LATENT_CHANNELS)
    model_split_percents = [0.7]  # noqa: RUF012
    gradient_checkpointing_modules = {"ViLearnTransformer3DModel"}  # noqa: RUF012
    compile_shapes = [(4, 4), (4, 6), (5, 5)]  # noqa: RUF012
    cache_mixins = CACHES
    cache_config = {"FasterCache": {"FASTER_CACHE_CONFIG": FASTER_CACHE}}  # noqa: RUF012

    @staticmethod
    def init_dict() -> dict:
        return dict(tiny.TRANSFORMER)

    @staticmethod
    def dummy_inputs(device, dtype=torch.float32, num_tokens=tiny.NUM_TOKENS, batch_size=1) -> dict:
        generator = seeded()
        shape_tokens = (batch_size, num_tokens, tiny.LATENT_CHANNELS)
        image_tokens = (batch_size, tiny.NUM_IMAGE_TOKENS, tiny.IMAGE_CHANNELS)
        return {
            "hidden_states": randn_tensor(shape_tokens, generator, device, dtype),
            "encoder_hidden_states": randn_tensor(image_tokens, generator, device, dtype),
            "timestep": torch.full((batch_size,), 500.0, device=device),
            "visible_mask": (torch.arange(num_tokens, device=device) < num_tokens // 3).expand(batch_size, -1),
        }


class VAE:
    model_class = VecSetVAE
    main_input_name = "points"
    output_shape = (100, 1)
    model_split_percents = [0.7]  # noqa: RUF012
    gradient_checkpointing_modules = {"VecSetEncoder", "VecSetDecoder", "VecSetGeometryHead"}  # noqa: RUF012
    compile_shapes = None

    @staticmethod
    def init_dict() -> dict:
        return dict(tiny.VAE)

    @staticmethod
    def dummy_inputs(device, dtype=torch.float32, num_tokens=None, batch_size=2) -> dict:
        generator = seeded()
        return {
            "points": randn_tensor((batch_size, 64, 6), generator, device, dtype),
            "xyz": randn_tensor((batch_size, 100, 3), generator, device, dtype),
            "sample_posterior": False,
        }


class Pipeline:
    pipeline_class = ViLearnImageTo3DPipeline
    required_call_params = {"image", "guidance_scale"}  # noqa: RUF012
    batch_params = {"image"}  # noqa: RUF012
    optional_call_params = {  # noqa: RUF012
        "num_inference_steps",
        "num_shapes_per_image",
        "generator",
        "latents",
        "output_type",
        "return_dict",
    }
    num_outputs_param = "num_shapes_per_image"
    tensor_output_types = {"latent": (tiny.NUM_TOKENS, tiny.LATENT_CHANNELS), "pt": (9, 9, 9)}  # noqa: RUF012
    native_output_type = "trimesh"
    cache_mixins = CACHES
    cache_config = {  # noqa: RUF012
        "FasterCache": {
            "FASTER_CACHE_CONFIG": {
                **FASTER_CACHE,
                "unconditional_batch_skip_range": 2,
                "attention_weight_callback": lambda _: 0.5,
            }
        }
    }
    # conditional and unconditional branch run in one call, so every cache works with guidance
    one_call_per_step_caches = frozenset()
    no_cfg_inputs = {"guidance_scale": 1.0}  # noqa: RUF012

    @staticmethod
    def dummy_components(num_layers=1, num_single_layers=1) -> dict:
        torch.manual_seed(0)
        return tiny.build_components(num_layers=num_layers, num_single_layers=num_single_layers)

    @staticmethod
    def dummy_image() -> Image.Image:
        """Noise in the middle of a transparent square."""
        pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 4), dtype=np.uint8)
        pixels[..., 3] = 0
        pixels[5:25, 8:30, 3] = 255
        return Image.fromarray(pixels)

    @classmethod
    def dummy_inputs(cls, generator) -> dict:
        return {
            "image": cls.dummy_image(),
            "num_inference_steps": 2,
            "guidance_scale": 3.0,
            "generator": generator,
            "resolution": 8,
        }

    @staticmethod
    def dummy_inputs_without_optional_components() -> dict:
        embeds = randn_tensor((1, tiny.NUM_IMAGE_TOKENS, tiny.IMAGE_CHANNELS), seeded())
        return {"image": None, "image_embeds": embeds}


def export_hub_folder(pipe, folder):
    """A folder with the pipeline's own source, which loads with this package and without it."""
    pipe.save_pretrained(folder)
    add_custom_code(folder)
    return folder


export_bundle_folder = export_hub_folder


class Training:
    script = REPOSITORY / "training" / "train_vilearn.py"
    component = "transformer"
    extra_args = ["--report_to=none", "--validation_fraction=0"]  # noqa: RUF012

    @staticmethod
    def prepare(folder) -> list[str]:
        """A tiny pipeline and latents made by it, and the script's arguments that name them."""
        return write_training_data(Pipeline.dummy_components(), folder)
