# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""VecSet variational autoencoder: a surface point cloud <-> unordered shape tokens -> a field that answers anywhere.

The architecture is that of 3DShape2VecSet (Zhang et al., 2023) in the variants that Dora (dual cross-attention),
TripoSG, Hunyuan3D-2 (sharp flag, qk-norm, turbo geometry head) and Step1X-3D made of it.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import AttentionMixin, AttentionModuleMixin, FeedForward
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.autoencoders.vae import AutoencoderMixin
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from diffusers.utils.torch_utils import randn_tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .modeling_utils import ViLearnModelMixin

KeyValue = tuple[torch.Tensor, torch.Tensor]


def _farthest_point_sample(points: torch.Tensor, start: torch.Tensor, num_samples: int) -> torch.Tensor:
    xyz = points.transpose(1, 2).contiguous()
    distance = xyz.new_full((xyz.shape[0], xyz.shape[2]), math.inf)
    index = start[:, None]
    chosen = [index]
    for _ in range(num_samples - 1):
        centre = xyz.gather(2, index[:, None].expand(-1, 3, -1))
        torch.minimum(distance, (xyz - centre).square_().sum(1), out=distance)
        distance.scatter_(1, index, -1.0)  # never chosen twice, not even among coinciding points
        index = distance.argmax(1, keepdim=True)
        chosen.append(index)
    return torch.cat(chosen, dim=1)


# An operator of its own, so that `torch.compile` sees one node: unrolled, 2048 tokens would be 10,000 nodes. Defined
# once: a repository may carry a copy of this file, and a second definition would break the first one's callers.
if not hasattr(torch.ops.diffusers_vilearn, "farthest_point_sample"):
    _operator = torch.library.custom_op("diffusers_vilearn::farthest_point_sample", mutates_args=())
    _operator(_farthest_point_sample).register_fake(
        lambda points, start, num_samples: start.new_empty((points.shape[0], num_samples))
    )


