# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The objective of the transformer: rectified flow over normalised latents."""

import torch
from diffusers.training_utils import compute_loss_weighting_for_sd3


def flow_matching_loss(
    transformer, vae, batch: dict[str, torch.Tensor], shift: float, weighting_scheme: str = "logit_normal"
) -> torch.Tensor:
    """Mean squared error of the velocity: x_sigma = (1 - sigma) x_0 + sigma eps, the model predicts eps - x_0.

    Args:
        transformer (`ViLearnTransformer3DModel`): with or without the wrappers of accelerate.
        vae (`VecSetVAE`): whose normalisation `batch["latents"]` still lacks.
        batch: `latents` and `noise` (batch, tokens, channels), `density` (batch,) in [0, 1], `image_embeds`
            (batch, patches, channels), in any precision, and `visible_mask` (batch, tokens).
        shift (`float`): of the timesteps; sigma = shift * density / (1 + (shift - 1) * density).
        weighting_scheme (`str`): of `compute_loss_weighting_for_sd3`.

    Returns:
        `torch.Tensor`: one loss a sample, (batch,) float32.
    """
    density = batch["density"]
    sigma = shift * density / (1 + (shift - 1) * density)
    latents = vae.normalize_latents(batch["latents"])
    noise = batch["noise"]
    blend = sigma[:, None, None]
    # Weights of DeepSpeed are in half precision, without the autocast that would fit other inputs to them.
    dtype = next(transformer.parameters()).dtype
    prediction = transformer(
        ((1 - blend) * latents + blend * noise).to(dtype),
        encoder_hidden_states=batch["image_embeds"].to(dtype),
        timestep=1000 * sigma,
        visible_mask=batch["visible_mask"],
        return_dict=False,
    )[0]
    # diffusers draws from 1,000 levels; the weight of sigma_sqrt has no mean over all there are between 0 and 1.
    weight = compute_loss_weighting_for_sd3(weighting_scheme, sigmas=sigma.clamp(min=1e-3))
    return weight * (prediction.float() - (noise - latents)).square().mean(dim=(1, 2))
