# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What training a VAE needs beside its loss: the number of tokens of a step, validation, statistics of its latents."""

import math
from collections.abc import Callable
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import Dinov2Model

from ..data.field_samples import FieldSamples
from ..data.images import patch_tokens, patch_tokens_at
from ..metrics.reconstruction import occupancy_iou
from ..models import VecSetVAE
from .stream import UnreadableRow, whole_batches


def draw_num_tokens(choices: list[int], seed: int, step: int) -> int:
    """Shape tokens of all batches of a step, uniform in `choices`: a pure function of seed and step, whoever asks."""
    return choices[np.random.default_rng((seed, step)).integers(len(choices))]


def check_margin(shapes, truncation: float, frame: str) -> None:
    """Refuse shapes whose stored field ends too near to them: beyond it the field is taken to be saturated.

    Args:
        shapes (`datasets.Dataset`): rows of `SHAPE_FEATURES`; the first one speaks for all.
        truncation (`float`): of the VAE, in units of its frame.
        frame (`str`): of the VAE. In the view frame an object that is turned by 45 degrees may be smaller by sqrt(2).
    """
    row = shapes.with_format("numpy", ["surface", "field_box"])[0]
    surface = row["surface"][:, :3].astype(np.float32)
    margin = float(min((surface.min(0) - row["field_box"][0]).min(), (row["field_box"][1] - surface.max(0)).min()))
    needed = truncation * (math.sqrt(2) if frame == "view" else 1)
    # Positions are stored in half precision.
    if margin < needed - 1e-3:
        raise ValueError(
            f"The dataset was prepared with a margin of about {margin:.3f}, less than the {needed:.3f} that the"
            f" `truncation` of the VAE, {truncation}, needs in the frame {frame!r}; prepare it anew with a larger"
            " `--margin`."
        )


@torch.no_grad()
def check_num_tokens(vae: VecSetVAE, samples: FieldSamples, choices: list[int]) -> None:
    """Encode one sample with each number of tokens that may be drawn; `ValueError` where the clouds are too small."""
    batch = next(whole_batches(samples, 1, vae.device))
    for num_tokens in choices:
        vae.encode(batch["points"], batch.get("sharp_points"), num_tokens)


@torch.no_grad()
def alignment_features(image_encoder: Dinov2Model, batch: dict) -> torch.Tensor:
    """What the image encoder sees at the pixels of the alignment queries, (batch, queries, channels)."""
    return patch_tokens_at(patch_tokens(image_encoder, batch["pixel_values"]), batch["alignment_positions"])


@torch.no_grad()
def validate(
    vae: VecSetVAE,
    samples: FieldSamples,
    batch_size: int,
    num_tokens: int | None,
    accelerator: Accelerator,
    name: Callable[[list[UnreadableRow]], None] | None = None,
) -> dict[str, float]:
    """How well the posterior's mode reconstructs held-out shapes.

    Args:
        vae (`VecSetVAE`): in evaluation mode.
        samples (`FieldSamples`): with normals.
        batch_size (`int`): shapes at a time.
        num_tokens (`int`, *optional*): shape tokens; None takes the config's.
        accelerator (`Accelerator`): whose processes share the shapes; all must call this.
        name (`Callable`, *optional*): is told which shapes cannot be read.

    Returns:
        `dict[str, float]`: mean `iou` and `median_iou` of the sign over volume queries, where some lie
        in either shape; `l1`, mean absolute error of the field; `normal_angle`, mean angle in degrees between −∇f and
        the normal on the surface.
    """
    share = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
    scores = {}
    for batch in whole_batches(samples, batch_size, vae.device, name=name, **share):
        output = vae(
            batch["points"],
            batch["xyz"],
            batch.get("sharp_points"),
            num_tokens,
            sample_posterior=False,
            gradient_xyz=batch["surface_xyz"],
        )
        field = output.field.float()
        volume = slice(samples.num_queries // 2, None)
        inside, truly_inside = field[:, volume, 0] > 0, batch["field"][:, volume, 0] > 0
        iou = occupancy_iou(inside, truly_inside).where((inside | truly_inside).any(dim=1), torch.nan)
        error = (field - batch["field"]).abs().mean(dim=(1, 2))
        cosine = torch.cosine_similarity(-output.gradient.float(), batch["surface_normals"], dim=-1)
        angle = cosine.clamp(-1, 1).arccos().rad2deg().mean(dim=1)
        scores |= zip(batch["uids"], torch.stack([iou, error, angle], dim=1).tolist(), strict=True)
    # Some shapes are taken twice.
    ious, errors, angles = zip(*dict(gather_object(list(scores.items()))).values())
    ious = [iou for iou in ious if not math.isnan(iou)]
    of_volume = {"iou": float(np.mean(ious)), "median_iou": float(np.median(ious))} if ious else {}
    return {**of_volume, "l1": float(np.mean(errors)), "normal_angle": float(np.mean(angles))}


@torch.no_grad()
def measure_latents(
    vae: VecSetVAE, samples: FieldSamples, batch_size: int, max_shapes: int = 4096
) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of sampled latents over the first `max_shapes` shapes or so."""
    # of the CPU: the same noise on any device
    generator = torch.Generator().manual_seed(0)
    latents = []
    for batch in islice(whole_batches(samples, batch_size, vae.device), math.ceil(max_shapes / batch_size)):
        posterior = vae.encode(batch["points"], batch.get("sharp_points")).latent_dist
        latents.append(posterior.sample(generator).float().flatten(0, 1))
    latents = torch.cat(latents)
    return latents.mean(dim=0).tolist(), latents.std(dim=0).tolist()