def farthest_point_sample(
    points: torch.Tensor, num_samples: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Greedy farthest-point sampling: each next point is the one farthest from all chosen so far.

    Args:
        points (`torch.Tensor` of shape `(batch, points, 3)`): Positions; distances are computed in float32.
        num_samples (`int`): Between 1 and the number of points. Indices are distinct even if points coincide.
        generator (`torch.Generator`, *optional*): Draws the first point; without it the first point is row 0.

    Returns:
        `torch.Tensor` of shape `(batch, num_samples)`, int64: Row indices in the order of choice.

    Raises:
        ValueError: If `points` or `num_samples` is out of the stated shape or range.
    """
    if points.ndim != 3 or points.shape[-1] != 3:
        raise ValueError(f"`points` has shape {tuple(points.shape)}, it must be (batch, points, 3).")
    batch_size, num_points, _ = points.shape
    if not 1 <= num_samples <= num_points:
        raise ValueError(f"`num_samples` is {num_samples}, it must lie in [1, {num_points}], the number of points.")
    if generator is None:
        start = torch.zeros(batch_size, dtype=torch.long, device=points.device)
    else:
        start = torch.randint(num_points, (batch_size,), generator=generator, device=generator.device)
    return torch.ops.diffusers_vilearn.farthest_point_sample(
        points.detach().float(), start.to(points.device), num_samples
    )


class DiagonalGaussianDistribution:
    """Gaussian with diagonal covariance over the last dimension of token latents.

    Args:
        parameters (`torch.Tensor` of shape `(batch, tokens, 2 * channels)`):
            Mean, then log-variance. Kept unclamped as `parameters`; `logvar` is clamped to [-30, 20].
    """

    def __init__(self, parameters: torch.Tensor):
        self.parameters = parameters
        self.mean, logvar = parameters.chunk(2, dim=-1)
        self.logvar = logvar.clamp(-30.0, 20.0)
        self.std = torch.exp(0.5 * self.logvar)
        self.var = torch.exp(self.logvar)

    def sample(self, generator: torch.Generator | list[torch.Generator] | None = None) -> torch.Tensor:
        """A draw of shape `(batch, tokens, channels)`; reparametrised, so gradients reach mean and log-variance."""
        noise = randn_tensor(self.mean.shape, generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.std * noise

    def mode(self) -> torch.Tensor:
        """The mean, of shape `(batch, tokens, channels)`."""
        return self.mean

    def kl(self) -> torch.Tensor:
        """Divergence from the standard normal in nats per latent number: a float32 *mean* over tokens and channels.

        Shape `(batch,)`. (diffusers' images sum; a mean keeps one loss weight valid for every number of tokens.)
        """
        mean, logvar = self.mean.float(), self.logvar.float()
        return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean(dim=(1, 2))


@dataclass
class VecSetVAEOutput(BaseOutput):
    """
    Output of [`VecSetVAE`].

    Args:
        field (`torch.Tensor` of shape `(batch, queries, 1)`): Field at the queried positions, positive inside.
        moments (`torch.Tensor` of shape `(batch, tokens, 2 * latent_channels)`):
            Parameters of the posterior; `latent_dist` is the [`DiagonalGaussianDistribution`] they make.
        hidden (`torch.Tensor` of shape `(batch, tokens, decoder_width)`): Decoder tokens, as [`VecSetVAE.decode`].
        anchors (`torch.Tensor` of shape `(batch, tokens, 3)`): Position of the point each token was queried from.
        gradient (`torch.Tensor` of shape `(batch, points, 3)`, *optional*):
            Gradient of the field, as [`VecSetVAE.query_with_gradient`], where it was asked for.
    """

    # tensors only: an object in here would hide its tensors from `torch.export` and from DDP;
    # defaults, because accelerate rebuilds outputs under mixed precision from one dictionary
    field: torch.Tensor
    moments: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    anchors: torch.Tensor | None = None
    gradient: torch.Tensor | None = None

    @property
    def latent_dist(self) -> DiagonalGaussianDistribution:
        return DiagonalGaussianDistribution(self.moments)


class VecSetAttnProcessor:
    """Multi-head attention of tokens over themselves or over a context; without padding there is no mask."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: "VecSetAttention",
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | KeyValue | None = None,
    ) -> torch.Tensor:
        if encoder_hidden_states is None:
            query, key, value = attn.project_query_key_value(hidden_states)
        else:
            query = attn.project_query(hidden_states)
            projected = isinstance(encoder_hidden_states, tuple)
            key, value = encoder_hidden_states if projected else attn.project_key_value(encoder_hidden_states)
        hidden_states = dispatch_attention_fn(
            query, key, value, backend=self._attention_backend, parallel_config=self._parallel_config
        )
        return attn.to_out[0](hidden_states.flatten(2, 3))


class VecSetAttention(nn.Module, AttentionModuleMixin):
    """
    Attention with optional LayerNorm of each head's query and key.

    Args:
        dim (`int`): Width of the tokens and of the attention.
        heads (`int`): Number of heads; divides `dim`.
        context_dim (`int`, *optional*): Width of the context; None means self-attention.
        bias (`bool`): Whether the query, key and value projections have a bias (the output projection always has).
        qk_norm (`bool`): Whether to normalise query and key per head, one set of weights for all heads.
        qk_norm_eps (`float`): Epsilon of those norms.
    """

    _default_processor_cls = VecSetAttnProcessor
    _available_processors = [VecSetAttnProcessor]  # noqa: RUF012

    def __init__(
        self,
        dim: int,
        heads: int,
        context_dim: int | None = None,
        bias: bool = False,
        qk_norm: bool = False,
        qk_norm_eps: float = 1e-6,
    ):
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.use_bias = bias
        self.is_cross_attention = context_dim is not None
        context_dim = dim if context_dim is None else context_dim
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_k = nn.Linear(context_dim, dim, bias=bias)
        self.to_v = nn.Linear(context_dim, dim, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q = nn.LayerNorm(self.head_dim, eps=qk_norm_eps) if qk_norm else nn.Identity()
        self.norm_k = nn.LayerNorm(self.head_dim, eps=qk_norm_eps) if qk_norm else nn.Identity()
        self.set_processor(self._default_processor_cls())

    def _split_heads(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states.unflatten(-1, (-1, self.head_dim))

    def _norm(self, norm: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
        # autocast on CUDA returns LayerNorm in float32, and attention wants one dtype for query, key and value
        return norm(self._split_heads(hidden_states)).to(hidden_states.dtype)

    def project_query(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(batch, tokens, dim)` -> `(batch, tokens, heads, head_dim)`."""
        return self._norm(self.norm_q, self.to_q(hidden_states))

    def project_key_value(self, context: torch.Tensor) -> KeyValue:
        """`(batch, tokens, context_dim)` -> two of `(batch, tokens, heads, head_dim)`."""
        if self.fused_projections:
            key, value = self.to_kv(context).chunk(2, dim=-1)
        else:
            key, value = self.to_k(context), self.to_v(context)
        return self._norm(self.norm_k, key), self._split_heads(value)

    def project_query_key_value(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`(batch, tokens, dim)` -> three of `(batch, tokens, heads, head_dim)`, for self-attention."""
        if self.fused_projections:
            query, key, value = self.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            query, key, value = self.to_q(hidden_states), self.to_k(hidden_states), self.to_v(hidden_states)
        return self._norm(self.norm_q, query), self._norm(self.norm_k, key), self._split_heads(value)

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | KeyValue | None = None
    ) -> torch.Tensor:
        return self.processor(self, hidden_states, encoder_hidden_states)


class VecSetTransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP (exact GELU), each with a residual."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, norm_eps: float, **attention_kwargs):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = VecSetAttention(dim, heads, **attention_kwargs)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.ff = FeedForward(dim, mult=mlp_ratio, activation_fn="gelu")

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states + self.attn(self.norm1(hidden_states))
        return hidden_states + self.ff(self.norm2(hidden_states))


class VecSetCrossAttentionBlock(nn.Module):
    """Pre-norm cross-attention over a context of its own width and MLP, each with a residual."""

    def __init__(self, dim: int, context_dim: int, heads: int, mlp_ratio: float, norm_eps: float, **attention_kwargs):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.norm_context = nn.LayerNorm(context_dim, eps=norm_eps)
        self.attn = VecSetAttention(dim, heads, context_dim=context_dim, **attention_kwargs)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.ff = FeedForward(dim, mult=mlp_ratio, activation_fn="gelu")

    def project_query(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.attn.project_query(self.norm1(hidden_states))

    def project_key_value(self, context: torch.Tensor) -> KeyValue:
        return self.attn.project_key_value(self.norm_context(context))

    def forward(self, hidden_states: torch.Tensor, context: torch.Tensor | KeyValue) -> torch.Tensor:
        if not isinstance(context, tuple):
            context = self.norm_context(context)
        hidden_states = hidden_states + self.attn(self.norm1(hidden_states), context)
        return hidden_states + self.ff(self.norm2(hidden_states))


class VecSetFourierEmbedding(nn.Module):
    """`[x, sin(f_k x), cos(f_k x)]` with `f_k = scale * 2^k`; coordinates outer, frequencies inner; in float32."""

    def __init__(self, num_freqs: int, scale: float):
        super().__init__()
        self.num_freqs = num_freqs
        self.scale = scale
        self.out_channels = 3 * (2 * num_freqs + 1)

    def forward(self, xyz: torch.Tensor) -> torch.Tensor:
        xyz = xyz.float()  # the highest frequency would lose its phase in 16 bits
        frequencies = self.scale * torch.exp2(torch.arange(self.num_freqs, device=xyz.device, dtype=torch.float32))
        phase = (xyz.unsqueeze(-1) * frequencies).flatten(-2)
        return torch.cat([xyz, phase.sin(), phase.cos()], dim=-1)


class VecSetEncoder(nn.Module):
    """Embedded points -> tokens: cross-attention from the chosen points to all of them, then self-attention."""

    def __init__(self, in_channels: int, dim: int, num_layers: int, final_norm_eps: float, dual: bool, **block_kwargs):
        super().__init__()
        self.proj_in = nn.Linear(in_channels, dim)
        self.cross_block = VecSetCrossAttentionBlock(dim, dim, **block_kwargs)
        self.proj_in_sharp = nn.Linear(in_channels, dim) if dual else None
        self.cross_block_sharp = VecSetCrossAttentionBlock(dim, dim, **block_kwargs) if dual else None
        self.blocks = nn.ModuleList([VecSetTransformerBlock(dim, **block_kwargs) for _ in range(num_layers)])
        self.norm_out = nn.LayerNorm(dim, eps=final_norm_eps)
        self.gradient_checkpointing = False

    def _run(self, block: nn.Module, *args) -> torch.Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *args)
        return block(*args)

    def forward(
        self,
        queries: torch.Tensor,
        points: torch.Tensor,
        sharp_queries: torch.Tensor | None = None,
        sharp_points: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`(batch, n, in_channels)` queries (and n2 sharp ones) -> `(batch, n [+ n2], dim)`."""
        hidden_states = self.proj_in(queries)
        if sharp_points is None:
            hidden_states = self._run(self.cross_block, hidden_states, self.proj_in(points))
        else:
            hidden_states = torch.cat([hidden_states, self.proj_in_sharp(sharp_queries)], dim=1)
            # Dora adds the outputs of two whole blocks, so the queries are counted twice
            hidden_states = self._run(self.cross_block, hidden_states, self.proj_in(points)) + self._run(
                self.cross_block_sharp, hidden_states, self.proj_in_sharp(sharp_points)
            )
        for block in self.blocks:
            hidden_states = self._run(block, hidden_states)
        return self.norm_out(hidden_states)


class VecSetDecoder(nn.Module):
    """The self-attention stack over shape tokens, run once per shape."""

    def __init__(self, dim: int, num_layers: int, **block_kwargs):
        super().__init__()
        self.blocks = nn.ModuleList([VecSetTransformerBlock(dim, **block_kwargs) for _ in range(num_layers)])
        self.gradient_checkpointing = False

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states)
            else:
                hidden_states = block(hidden_states)
        return hidden_states


class VecSetGeometryHead(nn.Module):
    """Embedded positions -> field by one cross-attention over the decoder tokens."""

    def __init__(
        self,
        in_channels: int,
        dim: int,
        context_dim: int,
        project_latents: bool,
        norm_out: bool,
        final_norm_eps: float,
        **block_kwargs,
    ):
        super().__init__()
        self.proj_query = nn.Linear(in_channels, dim)
        self.proj_latents = nn.Linear(context_dim, dim) if project_latents else nn.Identity()
        context_dim = dim if project_latents else context_dim
        self.cross_block = VecSetCrossAttentionBlock(dim, context_dim, **block_kwargs)
        self.norm_out = nn.LayerNorm(dim, eps=final_norm_eps) if norm_out else nn.Identity()
        self.proj_out = nn.Linear(dim, 1)
        self.gradient_checkpointing = False

    def forward(
        self, embedded: torch.Tensor | None, context: torch.Tensor | KeyValue | None, recompute: bool = True
    ) -> torch.Tensor | KeyValue:
        """The field; without `context` the queries of `embedded`, without `embedded` the keys and values of `context`.

        One entry for all three: the hooks that bring offloaded weights back sit on `forward`.
        """
        if context is not None and not isinstance(context, tuple):
            context = self.proj_latents(context)
        if embedded is None:
            return self.cross_block.project_key_value(context)
        queries = self.proj_query(embedded)
        if context is None:
            return self.cross_block.project_query(queries)
        if torch.is_grad_enabled() and self.gradient_checkpointing and recompute:
            queries = self._gradient_checkpointing_func(self.cross_block, queries, context)
        else:
            queries = self.cross_block(queries, context)
        return self.proj_out(self.norm_out(queries))


def _input_dtype(layer: nn.Linear) -> torch.dtype:
    """What a layer takes: the dtype of its bias, because quantised weights are packed into integers."""
    return layer.bias.dtype


def _gather_rows(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


class VecSetVAE(ViLearnModelMixin, AttentionMixin, AutoencoderMixin, ConfigMixin):
    r"""
    A variational autoencoder between surface point clouds and unordered shape tokens.

    `encode` lets a farthest-point subset of the cloud attend to all of it and gives a Gaussian over `(batch, tokens,
    latent_channels)`; `decode` runs self-attention over the tokens, once; `query` answers the field at any position by
    one cross-attention. The field is a truncated signed distance divided by the truncation, positive inside, trained
    in [-1, 1]. Any number of tokens works, whatever `num_tokens` says.

    This model inherits from [`ModelMixin`]. Check the superclass documentation for the generic methods implemented for
    all models (such as downloading or saving).

    Parameters:
        latent_channels (`int`, defaults to 64): Channels of a shape token.
        num_tokens (`int`, defaults to 2048): Tokens that `encode` makes when it is not told otherwise.
        point_channels (`int`, defaults to 6): Channels of a point: xyz, unit normal[, sharp flag].
        num_freqs (`int`, defaults to 8): Frequencies of the Fourier embedding of positions.
        include_pi (`bool`, defaults to False): Whether the frequencies are multiplied by pi.
        freq_scale (`float`, defaults to 1.0): The lowest frequency; frequency k is `freq_scale * 2^k [* pi]`.
        encoder_width (`int`, defaults to 768): Width of the encoder.
        encoder_heads (`int`, defaults to 12): Attention heads of the encoder.
        num_encoder_layers (`int`, defaults to 8): Self-attention layers of the encoder.
        decoder_width (`int`, defaults to 768): Width of the decoder.
        decoder_heads (`int`, defaults to 12): Attention heads of the decoder.
        num_decoder_layers (`int`, defaults to 16): Self-attention layers of the decoder.
        dual_cross_attention (`bool`, defaults to False):
            Whether a second, sharp-edge cloud has an input projection and a cross-attention of its own (Dora,
            Step1X-3D). Half of the tokens (rounded down) are then queried from it.
        sharp_flag (`bool`, defaults to False):
            Whether the last point channel tells sharp-edge points (1) from uniform ones (0) of one common cloud
            (Hunyuan3D). Tokens are then queried from both in proportion to their numbers of points.
        qkv_bias (`bool`, defaults to False): Whether query, key and value projections have a bias.
        qk_norm (`bool`, defaults to False): Whether queries and keys are normalised per head.
        qk_norm_eps (`float`, defaults to 1e-6): Epsilon of these norms.
        norm_eps (`float`, defaults to 1e-5): Epsilon of the norms in the blocks.
        final_norm_eps (`float`, defaults to 1e-5): Epsilon of the last norms of encoder and geometry head.
        mlp_ratio (`float`, defaults to 4): Hidden width of the MLPs over their width.
        geometry_width (`int`, *optional*): Width of the geometry head; None means `decoder_width`.
        geometry_heads (`int`, *optional*): Attention heads of the geometry head; None means `decoder_heads`.
        geometry_mlp_ratio (`float`, defaults to 4): As `mlp_ratio`, for the geometry head.
        geometry_norm_out (`bool`, defaults to True): Whether the geometry head ends with a norm.
        geometry_qk_norm (`bool`, *optional*): As `qk_norm`, for the geometry head; None means `qk_norm`.
        geometry_latents_proj (`bool`, defaults to False):
            Whether decoder tokens are projected to `geometry_width` before the geometry head (Hunyuan3D turbo).
        scaling_factor (`float` or `list[float]`, defaults to 1.0): See `normalize_latents`; one, or one per channel.
        shift_factor (`float` or `list[float]`, defaults to 0.0): See `normalize_latents`; one, or one per channel.
        bounds (`float` or `list[float]`, defaults to 1.01):
            Where the field is defined: a half-side, or min x, y, z and max x, y, z.
        truncation (`float`, defaults to 0.015): The distance at which the field saturates, in object units.
        has_encoder (`bool`, defaults to True): Whether there is an encoder; without one, latents come from elsewhere.
        frame (`str`, defaults to `"canonical"`):
            Frame of the objects the model was trained on: `"canonical"` (their own) or `"view"` (turned about +Y so
            that the condition camera has azimuth 0).
    """

    _config_limits = {  # noqa: RUF012
        "latent_channels": (1, 8192),
        "num_tokens": (1, 1_000_000),
        "point_channels": (3, 256),
        "num_freqs": (0, 32),
        "freq_scale": (0.0, 1e6),
        **dict.fromkeys(("encoder_width", "decoder_width", "geometry_width"), (1, 8192)),
        **dict.fromkeys(("encoder_heads", "decoder_heads", "geometry_heads"), (1, 512)),
        **dict.fromkeys(("num_encoder_layers", "num_decoder_layers"), (0, 512)),
        **dict.fromkeys(("mlp_ratio", "geometry_mlp_ratio"), (0.01, 16.0)),
        **dict.fromkeys(("norm_eps", "final_norm_eps", "qk_norm_eps"), (0.0, 1.0)),
        **dict.fromkeys(("scaling_factor", "shift_factor", "bounds"), (-1e6, 1e6)),
        "truncation": (1e-9, 1e6),
    }
    _supports_gradient_checkpointing = True
    _no_split_modules = ["VecSetTransformerBlock", "VecSetCrossAttentionBlock"]  # noqa: RUF012
    _repeated_blocks = ["VecSetTransformerBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["norm", "proj_in", "proj_query", "proj_out", "quant"]  # noqa: RUF012
    _group_offload_block_modules = ["encoder", "quant", "post_quant", "decoder", "geometry"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 64,
        num_tokens: int = 2048,
        point_channels: int = 6,
        num_freqs: int = 8,
        include_pi: bool = False,
        freq_scale: float = 1.0,
        encoder_width: int = 768,
        encoder_heads: int = 12,
        num_encoder_layers: int = 8,
        decoder_width: int = 768,
        decoder_heads: int = 12,
        num_decoder_layers: int = 16,
        dual_cross_attention: bool = False,
        sharp_flag: bool = False,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        qk_norm_eps: float = 1e-6,
        norm_eps: float = 1e-5,
        final_norm_eps: float = 1e-5,
        mlp_ratio: float = 4,
        geometry_width: int | None = None,
        geometry_heads: int | None = None,
        geometry_mlp_ratio: float = 4,
        geometry_norm_out: bool = True,
        geometry_qk_norm: bool | None = None,
        geometry_latents_proj: bool = False,
        scaling_factor: float | list[float] = 1.0,
        shift_factor: float | list[float] = 0.0,
        bounds: float | list[float] = 1.01,
        truncation: float = 0.015,
        has_encoder: bool = True,
        frame: str = "canonical",
    ):
        super().__init__()
        geometry_width = decoder_width if geometry_width is None else geometry_width
        geometry_heads = decoder_heads if geometry_heads is None else geometry_heads
        geometry_qk_norm = qk_norm if geometry_qk_norm is None else geometry_qk_norm
        for name, width, heads in (
            ("encoder", encoder_width, encoder_heads),
            ("decoder", decoder_width, decoder_heads),
            ("geometry", geometry_width, geometry_heads),
        ):
            if width % heads:
                raise ValueError(f"`{name}_width` is {width}, it must be a multiple of `{name}_heads`, {heads}.")
        for name, value in (("scaling_factor", scaling_factor), ("shift_factor", shift_factor)):
            if isinstance(value, (list, tuple)) and len(value) != latent_channels:
                raise ValueError(
                    f"`{name}` has {len(value)} numbers, it must be one or `latent_channels`, {latent_channels}."
                )
        if dual_cross_attention and sharp_flag:
            raise ValueError("`dual_cross_attention` and `sharp_flag` are both True, at most one may be.")
        if point_channels < 3 + sharp_flag:
            raise ValueError(f"`point_channels` is {point_channels}, it must be at least {3 + sharp_flag}.")
        if frame not in ("canonical", "view"):
            raise ValueError(f"`frame` is {frame!r}, it must be 'canonical' or 'view'.")

        attention = {"bias": qkv_bias, "qk_norm_eps": qk_norm_eps}
        block = {"mlp_ratio": mlp_ratio, "norm_eps": norm_eps, "qk_norm": qk_norm, **attention}
        self.embed = VecSetFourierEmbedding(num_freqs, freq_scale * (math.pi if include_pi else 1.0))
        self.encoder = self.quant = None
        if has_encoder:
            self.encoder = VecSetEncoder(
                self.embed.out_channels + point_channels - 3,
                encoder_width,
                num_encoder_layers,
                final_norm_eps,
                dual_cross_attention,
                heads=encoder_heads,
                **block,
            )
            self.quant = nn.Linear(encoder_width, 2 * latent_channels)
        self.post_quant = nn.Linear(latent_channels, decoder_width)
        self.decoder = VecSetDecoder(decoder_width, num_decoder_layers, heads=decoder_heads, **block)
        self.geometry = VecSetGeometryHead(
            self.embed.out_channels,
            geometry_width,
            decoder_width,
            geometry_latents_proj,
            geometry_norm_out,
            final_norm_eps,
            heads=geometry_heads,
            mlp_ratio=geometry_mlp_ratio,
            norm_eps=norm_eps,
            qk_norm=geometry_qk_norm,
            **attention,
        )
        self.use_slicing = False

    def _check_points(self, points: torch.Tensor, sharp_points: torch.Tensor | None) -> None:
        if not self.config.has_encoder:
            raise ValueError("This VAE has no encoder (`has_encoder=False`): it decodes latents, it makes none.")
        channels = self.config.point_channels
        for name, value in (("points", points), ("sharp_points", sharp_points)):
            if value is not None and (value.ndim != 3 or value.shape[-1] != channels):
                raise ValueError(f"`{name}` has shape {tuple(value.shape)}, it must be (batch, points, {channels}).")
        if self.config.dual_cross_attention and sharp_points is None:
            raise ValueError("`sharp_points` is None, a model with dual cross-attention needs a second cloud.")
        if sharp_points is None:
            return
        if not (self.config.dual_cross_attention or self.config.sharp_flag):
            raise ValueError(
                "`sharp_points` is given, it must be None for a model without dual cross-attention or sharp flag."
            )
        batch_size = points.shape[0]
        if sharp_points.shape[0] != batch_size:
            raise ValueError(
                f"`sharp_points` has batch size {sharp_points.shape[0]}, it must be that of `points`, {batch_size}."
            )

    def _select_queries(
        self,
        points: torch.Tensor,
        sharp_points: torch.Tensor | None,
        num_tokens: int,
        generator: torch.Generator | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Farthest-point rows of each cloud, `(batch, n)` and `(batch, n2)` with n + n2 = num_tokens."""
        available = points.shape[1] + (0 if sharp_points is None else sharp_points.shape[1])
        if not 1 <= num_tokens <= available:
            raise ValueError(f"`num_tokens` is {num_tokens}, it must lie in [1, {available}], the number of points.")
        if sharp_points is None:
            return farthest_point_sample(points[..., :3], num_tokens, generator), None
        if self.config.dual_cross_attention:
            num_sharp = num_tokens // 2
        else:
            num_sharp = num_tokens - num_tokens * points.shape[1] // available
        clouds = (("points", points, num_tokens - num_sharp), ("sharp_points", sharp_points, num_sharp))
        for name, cloud, count in clouds:
            if not 1 <= count <= cloud.shape[1]:
                raise ValueError(
                    f"`num_tokens` is {num_tokens}, {count} of them from `{name}`; it must take between 1 and"
                    f" {cloud.shape[1]}, the number of points there."
                )
        return tuple(farthest_point_sample(cloud[..., :3], count, generator) for _, cloud, count in clouds)

    def _embed_points(self, points: torch.Tensor) -> torch.Tensor:
        embedded = torch.cat([self.embed(points[..., :3]), points[..., 3:].float()], dim=-1)
        return embedded.to(_input_dtype(self.encoder.proj_in))

    def _encode(
        self,
        points: torch.Tensor,
        sharp_points: torch.Tensor | None,
        query_index: torch.Tensor,
        sharp_query_index: torch.Tensor | None,
    ) -> torch.Tensor:
        """Posterior parameters `(batch, n + n2, 2 * latent_channels)` of tokens queried from the given rows.

        `query_index` (batch, n) are rows of `points`, `sharp_query_index` (batch, n2) rows of `sharp_points`.
        """
        points = self._embed_points(points)
        queries = _gather_rows(points, query_index)
        if sharp_points is None:
            return self.quant(self.encoder(queries, points))
        sharp_points = self._embed_points(sharp_points)
        sharp_queries = _gather_rows(sharp_points, sharp_query_index)
        if self.config.dual_cross_attention:
            return self.quant(self.encoder(queries, points, sharp_queries, sharp_points))
        queries, points = torch.cat([queries, sharp_queries], dim=1), torch.cat([points, sharp_points], dim=1)
        return self.quant(self.encoder(queries, points))

    @apply_forward_hook
    def encode_with_anchors(
        self,
        points: torch.Tensor,
        sharp_points: torch.Tensor | None = None,
        num_tokens: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The posterior's parameters, `(batch, tokens, 2 * latent_channels)`, and the positions of the points that the
        tokens were queried from, `(batch, tokens, 3)`; arguments as for `encode`."""
        self._check_points(points, sharp_points)
        num_tokens = self.config.num_tokens if num_tokens is None else num_tokens
        index = self._select_queries(points, sharp_points, num_tokens, generator)
        clouds = (points, sharp_points)
        anchors = torch.cat([_gather_rows(c[..., :3], i) for c, i in zip(clouds, index) if i is not None], dim=1)
        if self.use_slicing and points.shape[0] > 1:
            slices = zip(*(_split_batch(x, points.shape[0]) for x in (*clouds, *index)))
            moments = torch.cat([self._encode(*part) for part in slices])
        else:
            moments = self._encode(*clouds, *index)
        return moments, anchors

    def encode(
        self,
        points: torch.Tensor,
        sharp_points: torch.Tensor | None = None,
        num_tokens: int | None = None,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """
        Encode surface point clouds into shape tokens.

        Args:
            points (`torch.Tensor` of shape `(batch, points, point_channels)`):
                Uniform surface samples: xyz within `bounds`, unit normal[, flag 0].
            sharp_points (`torch.Tensor` of shape `(batch, sharp points, point_channels)`, *optional*):
                Sharp-edge samples: xyz, unit normal[, flag 1]. Needed with dual cross-attention, possible with the
                sharp flag, an error otherwise.
            num_tokens (`int`, *optional*): Number of tokens, at most that of the points; None takes the config's.
            generator (`torch.Generator`, *optional*):
                Draws the first farthest point; without it row 0 is the first, and the tokens are deterministic.
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output class, not a tuple.

        Returns:
            [`~diffusers.models.modeling_outputs.AutoencoderKLOutput`] or `tuple`: Its `latent_dist` is a
            [`DiagonalGaussianDistribution`]. Tokens of `points` come first, those of `sharp_points` after them.

        Raises:
            ValueError: If a cloud has the wrong shape, is missing or superfluous, or has too few points.
        """
        moments, _ = self.encode_with_anchors(points, sharp_points, num_tokens, generator)
        posterior = DiagonalGaussianDistribution(moments)
        if not return_dict:
            return (posterior,)
        return AutoencoderKLOutput(latent_dist=posterior)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.post_quant(latents.to(_input_dtype(self.post_quant))))

    @apply_forward_hook
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """
        Run the decoder's self-attention, once per shape.

        Args:
            latents (`torch.Tensor` of shape `(batch, tokens, latent_channels)`):
                Shape tokens as the posterior gives them (not normalised).

        Returns:
            `torch.Tensor` of shape `(batch, tokens, decoder_width)`: Decoder tokens, the context of `query`.

        Raises:
            ValueError: If `latents` has another shape.
        """
        channels = self.config.latent_channels
        if latents.ndim != 3 or latents.shape[-1] != channels:
            raise ValueError(f"`latents` has shape {tuple(latents.shape)}, it must be (batch, tokens, {channels}).")
        if self.use_slicing and latents.shape[0] > 1:
            return torch.cat([self._decode(part) for part in latents.split(1)])
        return self._decode(latents)

    def _embed_xyz(self, xyz: torch.Tensor) -> torch.Tensor:
        if xyz.ndim != 3 or xyz.shape[-1] != 3:
            raise ValueError(f"`xyz` has shape {tuple(xyz.shape)}, it must be (batch, queries, 3).")
        return self.embed(xyz).to(_input_dtype(self.geometry.proj_query))

    @apply_forward_hook
    def project_query(self, xyz: torch.Tensor) -> torch.Tensor:
        """
        Queries of the last cross-attention: Fourier embedding, projections and norms included.

        Args:
            xyz (`torch.Tensor` of shape `(batch, queries, 3)`): Positions.

        Returns:
            `torch.Tensor` of shape `(batch, queries, geometry heads, head channels)`; attention logits are their dot
            products with the keys of `project_key_value`, over the square root of the head channels.

        Raises:
            ValueError: If `xyz` has another shape.
        """
        return self.geometry(self._embed_xyz(xyz), None)

    @apply_forward_hook
    def project_key_value(self, hidden: torch.Tensor) -> KeyValue:
        """
        Keys and values of the last cross-attention; compute them once per shape and give them to `query`.

        Args:
            hidden (`torch.Tensor` of shape `(batch, tokens, decoder_width)`): Decoder tokens, from `decode`.

        Returns:
            `tuple` of two `torch.Tensor` of shape `(batch, tokens, geometry heads, head channels)`.
        """
        return self.geometry(None, hidden)

    @apply_forward_hook
    def query(self, xyz: torch.Tensor, hidden: torch.Tensor | KeyValue) -> torch.Tensor:
        """
        The field at any position, by the last cross-attention only.

        Args:
            xyz (`torch.Tensor` of shape `(batch, queries, 3)`): Positions, in float32 whatever the model's dtype.
            hidden (`torch.Tensor` of shape `(batch, tokens, decoder_width)` or `tuple` of `project_key_value`):
                Decoder tokens, or their keys and values if many calls share them.

        Returns:
            `torch.Tensor` of shape `(batch, queries, 1)`: Truncated signed distance over the truncation, positive
            inside. Not clamped.

        Raises:
            ValueError: If `xyz` has another shape, or another batch size than `hidden`.
        """
        return self._query(xyz, hidden)

    def _query(self, xyz: torch.Tensor, hidden: torch.Tensor | KeyValue, recompute: bool = True) -> torch.Tensor:
        embedded = self._embed_xyz(xyz)
        context = hidden[0] if isinstance(hidden, tuple) else hidden
        if context.shape[0] != xyz.shape[0]:
            raise ValueError(f"`xyz` has batch size {xyz.shape[0]}, it must be that of `hidden`, {context.shape[0]}.")
        if self.use_slicing and xyz.shape[0] > 1:
            contexts = zip(*(x.split(1) for x in hidden)) if isinstance(hidden, tuple) else hidden.split(1)
            parts = zip(embedded.split(1), contexts)
            return torch.cat([self.geometry(part, context, recompute) for part, context in parts])
        return self.geometry(embedded, hidden, recompute)

    @apply_forward_hook
    def query_with_gradient(
        self, xyz: torch.Tensor, hidden: torch.Tensor | KeyValue
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The field and its gradient with respect to position. Under `torch.enable_grad` a loss may be made of both.

        Args:
            xyz (`torch.Tensor` of shape `(batch, queries, 3)`): Positions, as for `query`.
            hidden (`torch.Tensor` of shape `(batch, tokens, decoder_width)` or `tuple` of `project_key_value`):
                As for `query`.

        Returns:
            `tuple` of two `torch.Tensor`: The field `(batch, queries, 1)` and its gradient `(batch, queries, 3)`. Of a
            true field the gradient points inwards and is `1 / truncation` long within the truncation of the surface,
            zero elsewhere.

        Raises:
            ValueError: If `xyz` has another shape, or another batch size than `hidden`.
            RuntimeError: In `torch.inference_mode`, where nothing can be differentiated.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "The gradient of the field cannot be had in `torch.inference_mode`; use `torch.no_grad`."
            )
        twice_differentiable = torch.is_grad_enabled()
        # only the math kernel of attention can be differentiated twice
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            xyz = xyz.detach().requires_grad_(True)
            # a second derivative keeps all activations: recomputing them would save no memory
            field = self._query(xyz, hidden, recompute=False)
            (gradient,) = torch.autograd.grad(field.sum(), xyz, create_graph=twice_differentiable)
        return (field, gradient) if twice_differentiable else (field.detach(), gradient)

    def _latent_statistic(self, value: float | list[float], latents: torch.Tensor) -> float | torch.Tensor:
        if latents.shape[-1] != self.config.latent_channels:
            raise ValueError(
                f"`latents` has shape {tuple(latents.shape)}, it must end with {self.config.latent_channels} channels."
            )
        if isinstance(value, (list, tuple)):
            # not made on the device: that would wait for it
            return torch.tensor(value, dtype=latents.dtype).to(latents.device, non_blocking=True)
        return value

    def normalize_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Posterior latents -> what a diffusion model works on, `(latents - shift_factor) * scaling_factor`."""
        shift = self._latent_statistic(self.config.shift_factor, latents)
        return (latents - shift) * self._latent_statistic(self.config.scaling_factor, latents)

    def denormalize_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of `normalize_latents`, to be applied before `decode`."""
        shift = self._latent_statistic(self.config.shift_factor, latents)
        return latents / self._latent_statistic(self.config.scaling_factor, latents) + shift

    def forward(
        self,
        points: torch.Tensor,
        xyz: torch.Tensor,
        sharp_points: torch.Tensor | None = None,
        num_tokens: int | None = None,
        sample_posterior: bool = True,
        generator: torch.Generator | None = None,
        posterior_noise: torch.Tensor | None = None,
        gradient_xyz: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> VecSetVAEOutput | tuple:
        """
        Encode clouds, draw tokens, and answer the field: one training step's forward pass.

        Args:
            points (`torch.Tensor` of shape `(batch, points, point_channels)`): See `encode`.
            xyz (`torch.Tensor` of shape `(batch, queries, 3)`): Where the field is asked.
            sharp_points (`torch.Tensor` of shape `(batch, sharp points, point_channels)`, *optional*): See `encode`.
            num_tokens (`int`, *optional*): Number of tokens; None takes the config's.
            sample_posterior (`bool`, *optional*, defaults to `True`):
                Whether to draw from the posterior; otherwise its mean is decoded.
            generator (`torch.Generator`, *optional*):
                Draws the first farthest point and the posterior sample. Without it the first point is row 0.
            posterior_noise (`torch.Tensor` of shape `(batch, tokens, latent_channels)`, *optional*):
                Standard normal noise of the posterior sample, in place of noise that is drawn here.
            gradient_xyz (`torch.Tensor` of shape `(batch, points, 3)`, *optional*):
                Where the field's gradient is asked; see `query_with_gradient`.
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output class, not a tuple.

        Returns:
            [`VecSetVAEOutput`] or `tuple`: The field first, then `moments`, `hidden` and `anchors`, and `gradient` if
            `gradient_xyz` is given.

        Raises:
            ValueError: As `encode` and `query`.
        """
        moments, anchors = self.encode_with_anchors(points, sharp_points, num_tokens, generator)
        posterior = DiagonalGaussianDistribution(moments)
        if sample_posterior and posterior_noise is not None:
            latents = posterior.mean + posterior.std * posterior_noise
        else:
            latents = posterior.sample(generator) if sample_posterior else posterior.mode()
        hidden = self.decode(latents)
        field = self.query(xyz, hidden)
        gradient = self.query_with_gradient(gradient_xyz, hidden)[1] if gradient_xyz is not None else None
        output = VecSetVAEOutput(field, moments, hidden, anchors, gradient)
        return output if return_dict else output.to_tuple()


def _split_batch(values: torch.Tensor | None, batch_size: int) -> tuple:
    return (None,) * batch_size if values is None else values.split(1)
