# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What the training-script tests of the conformance harness train on: a tiny pipeline, and latents made by it."""

from pathlib import Path

import numpy as np

from diffusers_vilearn import ViLearnImageTo3DPipeline
from diffusers_vilearn.data.latents import LatentEncoder
from diffusers_vilearn.data.shards import write_shard

NUM_ROWS = 4


def write_training_data(components: dict, folder: Path) -> list[str]:
    """Save a pipeline of `components` and a latents table of noise into `folder`; the script's arguments for both."""
    ViLearnImageTo3DPipeline(**components).save_pretrained(folder / "pretrained")
    encoder = LatentEncoder(components["vae"], components["image_encoder"], components["feature_extractor"])
    rng = np.random.default_rng(0)
    image = components["image_encoder"].config
    num_patches = (components["feature_extractor"].crop_size["height"] // image.patch_size) ** 2
    channels, num_tokens = components["vae"].config.latent_channels, components["vae"].config.num_tokens
    rows = [
        {
            "uid": f"object {row}",
            "view": 0,
            "mirrored": False,
            "frame": np.eye(4, dtype=np.float32),
            "moments": rng.standard_normal((num_tokens, 2 * channels)).astype(np.float16),
            "visible_tokens": list(range(num_tokens // 3)),
            "visible_share": 1 / 3,
            "anchor_agreement": 1.0,
            "image_embeds": rng.standard_normal((num_patches, image.hidden_size)).astype(np.float16),
        }
        for row in range(NUM_ROWS)
    ]
    write_shard(folder / "data", "latents", "train-noise-00000", rows, encoder.features)
    encoder.check_table(folder / "data" / "latents", num_tokens)
    return [f"--pretrained_model_name_or_path={folder / 'pretrained'}", f"--dataset_name={folder / 'data'}"]
