# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Visibility Grouping: which shape tokens are visible in the condition view (ViLearn, section 3.2)."""

from collections.abc import Sequence

import torch

from .models.autoencoder_vecset import VecSetVAE


@torch.no_grad()
def group_visible_tokens(
    vae: VecSetVAE,
    latents: torch.Tensor,
    visible_points: torch.Tensor | Sequence[torch.Tensor],
    min_votes: int | str = 1,
    chunk_size: int = 4096,
) -> torch.Tensor:
    """
    The visible token set: visible surface points query the last cross-attention of the decoder, and each votes for the
    token that it attends to most, attention averaged over heads.

    Args:
        vae (`VecSetVAE`): Its trained query, key, norms and Fourier embedding are used; no training is involved.
        latents (`torch.Tensor` of shape `(batch, tokens, channels)`): Not normalised, as `encode` returns them.
        visible_points (`torch.Tensor` of shape `(batch, points, 3)` or a sequence of `(points_i, 3)`):
            Surface points that the condition view sees, in the frame of the latents.
        min_votes (`int` or `"balanced"`, defaults to 1):
            Votes that make a token visible. 1 is the paper's rule; `"balanced"` asks for points / tokens votes, so that
            many points do not make almost every token visible.
        chunk_size (`int`): Attention logits per head that are held at once are `chunk_size x tokens`.

    Returns:
        `torch.Tensor` of shape `(batch, tokens)`, bool: True for visible tokens.

    Raises:
        ValueError: Shapes do not fit, a sample has no visible point, or `min_votes` is neither.
    """
    _check_inputs(latents, visible_points, min_votes)
    num_tokens = latents.shape[1]
    masks = []
    for tokens, points in zip(latents, visible_points, strict=True):
        key, _ = vae.project_key_value(vae.decode(tokens[None]))
        key = key[0].permute(1, 2, 0).float()
        votes = torch.zeros(num_tokens, dtype=torch.long, device=latents.device)
        for chunk in points.to(latents.device, vae.dtype).split(chunk_size):
            query = vae.project_query(chunk[None])[0].transpose(0, 1).float()
            votes += torch.bincount(_attended_token(query, key), minlength=num_tokens)
        needed = len(points) / num_tokens if min_votes == "balanced" else min_votes
        masks.append(votes >= max(1, needed))
    return torch.stack(masks)


def _attended_token(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Arg-max token (points,) of the attention averaged over heads; `query` (heads, points, dim), `key` (heads, dim, tokens)."""
    scale = query.shape[-1] ** -0.5
    # One head at a time: the sum over heads needs no more than one head's attention beside it.
    attention = torch.softmax(query[0] @ key[0] * scale, dim=-1)
    for head_query, head_key in zip(query[1:], key[1:], strict=True):
        attention += torch.softmax(head_query @ head_key * scale, dim=-1)
    return attention.argmax(dim=-1)


def _check_inputs(latents, visible_points, min_votes) -> None:
    if latents.ndim != 3:
        raise ValueError(f"`latents` must be (batch, tokens, channels), but has shape {tuple(latents.shape)}.")
    if len(visible_points) != len(latents):
        raise ValueError(f"`visible_points` has {len(visible_points)} samples, but `latents` has {len(latents)}.")
    for index, points in enumerate(visible_points):
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
            raise ValueError(
                f"`visible_points[{index}]` must be (points, 3) with at least one point, but has shape"
                f" {tuple(points.shape)}."
            )
    if min_votes != "balanced" and (isinstance(min_votes, str) or min_votes < 1):
        raise ValueError(f"`min_votes` must be a number of at least 1 or 'balanced', but is {min_votes!r}.")


def inference_visible_mask(
    num_tokens: int, visible_fraction: float = 1 / 3, device: torch.device | str | None = None
) -> torch.Tensor:
    """
    The split of noise tokens at inference: the first `visible_fraction` is declared visible (683 of 2048 for 1/3).

    Args:
        num_tokens (`int`): Number of shape tokens.
        visible_fraction (`float`): In [0, 1]; less lets the model invent more of what the image does not show.
        device (`torch.device`, *optional*): Of the result.

    Returns:
        `torch.Tensor` of shape `(num_tokens,)`, bool.
    """
    if num_tokens < 1:
        raise ValueError(f"`num_tokens` must be at least 1, but is {num_tokens}.")
    if not 0 <= visible_fraction <= 1:
        raise ValueError(f"`visible_fraction` must lie in [0, 1], but is {visible_fraction}.")
    return torch.arange(num_tokens, device=device) < round(num_tokens * visible_fraction)
