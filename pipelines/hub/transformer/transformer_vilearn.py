# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
# Written by pipelines/build_hub_files.py from src/diffusers_vilearn/models/transformer_vilearn.py; edit that file instead.
"""The ViLearn flow-matching transformer: an MM-DiT over unordered shape tokens with visibility-aware encodings."""

from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.hooks._helpers import (
    AttentionProcessorMetadata,
    AttentionProcessorRegistry,
    TransformerBlockMetadata,
    TransformerBlockRegistry,
)
from diffusers.loaders import PeftAdapterMixin
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention import AttentionMixin, AttentionModuleMixin, FeedForward
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.embeddings import PixArtAlphaTextProjection
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.normalization import AdaLayerNormSingle
from diffusers.utils import apply_lora_scale, is_accelerate_available

from diffusers import ModelMixin as ViLearnModelMixin

VISIBILITY_ENCODINGS = ("va_rope", "va_lpe", "va_rope_lpe", "rope", "none")

# The two sizes of the paper: `ViLearnTransformer3DModel.from_config(VILEARN_SMALL)` has 394.1M parameters,
# `from_config(VILEARN_LARGE)` 1130.7M. Keyword arguments override entries: `from_config(VILEARN_SMALL, eps=1e-5)`.
VILEARN_SMALL = {
    "in_channels": 64,
    "num_layers": 5,
    "num_single_layers": 4,
    "num_attention_heads": 16,
    "attention_head_dim": 96,
    "joint_attention_dim": 1024,
}
VILEARN_LARGE = {**VILEARN_SMALL, "num_layers": 10, "num_single_layers": 20}


