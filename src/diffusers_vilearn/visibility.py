# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Visibility Grouping (VG): which shape tokens the condition view sees; and the split that inference uses instead."""

from collections.abc import Sequence
from numbers import Integral

import torch

from .models.autoencoder_vecset import VecSetVAE


@torch.no_grad()
def group_visible_tokens(
    vae: VecSetVAE,
    latents: torch.Tensor,
    visible_points: torch.Tensor | Sequence[torch.Tensor],
    min_votes: int | str = 1,
    chunk_size: int = 1024,
) -> torch.Tensor:
    """
    The visible token set: every surface point that the condition view sees is a query of the decoder's last
    cross-attention and votes for the token it attends to most, attention averaged over heads.

    Args:
        vae (`VecSetVAE`):
            Its trained projections, norms and Fourier embedding are used as they are; everything runs on its device.
        latents (`torch.Tensor` of shape `(batch, tokens, channels)`): Not normalised, as `encode` returns them.
        visible_points (`torch.Tensor` of shape `(batch, points, 3)`, or a sequence of `(points_i, 3)`):
            Surface points that the view sees, at least one per sample, in the frame of the latents.
        min_votes (`int` or `"balanced"`, defaults to 1):
            Votes that make a token visible. 1 is the paper's rule; `"balanced"` asks for points / tokens votes, so
            that many points do not make almost every token visible.
        chunk_size (`int`, defaults to 1024):
            Points that vote at a time. Two float32 arrays of `chunk_size` x tokens are held beside the votes.

    Returns:
        `torch.Tensor` of shape `(batch, tokens)`, bool: True for visible tokens, on the device of `vae`.

    Raises:
        ValueError: If a shape does not fit, a sample has no point, a number is not finite, or `min_votes` or
            `chunk_size` is out of range.
    """
    _check_inputs(latents, visible_points, min_votes, chunk_size)
    num_tokens = latents.shape[1]
    keys, _ = vae.project_key_value(vae.decode(latents.to(_execution_device(vae))))
    masks = []
    for key, points in zip(keys, visible_points, strict=True):
        key = key.permute(1, 2, 0).float()
        votes = torch.zeros(num_tokens, dtype=torch.long, device=key.device)
        for chunk in points.to(key.device, non_blocking=True).split(chunk_size):
            query = vae.project_query(chunk[None])[0].transpose(0, 1).float()
            attended = _attended_tokens(query, key)
            # not `bincount`, which waits for the device
            votes.index_add_(0, attended, torch.ones_like(attended))
        needed = len(points) / num_tokens if min_votes == "balanced" else min_votes
        masks.append(votes >= max(1, needed))
    return torch.stack(masks)


def _execution_device(vae: VecSetVAE) -> torch.device | int | str:
    """Where it computes: offloaded, its weights lie elsewhere between two calls."""
    hooks = (getattr(module, "_hf_hook", None) for module in vae.modules())
    devices = (getattr(hook, "execution_device", None) for hook in hooks)
    return next((device for device in devices if device is not None), vae.device)


def _attended_tokens(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Arg-max token of the head-averaged attention: (heads, points, dim), (heads, dim, tokens) -> (points,)."""
    query = query * query.shape[-1] ** -0.5
    # One head after the other keeps one head's attention and the sum in the cache; all heads at once would not fit.
    attention = torch.softmax(query[0] @ key[0], dim=-1)
    for head_query, head_key in zip(query[1:], key[1:], strict=True):
        attention += torch.softmax(head_query @ head_key, dim=-1)
    return attention.argmax(dim=-1)


def check_min_votes(min_votes: int | str) -> None:
    """Raise `ValueError` unless it is an integer of at least 1 or "balanced"."""
    if min_votes != "balanced" and (not isinstance(min_votes, Integral) or min_votes < 1):
        raise ValueError(f"`min_votes` is {min_votes!r}; it must be an integer of at least 1 or 'balanced'.")


def _check_inputs(
    latents: torch.Tensor,
    visible_points: torch.Tensor | Sequence[torch.Tensor],
    min_votes: int | str,
    chunk_size: int,
) -> None:
    if latents.ndim != 3:
        raise ValueError(f"`latents` has shape {tuple(latents.shape)}; it must be (batch, tokens, channels).")
    if not latents.isfinite().all():
        raise ValueError("`latents` holds numbers that are not finite.")
    if len(visible_points) != len(latents):
        raise ValueError(f"`visible_points` has {len(visible_points)} samples; `latents` has {len(latents)}.")
    for index, points in enumerate(visible_points):
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
            raise ValueError(
                f"`visible_points[{index}]` has shape {tuple(points.shape)}; it must be (points, 3) with at least one"
                " point."
            )
        if not points.isfinite().all():
            raise ValueError(f"`visible_points[{index}]` holds numbers that are not finite.")
    check_min_votes(min_votes)
    if chunk_size < 1:
        raise ValueError(f"`chunk_size` is {chunk_size}; it must be at least 1.")


def inference_visible_mask(
    num_tokens: int, visible_fraction: float = 1 / 3, device: torch.device | str | None = None
) -> torch.Tensor:
    """
    The split of the noise tokens at inference, where no visibility is known: the first ones are declared visible.

    Noise tokens are exchangeable, so which ones does not matter; how many does. In the paper 1/4 makes the model
    invent more of what the image does not show, 1/2 less; models differ.

    Args:
        num_tokens (`int`): Number of shape tokens.
        visible_fraction (`float`, defaults to 1/3): Fraction of visible tokens, in [0, 1].
        device (`torch.device` or `str`, *optional*): Device of the result.

    Returns:
        `torch.Tensor` of shape `(num_tokens,)`, bool: `round(num_tokens * visible_fraction)` times True (683 of 2048),
        then False.

    Raises:
        ValueError: If `num_tokens` is below 1 or `visible_fraction` not in [0, 1].
    """
    if num_tokens < 1:
        raise ValueError(f"`num_tokens` is {num_tokens}; it must be at least 1.")
    if not 0 <= visible_fraction <= 1:
        raise ValueError(f"`visible_fraction` is {visible_fraction}; it must lie in [0, 1].")
    return torch.arange(num_tokens, device=device) < round(num_tokens * visible_fraction)
