# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The adaptor of the visibility alignment regulariser (ViLearn, supplement D): a probe that training throws away.

What a condition view sees of a surface point should be readable from the shape tokens alone. The adaptor reads it: a
visible point, or the ray that it is seen along, attends to the decoder's shape tokens and predicts the DINOv2 patch
feature at its pixel. Its cosine loss (`losses.alignment_loss`) reaches the VAE through keys and values.
"""

import torch
from torch import nn

from .autoencoder_vecset import VecSetCrossAttentionBlock, VecSetFourierEmbedding

# Coordinates of a query: a position, or a ray's direction and moment.
QUERY_CHANNELS = {"points": 3, "rays": 6}


class VisibilityAdaptor(nn.Module):
    """Cross-attention from visible points or Plücker rays to shape tokens.

    Args:
        context_dim (`int`): Width of the shape tokens, the VAE's `decoder_width`.
        out_channels (`int`): Channels of the image encoder's patch tokens.
        num_layers (`int`): Cross-attention layers, 1 or 2.
        heads (`int`): Attention heads; divides `context_dim`, which is also the adaptor's width.
        queries (`str`): `points` or `rays`.
        num_freqs (`int`): Frequencies 2^k of the queries' Fourier embedding.
    """

    def __init__(
        self,
        context_dim: int,
        out_channels: int,
        num_layers: int = 1,
        heads: int = 8,
        queries: str = "points",
        num_freqs: int = 6,
    ):
        super().__init__()
        if num_layers not in (1, 2):
            raise ValueError(f"`num_layers` is {num_layers}, it must be 1 or 2.")
        if context_dim % heads:
            raise ValueError(f"`heads` is {heads}, it must divide `context_dim`, {context_dim}.")
        if queries not in QUERY_CHANNELS:
            raise ValueError(f"`queries` is {queries!r}, it must be one of {tuple(QUERY_CHANNELS)}.")
        self.embed = VecSetFourierEmbedding(num_freqs, scale=1.0)
        self.proj_in = nn.Linear(QUERY_CHANNELS[queries] * (2 * num_freqs + 1), context_dim)
        self.blocks = nn.ModuleList(
            [
                VecSetCrossAttentionBlock(context_dim, context_dim, heads, mlp_ratio=4, norm_eps=1e-5)
                for _ in range(num_layers)
            ]
        )
        self.norm_out = nn.LayerNorm(context_dim)
        self.proj_out = nn.Linear(context_dim, out_channels)

    def forward(self, queries: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Predicted patch features `(batch, queries, out_channels)`.

        Args:
            queries (`torch.Tensor` of shape `(batch, queries, 3 or 6)`): In the frame of the latents.
            hidden (`torch.Tensor` of shape `(batch, tokens, context_dim)`): Decoder tokens, as `VecSetVAE.decode`.
        """
        states = self.proj_in(self.embed(queries).to(self.proj_in.weight.dtype))
        for block in self.blocks:
            states = block(states, hidden)
        return self.proj_out(self.norm_out(states))