def _apply_rotary_emb(x: torch.Tensor, rotary_emb: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn the channel pairs (i, i + head_dim / 2) of `x` (batch, tokens, heads, head_dim) by the given angles."""
    cos, sin = rotary_emb
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def _modulation(scale_shift_table: torch.Tensor, temb: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """adaLN-single: a block's own (k, dim) table plus the first k rows of the shared (batch, 6, dim) `temb`.

    The sum is taken in float32 and rounded once, to `dtype`.
    """
    num_rows = scale_shift_table.shape[0]
    modulation = scale_shift_table.float() + temb[:, :num_rows].float()
    return modulation.to(dtype).chunk(num_rows, dim=1)


def _scale_shift(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(shift, x, 1 + scale)


class ViLearnRMSNorm(nn.RMSNorm):
    """RMSNorm over the channels of a head that answers in the dtype it was given, so that autocast keeps it fused."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class ViLearnVisibilityEmbed(nn.Module):
    """What the double-stream blocks add to, or turn, their queries and keys by: the paper's VAPE and its ablations.

    VA-RoPE puts image tokens and visible shape tokens at position m, invisible ones at n, and a token of visibility v
    at n + (m - n) * v. Only differences of positions matter to attention, so every position is counted from m: image
    tokens stay unturned and a shape token is turned by (n - m) * (1 - v).

    VA-LPE adds a learned vector e_v to image and visible tokens, e_i to invisible ones, and interpolates in between.
    """

    def __init__(
        self,
        num_attention_heads: int,
        attention_head_dim: int,
        encoding: str,
        visible_position: float,
        invisible_position: float,
        rope_theta: float,
    ):
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.attention_head_dim = attention_head_dim
        self.encoding = encoding
        self.position_offset = invisible_position - visible_position
        self.rope_theta = rope_theta
        if encoding in ("va_lpe", "va_rope_lpe"):
            inner_dim = num_attention_heads * attention_head_dim
            self.visible_embedding = nn.Parameter(torch.randn(inner_dim) * 0.02)
            self.invisible_embedding = nn.Parameter(torch.randn(inner_dim) * 0.02)

    def forward(
        self, visible_mask: torch.Tensor | None, num_tokens: int, device: torch.device
    ) -> tuple[tuple[torch.Tensor, torch.Tensor] | None, tuple[torch.Tensor, torch.Tensor] | None]:
        """
        Args:
            visible_mask (`torch.Tensor`, *optional*): (batch, tokens), bool or float in [0, 1].
            num_tokens (`int`): How many shape tokens there are.
            device (`torch.device`): Where to put the angles.

        Returns:
            `tuple`: (cos, sin) of the shape tokens' angles, each (batch or 1, tokens, 1, head_dim / 2), and the
            vectors to add to image tokens (1, 1, heads, head_dim) and to shape tokens (batch, tokens, heads,
            head_dim); `None` in place of what the encoding does not use.
        """
        rotary_emb = additive_emb = None
        if self.encoding in ("va_rope", "va_rope_lpe"):
            rotary_emb = self._angles(self.position_offset * (1 - visible_mask.float()))
        elif self.encoding == "rope":
            rotary_emb = self._angles(self._sequence_positions(visible_mask, num_tokens, device))
        if self.encoding in ("va_lpe", "va_rope_lpe"):
            visibility = visible_mask.to(self.visible_embedding.dtype)[..., None]
            shape_emb = torch.lerp(self.invisible_embedding, self.visible_embedding, visibility)
            heads = (self.num_attention_heads, self.attention_head_dim)
            additive_emb = (self.visible_embedding.view(1, 1, *heads), shape_emb.unflatten(-1, heads))
        return rotary_emb, additive_emb

    @staticmethod
    def _sequence_positions(visible_mask: torch.Tensor | None, num_tokens: int, device: torch.device) -> torch.Tensor:
        """Each token's rank in the sequence, visible tokens first when a mask is given: (batch or 1, tokens)."""
        if visible_mask is None:
            return torch.arange(num_tokens, device=device, dtype=torch.float32)[None]
        order = visible_mask.float().argsort(dim=1, descending=True, stable=True)
        return order.argsort(dim=1).float()

    def _angles(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        exponents = torch.arange(0, self.attention_head_dim, 2, device=positions.device, dtype=torch.float32)
        frequencies = self.rope_theta ** (-exponents / self.attention_head_dim)
        angles = positions[..., None, None] * frequencies
        return angles.cos(), angles.sin()


class ViLearnAttnProcessor:
    """Attention over image and shape tokens together, or over shape tokens alone when no image tokens are given."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: "ViLearnAttention",
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        additive_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if attn.fused_projections:
            attn.check_no_lora()
            query, key, value = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        # `-1` absorbs the head count, so that a column-sharded projection still works.
        query, key, value = (x.unflatten(-1, (-1, attn.head_dim)) for x in (query, key, value))
        query, key = attn.norm_q(query), attn.norm_k(key)

        # The learned vectors come after the norms, which would rescale them, and before the rotation, as absolute
        # embeddings do when combined with RoPE.
        if additive_emb is not None:
            query, key = query + additive_emb[1], key + additive_emb[1]
        if rotary_emb is not None:
            query, key = _apply_rotary_emb(query, rotary_emb), _apply_rotary_emb(key, rotary_emb)

        if encoder_hidden_states is not None:
            encoder_query, encoder_key, encoder_value = self._image_qkv(attn, encoder_hidden_states)
            if additive_emb is not None:
                encoder_key = encoder_key + additive_emb[0]
            key = torch.cat([encoder_key, key], dim=1)
            value = torch.cat([encoder_value, value], dim=1)
            if encoder_query is not None:
                if additive_emb is not None:
                    encoder_query = encoder_query + additive_emb[0]
                query = torch.cat([encoder_query, query], dim=1)

        # Under autocast the learned vectors are float32; backends want one dtype.
        attn_output = dispatch_attention_fn(
            query.to(value.dtype),
            key.to(value.dtype),
            value,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        attn_output = attn_output.flatten(2, 3).to(hidden_states.dtype)

        if encoder_hidden_states is None or attn.context_pre_only:
            return attn.to_out[1](attn.to_out[0](attn_output))
        num_image_tokens = encoder_hidden_states.shape[1]
        encoder_output, attn_output = attn_output[:, :num_image_tokens], attn_output[:, num_image_tokens:]
        return attn.to_out[1](attn.to_out[0](attn_output)), attn.to_add_out(encoder_output)

    @staticmethod
    def _image_qkv(attn: "ViLearnAttention", encoder_hidden_states: torch.Tensor):
        """Queries (`None` where nobody reads what image tokens would attend to), keys and values of the image side."""
        query = None
        if attn.context_pre_only:
            key, value = attn.add_k_proj(encoder_hidden_states), attn.add_v_proj(encoder_hidden_states)
        elif attn.fused_projections:
            query, key, value = attn.to_added_qkv(encoder_hidden_states).chunk(3, dim=-1)
        else:
            query = attn.add_q_proj(encoder_hidden_states)
            key, value = attn.add_k_proj(encoder_hidden_states), attn.add_v_proj(encoder_hidden_states)
        if query is not None:
            query = attn.norm_added_q(query.unflatten(-1, (-1, attn.head_dim)))
        return (
            query,
            attn.norm_added_k(key.unflatten(-1, (-1, attn.head_dim))),
            value.unflatten(-1, (-1, attn.head_dim)),
        )


class ViLearnAttention(nn.Module, AttentionModuleMixin):
    """Multi-head attention with per-head QK-RMSNorm; with `added_kv_proj_dim`, image tokens have weights of their own.

    Where `context_pre_only`, image tokens are attended to but do not attend: no query, no output projection.
    """

    _default_processor_cls = ViLearnAttnProcessor
    _available_processors = [ViLearnAttnProcessor]  # noqa: RUF012 (diffusers reads a list)

    def __init__(
        self,
        query_dim: int,
        heads: int,
        dim_head: int,
        added_kv_proj_dim: int | None = None,
        context_pre_only: bool = False,
        qk_norm: str | None = "rms_norm",
        eps: float = 1e-6,
        processor: ViLearnAttnProcessor | None = None,
    ):
        super().__init__()
        self.heads = heads
        self.head_dim = dim_head
        self.inner_dim = heads * dim_head
        self.added_kv_proj_dim = added_kv_proj_dim
        self.context_pre_only = context_pre_only
        self.use_bias = False
        self.added_proj_bias = False
        # what guiders that skip or perturb attention ask for
        self.is_cross_attention = False

        def norm() -> nn.Module:
            return ViLearnRMSNorm(dim_head, eps=eps) if qk_norm == "rms_norm" else nn.Identity()

        self.to_q = nn.Linear(query_dim, self.inner_dim, bias=False)
        self.to_k = nn.Linear(query_dim, self.inner_dim, bias=False)
        self.to_v = nn.Linear(query_dim, self.inner_dim, bias=False)
        self.norm_q, self.norm_k = norm(), norm()
        self.to_out = nn.ModuleList([nn.Linear(self.inner_dim, query_dim), nn.Dropout(0.0)])

        if added_kv_proj_dim is not None:
            self.add_k_proj = nn.Linear(added_kv_proj_dim, self.inner_dim, bias=False)
            self.add_v_proj = nn.Linear(added_kv_proj_dim, self.inner_dim, bias=False)
            self.norm_added_k = norm()
            if not context_pre_only:
                self.add_q_proj = nn.Linear(added_kv_proj_dim, self.inner_dim, bias=False)
                self.norm_added_q = norm()
                self.to_add_out = nn.Linear(self.inner_dim, added_kv_proj_dim)

        self.set_processor(processor if processor is not None else self._default_processor_cls())

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        additive_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        return self.processor(self, hidden_states, encoder_hidden_states, rotary_emb, additive_emb, **kwargs)

    def check_no_lora(self) -> None:
        """Raise `ValueError` for LoRA layers on the projections, which fused ones would leave out."""
        image_side = () if self.context_pre_only else ("add_q_proj", "add_k_proj", "add_v_proj")
        for name in ("to_q", "to_k", "to_v", *image_side):
            layer = getattr(self, name, None)
            if getattr(layer, "lora_A", None) and not layer.merged and not layer.disable_adapters:
                raise ValueError(
                    f"`{name}` has LoRA layers, which fused projections would leave out; call `fuse_lora()` and"
                    " `unload_lora_weights()` before `fuse_qkv_projections()`."
                )


class ViLearnTransformerBlock(nn.Module):
    """Double-stream block: image and shape tokens attend jointly, each side with its own weights.

    The last one of a model is `context_pre_only`: nothing reads its image tokens, so they pass through unchanged.
    """

    def __init__(
        self,
        dim: int,
        num_attention_heads: int,
        attention_head_dim: int,
        mlp_ratio: float = 4.0,
        qk_norm: str | None = "rms_norm",
        eps: float = 1e-6,
        context_pre_only: bool = False,
    ):
        super().__init__()
        self.context_pre_only = context_pre_only

        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=eps)
        self.norm1_context = nn.LayerNorm(dim, elementwise_affine=False, eps=eps)
        self.attn = ViLearnAttention(
            query_dim=dim,
            heads=num_attention_heads,
            dim_head=attention_head_dim,
            added_kv_proj_dim=dim,
            context_pre_only=context_pre_only,
            qk_norm=qk_norm,
            eps=eps,
        )
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=eps)
        self.ff = FeedForward(dim, dim_out=dim, mult=mlp_ratio, activation_fn="gelu")
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)

        self.scale_shift_table_context = nn.Parameter(torch.randn(2 if context_pre_only else 6, dim) / dim**0.5)
        if not context_pre_only:
            self.norm2_context = nn.LayerNorm(dim, elementwise_affine=False, eps=eps)
            self.ff_context = FeedForward(dim, dim_out=dim, mult=mlp_ratio, activation_fn="gelu")

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        additive_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = _modulation(
            self.scale_shift_table, temb, hidden_states.dtype
        )
        shift_context, scale_context, *context = _modulation(
            self.scale_shift_table_context, temb, encoder_hidden_states.dtype
        )

        attn_output = self.attn(
            _scale_shift(self.norm1(hidden_states), scale, shift),
            _scale_shift(self.norm1_context(encoder_hidden_states), scale_context, shift_context),
            rotary_emb=rotary_emb,
            additive_emb=additive_emb,
            **(attention_kwargs or {}),
        )
        if not self.context_pre_only:
            attn_output, context_attn_output = attn_output
            gate_context, shift_context_mlp, scale_context_mlp, gate_context_mlp = context
            encoder_hidden_states = torch.addcmul(encoder_hidden_states, gate_context, context_attn_output)
            norm_context = _scale_shift(
                self.norm2_context(encoder_hidden_states), scale_context_mlp, shift_context_mlp
            )
            encoder_hidden_states = torch.addcmul(
                encoder_hidden_states, gate_context_mlp, self.ff_context(norm_context)
            )

        hidden_states = torch.addcmul(hidden_states, gate, attn_output)
        norm_hidden_states = _scale_shift(self.norm2(hidden_states), scale_mlp, shift_mlp)
        hidden_states = torch.addcmul(hidden_states, gate_mlp, self.ff(norm_hidden_states))
        return hidden_states, encoder_hidden_states


class ViLearnSingleTransformerBlock(nn.Module):
    """Single-stream block: shape tokens attend to shape tokens only, without any positional encoding.

    Image tokens pass through untouched: diffusers' cache hooks need every block of a model to have one signature.
    """

    def __init__(
        self,
        dim: int,
        num_attention_heads: int,
        attention_head_dim: int,
        mlp_ratio: float = 4.0,
        qk_norm: str | None = "rms_norm",
        eps: float = 1e-6,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=eps)
        self.attn = ViLearnAttention(
            query_dim=dim, heads=num_attention_heads, dim_head=attention_head_dim, qk_norm=qk_norm, eps=eps
        )
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=eps)
        self.ff = FeedForward(dim, dim_out=dim, mult=mlp_ratio, activation_fn="gelu")
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = _modulation(
            self.scale_shift_table, temb, hidden_states.dtype
        )
        attn_output = self.attn(_scale_shift(self.norm1(hidden_states), scale, shift), **(attention_kwargs or {}))
        hidden_states = torch.addcmul(hidden_states, gate, attn_output)
        norm_hidden_states = _scale_shift(self.norm2(hidden_states), scale_mlp, shift_mlp)
        hidden_states = torch.addcmul(hidden_states, gate_mlp, self.ff(norm_hidden_states))
        return hidden_states, encoder_hidden_states


class ViLearnAdaLayerNormOut(nn.Module):
    """The last norm, modulated by its own (2, dim) table and the timestep embedding itself (batch, dim)."""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=eps)
        self.scale_shift_table = nn.Parameter(torch.randn(2, dim) / dim**0.5)

    def forward(self, hidden_states: torch.Tensor, embedded_timestep: torch.Tensor) -> torch.Tensor:
        temb = embedded_timestep[:, None].expand(-1, 2, -1)
        shift, scale = _modulation(self.scale_shift_table, temb, hidden_states.dtype)
        return _scale_shift(self.norm(hidden_states), scale, shift)


class ViLearnTransformer3DModel(
    ViLearnModelMixin,
    ConfigMixin,
    PeftAdapterMixin,
    CacheMixin,
    AttentionMixin,
):
    """
    The ViLearn transformer (CVPR 2026): predicts the rectified-flow velocity of shape tokens given image tokens.

    Double-stream blocks attend jointly over image tokens and shape tokens; single-stream blocks after them see shape
    tokens only. The visibility encoding acts on the queries and keys of the double-stream blocks and nowhere else.
    Timesteps enter by adaLN-single (PixArt-alpha): one shared block, and a table per block and stream.

    Args:
        in_channels (`int`, defaults to `64`):
            Channels of a shape token; also the number of output channels.
        num_layers (`int`, defaults to `5`):
            Number of double-stream blocks, at least 1.
        num_single_layers (`int`, defaults to `4`):
            Number of single-stream blocks.
        num_attention_heads (`int`, defaults to `16`):
            Number of attention heads.
        attention_head_dim (`int`, defaults to `96`):
            Channels per head, even; the width of the model is `num_attention_heads * attention_head_dim`.
        joint_attention_dim (`int`, defaults to `1024`):
            Channels of an image token.
        visibility_encoding (`str`, defaults to `"va_rope"`):
            `"va_rope"`: RoPE at two positions, `visible_position` for image tokens and visible shape tokens,
            `invisible_position` for invisible ones. `"va_lpe"`: two learned vectors, shared by all blocks, added to
            queries and keys after their norm. `"va_rope_lpe"`: both, the vectors first. `"rope"`: ordinary RoPE over
            the shape tokens, each at its rank when visible tokens come first (stable; in the given order without a
            mask), image tokens at 0. `"none"`: no encoding.
        visible_position (`float`, defaults to `0`):
            Position m of image tokens and visible shape tokens.
        invisible_position (`float`, defaults to `50`):
            Position n of invisible shape tokens.
        rope_theta (`float`, defaults to `10000.0`):
            Base of the RoPE frequencies `rope_theta ** (-2 * i / attention_head_dim)`.
        qk_norm (`str`, *optional*, defaults to `"rms_norm"`):
            Norm of queries and keys per head: `"rms_norm"` or `None`.
        mlp_ratio (`float`, defaults to `4.0`):
            Width of the GELU feed-forward layers relative to the model's.
        eps (`float`, defaults to `1e-6`):
            Epsilon of all norms.
        visible_fraction (`float`, defaults to `1/3`):
            Mean fraction of visible tokens in the training data, which inference declares visible by default. A
            recorded fact: it changes nothing in here.
        frame (`str`, defaults to `"canonical"`):
            Frame of the generated objects: `"canonical"` (the object's own) or `"view"` (turned about +Y so that the
            condition camera looks at the front). A recorded fact: it changes nothing in here.
    """

    _config_limits = {  # noqa: RUF012
        **dict.fromkeys(("in_channels", "joint_attention_dim"), (1, 8192)),
        "num_layers": (1, 512),
        "num_single_layers": (0, 512),
        "num_attention_heads": (1, 128),
        "attention_head_dim": (2, 256),
        **dict.fromkeys(("visible_position", "invisible_position"), (-1e6, 1e6)),
        "rope_theta": (1.0, 1e9),
        "mlp_ratio": (0.01, 16.0),
        "eps": (0.0, 1.0),
        "visible_fraction": (0.0, 1.0),
    }
    _supports_gradient_checkpointing = True
    _no_split_modules = ["ViLearnTransformerBlock", "ViLearnSingleTransformerBlock"]  # noqa: RUF012
    _repeated_blocks = ["ViLearnTransformerBlock", "ViLearnSingleTransformerBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["adaln_single", "norm"]  # noqa: RUF012
    # The timestep's path is short, and each of its rounding errors reaches every token of every block. diffusers does
    # not load a model with such a list, in whatever dtype, where accelerate is missing.
    _keep_in_fp32_modules = (
        ["adaln_single", "scale_shift_table", "scale_shift_table_context"] if is_accelerate_available() else None
    )
    _cp_plan = {  # noqa: RUF012
        "": {
            "hidden_states": ContextParallelInput(split_dim=1, expected_dims=3),
            "encoder_hidden_states": ContextParallelInput(split_dim=1, expected_dims=3),
            "visible_mask": ContextParallelInput(split_dim=1, expected_dims=2),
        },
        "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
    }

    @register_to_config
    def __init__(
        self,
        in_channels: int = 64,
        num_layers: int = 5,
        num_single_layers: int = 4,
        num_attention_heads: int = 16,
        attention_head_dim: int = 96,
        joint_attention_dim: int = 1024,
        visibility_encoding: str = "va_rope",
        visible_position: float = 0,
        invisible_position: float = 50,
        rope_theta: float = 10000.0,
        qk_norm: str | None = "rms_norm",
        mlp_ratio: float = 4.0,
        eps: float = 1e-6,
        visible_fraction: float = 1 / 3,
        frame: str = "canonical",
    ):
        super().__init__()
        if visibility_encoding not in VISIBILITY_ENCODINGS:
            raise ValueError(f"`visibility_encoding` is {visibility_encoding!r}; it may be {VISIBILITY_ENCODINGS}.")
        if qk_norm not in ("rms_norm", None):
            raise ValueError(f"`qk_norm` is {qk_norm!r}; it may be 'rms_norm' or None.")
        if attention_head_dim % 2 != 0:
            raise ValueError(f"`attention_head_dim` is {attention_head_dim}; RoPE turns pairs, so it must be even.")
        if num_layers < 1:
            raise ValueError(f"`num_layers` is {num_layers}; without a double-stream block no image is seen.")
        if not 0 <= visible_fraction <= 1:
            raise ValueError(f"`visible_fraction` is {visible_fraction}; it must lie in [0, 1].")
        if frame not in ("canonical", "view"):
            raise ValueError(f"`frame` is {frame!r}; it may be 'canonical' or 'view'.")
        inner_dim = num_attention_heads * attention_head_dim

        self.pos_embed = ViLearnVisibilityEmbed(
            num_attention_heads,
            attention_head_dim,
            encoding=visibility_encoding,
            visible_position=visible_position,
            invisible_position=invisible_position,
            rope_theta=rope_theta,
        )
        self.adaln_single = AdaLayerNormSingle(inner_dim)
        self.context_embedder = PixArtAlphaTextProjection(joint_attention_dim, inner_dim)
        self.x_embedder = nn.Linear(in_channels, inner_dim)

        self.transformer_blocks = nn.ModuleList(
            [
                ViLearnTransformerBlock(
                    inner_dim,
                    num_attention_heads,
                    attention_head_dim,
                    mlp_ratio=mlp_ratio,
                    qk_norm=qk_norm,
                    eps=eps,
                    context_pre_only=i == num_layers - 1,
                )
                for i in range(num_layers)
            ]
        )
        self.single_transformer_blocks = nn.ModuleList(
            [
                ViLearnSingleTransformerBlock(
                    inner_dim, num_attention_heads, attention_head_dim, mlp_ratio=mlp_ratio, qk_norm=qk_norm, eps=eps
                )
                for _ in range(num_single_layers)
            ]
        )

        self.norm_out = ViLearnAdaLayerNormOut(inner_dim, eps=eps)
        self.proj_out = nn.Linear(inner_dim, in_channels)

        self.gradient_checkpointing = False
        self._init_weights()

    def _init_weights(self) -> None:
        """DiT's initialisation: Xavier weights, zero biases, small timestep layers and output."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        timestep_embedder = self.adaln_single.emb.timestep_embedder
        for module in (
            timestep_embedder.linear_1,
            timestep_embedder.linear_2,
            self.adaln_single.linear,
            self.proj_out,
        ):
            nn.init.normal_(module.weight, std=0.02)

    def _check_visible_mask(self, visible_mask: torch.Tensor | None, hidden_states: torch.Tensor) -> None:
        if visible_mask is None:
            if self.config.visibility_encoding not in ("none", "rope"):
                raise ValueError(
                    f"`visible_mask` is None, but `visibility_encoding={self.config.visibility_encoding!r}` needs a"
                    " (batch, tokens) mask, bool or float in [0, 1]. At inference, `inference_visible_mask` makes one."
                )
            return
        if visible_mask.shape != hidden_states.shape[:2]:
            raise ValueError(
                f"`visible_mask` has shape {tuple(visible_mask.shape)}; it must be (batch, tokens) ="
                f" {tuple(hidden_states.shape[:2])}."
            )
        if visible_mask.dtype != torch.bool and not visible_mask.is_floating_point():
            raise ValueError(f"`visible_mask` has dtype {visible_mask.dtype}; it must be bool or a float in [0, 1].")

    def _check_parallelism(self) -> None:
        config = self._parallel_config
        if (
            self.config.visibility_encoding == "rope"
            and config is not None
            and config.context_parallel_config is not None
        ):
            raise ValueError("`visibility_encoding='rope'` ranks the whole sequence; context parallelism splits it.")

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        visible_mask: torch.Tensor | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """
        The [`ViLearnTransformer3DModel`] forward method.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch, tokens, in_channels)`):
                Noisy shape tokens, x_σ = (1 − σ)·x₀ + σ·ε.
            encoder_hidden_states (`torch.Tensor` of shape `(batch, image_tokens, joint_attention_dim)`):
                Image tokens: the patch tokens of an image encoder, zeros for the unconditional branch.
            timestep (`torch.Tensor` of shape `(batch,)`):
                The scheduler's timesteps, 1000·σ, in [0, 1000].
            visible_mask (`torch.Tensor` of shape `(batch, tokens)`, *optional*):
                Which shape tokens are visible in the image: bool, or float in [0, 1] for partly visible ones. Required
                unless `visibility_encoding` is `"none"` (which ignores it) or `"rope"` (which then keeps the order).
            attention_kwargs (`dict`, *optional*):
                Passed on to the attention processor; `scale` is the weight of loaded LoRA layers.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`~models.modeling_outputs.Transformer2DModelOutput`] instead of a tuple.

        Returns:
            [`~models.modeling_outputs.Transformer2DModelOutput`] or `tuple`:
                The predicted velocity ε − x₀, `(batch, tokens, in_channels)`, as `sample` or as the first element.
        """
        self._check_parallelism()
        self._check_visible_mask(visible_mask, hidden_states)
        rotary_emb, additive_emb = self.pos_embed(visible_mask, hidden_states.shape[1], hidden_states.device)

        hidden_states = self.x_embedder(hidden_states)
        encoder_hidden_states = self.context_embedder(encoder_hidden_states)
        # The sinusoids are computed in float32: bfloat16 cannot tell 999 from 1000.
        temb, embedded_timestep = self.adaln_single(
            timestep.float(), hidden_dtype=self.adaln_single.linear.weight.dtype
        )
        temb = temb.unflatten(-1, (6, -1))

        for block in self.transformer_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states, encoder_hidden_states = self._gradient_checkpointing_func(
                    block, hidden_states, encoder_hidden_states, temb, rotary_emb, additive_emb, attention_kwargs
                )
            else:
                hidden_states, encoder_hidden_states = block(
                    hidden_states=hidden_states,
                    encoder_hidden_states=encoder_hidden_states,
                    temb=temb,
                    rotary_emb=rotary_emb,
                    additive_emb=additive_emb,
                    attention_kwargs=attention_kwargs,
                )

        for block in self.single_transformer_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states, encoder_hidden_states = self._gradient_checkpointing_func(
                    block, hidden_states, encoder_hidden_states, temb, attention_kwargs
                )
            else:
                hidden_states, encoder_hidden_states = block(
                    hidden_states=hidden_states,
                    encoder_hidden_states=encoder_hidden_states,
                    temb=temb,
                    attention_kwargs=attention_kwargs,
                )

        sample = self.proj_out(self.norm_out(hidden_states, embedded_timestep))
        if not return_dict:
            return (sample,)
        return Transformer2DModelOutput(sample=sample)


def _skip_attention(attn: ViLearnAttention, hidden_states, encoder_hidden_states=None, *_, **__):
    """The input of attention in place of its output, as it would come."""
    if encoder_hidden_states is None or attn.context_pre_only:
        return hidden_states
    return hidden_states, encoder_hidden_states


# Caches (FirstBlockCache and its kin) and guiders that skip layers read where a block returns which stream.
for _block in (ViLearnTransformerBlock, ViLearnSingleTransformerBlock):
    TransformerBlockRegistry.register(
        _block, TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=1)
    )
AttentionProcessorRegistry.register(
    ViLearnAttnProcessor, AttentionProcessorMetadata(skip_processor_output_fn=_skip_attention)
)
