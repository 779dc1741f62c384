# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The vecset VAEs of Dora, Step1X-3D, Hunyuan3D and TripoSG -> `VecSetVAE`, weights and configuration.

All descend from 3DShape2VecSet and Michelangelo. What differs: the names of their parameters; fused projections, whose
rows are ordered (heads, q/k/v, head_dim); TripoSG's negated output; and what weights cannot tell, such as the number
of heads, which `VAE_SOURCES` holds.
"""

import inspect
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..config_checks import check_limits
from ..models.autoencoder_vecset import VecSetVAE


@dataclass(frozen=True)
class VAESource:
    """How one project stores its VAE.

    Args:
        layout (`str`): `michelangelo` or `triposg`, which names the parameters have.
        config (`dict`): what the weights do not tell, as published by the project.
        sharp_suffix (`str`, *optional*): of the parameters of the second cloud.
        geometry (`str`): prefix of the geometry head.
    """

    layout: str
    config: dict = field(default_factory=dict)
    sharp_suffix: str | None = None
    geometry: str = "decoder"


_DORA = {"encoder_heads": 12, "decoder_heads": 12, "num_tokens": 2048, "bounds": 1.05, "truncation": 0.015}
_HUNYUAN = {
    "encoder_heads": 16,
    "decoder_heads": 16,
    "sharp_flag": True,
    "point_channels": 7,
    "norm_eps": 1e-6,
    "bounds": 1.01,
}
_HUNYUAN_2 = VAESource(
    "michelangelo", _HUNYUAN | {"num_tokens": 3072, "scaling_factor": 0.9990943042622529}, geometry="geo_decoder"
)
VAE_SOURCES = {
    "dora": VAESource("michelangelo", _DORA, sharp_suffix="1"),
    "step1x-3d": VAESource("michelangelo", _DORA | {"truncation": 0.01}, sharp_suffix="_sharp"),
    "triposg": VAESource("triposg", {"encoder_heads": 8, "decoder_heads": 8, "num_tokens": 2048, "bounds": 1.005}),
    "hunyuan3d-2": _HUNYUAN_2,
    "hunyuan3d-2-turbo": _HUNYUAN_2,
    "hunyuan3d-2.1": VAESource(
        "michelangelo", _HUNYUAN | {"num_tokens": 4096, "scaling_factor": 1.0039506158752403}, geometry="geo_decoder"
    ),
}
# Names that the projects' own configurations use.
_ALIASES = {"heads_encoder": "encoder_heads", "heads_decoder": "decoder_heads", "geo_heads": "geometry_heads"}
# A parameter that every layout has, and only once: what stands before it is the checkpoint's prefix.
_LANDMARKS = {"michelangelo": "post_kl.weight", "triposg": "post_quant.weight"}
# What Hunyuan3D stores beside the parameters of its VAE, which then begin with `vae.`
_BUNDLED = ("model.", "conditioner.")


class _Renamer:
    """Takes parameters out of a checkpoint one by one under their new names; in the end none may be left."""

    def __init__(self, state_dict: dict[str, torch.Tensor]):
        self.left = dict(state_dict)
        self.missing: list[str] = []
        self.renamed: dict[str, torch.Tensor] = {}

    def take(self, name: str) -> torch.Tensor | None:
        if name not in self.left:
            self.missing.append(name)
        return self.left.pop(name, None)

    def move(self, new: str, old: str, kinds: tuple[str, ...] = ("weight", "bias")) -> None:
        """A layer as it is."""
        for kind in kinds:
            self.store(f"{new}.{kind}", self.take(f"{old}.{kind}"))

    def store(self, name: str, tensor: torch.Tensor | None) -> None:
        if tensor is not None:
            self.renamed[name] = tensor.contiguous()

    def split(self, new: list[str], fused: torch.Tensor | None, heads: int, kind: str = "weight") -> None:
        """Rows (heads, len(new), head_dim) of a fused projection -> one projection each."""
        if fused is None:
            return
        if len(fused) % (heads * len(new)):
            raise ValueError(f"{len(fused)} rows of {new[0]} and its kin cannot be shared by {heads} heads.")
        parts = fused.reshape(heads, len(new), -1, *fused.shape[1:]).unbind(1)
        for name, part in zip(new, parts):
            self.store(f"{name}.{kind}", part.flatten(0, 1))

    def finish(self, source: str) -> dict[str, torch.Tensor]:
        if self.missing or self.left:
            raise ValueError(
                f"The state dict is not that of a {source} VAE: it lacks {_few(self.missing)} and has the unknown"
                f" {_few(sorted(self.left))}."
            )
        return self.renamed


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "nothing"
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def convert_vae_state_dict(
    state_dict: dict[str, torch.Tensor], source: str, **overrides
) -> tuple[dict, dict[str, torch.Tensor]]:
    """
    Args:
        state_dict (`dict[str, torch.Tensor]`):
            Parameters as the project stores them, with or without a common prefix. Those of the encoder may be absent
            altogether; the result is then a VAE that only decodes.
        source (`str`): A key of `VAE_SOURCES`.
        overrides:
            Entries of the configuration of `VecSetVAE` that differ from what the project published, such as
            `encoder_heads` (or `heads_encoder`) of a VAE of another size.

    Returns:
        `tuple[dict, dict[str, torch.Tensor]]`: `VecSetVAE.from_config(config)` loads the state dict strictly.

    Raises:
        ValueError: If the source or an override is unknown, or a parameter is missing or unknown. A wrong shape shows
            when the state dict is loaded.
    """
    if source not in VAE_SOURCES:
        raise ValueError(f"`source` is {source!r}; it may be {', '.join(VAE_SOURCES)}.")
    overrides = {_ALIASES.get(name, name): value for name, value in overrides.items()}
    known = list(inspect.signature(VecSetVAE.__init__).parameters)[1:]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} cannot be overridden; the configuration has {', '.join(known)}.")
    layout = VAE_SOURCES[source]
    state_dict = _without_prefix(state_dict, _LANDMARKS[layout.layout], source)
    for name, value in state_dict.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise ValueError(f"{name} is no tensor of floating-point numbers.")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{name} claims the shape {tuple(value.shape)}, of which its file holds only a part.")
    names = _michelangelo_names(layout) if layout.layout == "michelangelo" else _triposg_names(state_dict)
    config = layout.config | _read_config(state_dict, names) | overrides
    check_limits(config, VecSetVAE._config_limits)
    config.setdefault("geometry_heads", _geometry_heads(config))
    renamer = _Renamer(state_dict)
    convert = _convert_michelangelo if layout.layout == "michelangelo" else _convert_triposg
    convert(renamer, config, names)
    return config, renamer.finish(source)


def _without_prefix(state_dict: dict[str, torch.Tensor], landmark: str, source: str) -> dict[str, torch.Tensor]:
    found = [name for name in state_dict if name == landmark or name.endswith(f".{landmark}")]
    if len(found) != 1:
        raise ValueError(f"The state dict is not that of a {source} VAE: {len(found)} parameters end in {landmark}.")
    prefix = found[0].removesuffix(landmark)
    if prefix == "vae.":
        state_dict = {name: value for name, value in state_dict.items() if not name.startswith(_BUNDLED)}
    return {name.removeprefix(prefix): value for name, value in state_dict.items()}


@dataclass(frozen=True)
class _Names:
    """What a layout calls the layers that the configuration is read from."""

    proj_in: str
    proj_in_sharp: str | None
    post_quant: str
    proj_query: str
    proj_latents: str
    geometry_norm_out: str
    geometry_block: str
    first_linear: str
    encoder_blocks: str
    decoder_blocks: str
    num_leading_blocks: int = 0
    num_trailing_blocks: int = 0
    geometry: str = "decoder"
    sharp_suffix: str | None = None


def _michelangelo_names(source: VAESource) -> _Names:
    suffix, geometry = source.sharp_suffix, source.geometry
    return _Names(
        proj_in="encoder.input_proj",
        proj_in_sharp=None if suffix is None else f"encoder.input_proj{suffix}",
        post_quant="post_kl",
        proj_query=f"{geometry}.query_proj",
        proj_latents=f"{geometry}.latents_proj",
        geometry_norm_out=f"{geometry}.ln_post",
        geometry_block=f"{geometry}.cross_attn_decoder",
        first_linear="mlp.c_fc",
        encoder_blocks="encoder.self_attn.resblocks",
        decoder_blocks="transformer.resblocks",
        geometry=geometry,
        sharp_suffix=suffix,
    )


def _triposg_names(state_dict: dict[str, torch.Tensor]) -> _Names:
    # The last block of the decoder is the cross-attention of the geometry head, the first of the encoder its own.
    num_blocks = _count_blocks(state_dict, "decoder.blocks")
    return _Names(
        proj_in="encoder.proj_in",
        proj_in_sharp=None,
        post_quant="post_quant",
        proj_query="decoder.proj_query",
        proj_latents="decoder.proj_latents",
        geometry_norm_out="decoder.norm_out",
        geometry_block=f"decoder.blocks.{num_blocks - 1}",
        first_linear="ff.net.0.proj",
        encoder_blocks="encoder.blocks",
        decoder_blocks="decoder.blocks",
        num_leading_blocks=1,
        num_trailing_blocks=1,
    )


def _count_blocks(state_dict: dict[str, torch.Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return len({match[1] for name in state_dict if (match := pattern.match(name))})


def _read_config(state_dict: dict[str, torch.Tensor], names: _Names) -> dict:
    """The configuration as far as the shapes of the weights tell it."""

    def shape(name: str) -> tuple[int, int]:
        tensor = state_dict.get(f"{name}.weight")
        if tensor is None or tensor.ndim != 2 or 0 in tensor.shape:
            raise ValueError(f"The state dict has no matrix {name}.weight.")
        return tuple(tensor.shape)

    decoder_width, latent_channels = shape(names.post_quant)
    geometry_width, embedding = shape(names.proj_query)
    if embedding % 6 != 3:
        raise ValueError(f"{names.proj_query} reads {embedding} channels, which is no Fourier embedding of positions.")
    config = {
        "latent_channels": latent_channels,
        "num_freqs": (embedding - 3) // 6,
        "decoder_width": decoder_width,
        "num_decoder_layers": _count_blocks(state_dict, names.decoder_blocks) - names.num_trailing_blocks,
        "geometry_width": geometry_width,
        "geometry_mlp_ratio": shape(f"{names.geometry_block}.{names.first_linear}")[0] / geometry_width,
        "geometry_norm_out": f"{names.geometry_norm_out}.weight" in state_dict,
        "geometry_qk_norm": f"{names.geometry_block}.attn.attention.q_norm.weight" in state_dict,
        "geometry_latents_proj": f"{names.proj_latents}.weight" in state_dict,
        "qk_norm": f"{names.decoder_blocks}.0.attn.attention.q_norm.weight" in state_dict,
        "has_encoder": f"{names.proj_in}.weight" in state_dict,
    }
    if config["num_decoder_layers"] > 0:
        config["mlp_ratio"] = shape(f"{names.decoder_blocks}.0.{names.first_linear}")[0] / decoder_width
    if config["has_encoder"]:
        config["encoder_width"], channels = shape(names.proj_in)
        config["point_channels"] = channels - embedding + 3
        config["num_encoder_layers"] = _count_blocks(state_dict, names.encoder_blocks) - names.num_leading_blocks
        config["dual_cross_attention"] = names.proj_in_sharp is not None
    return config


def _geometry_heads(config: dict) -> int:
    """The geometry head has heads as wide as the decoder's."""
    return config["geometry_width"] * config["decoder_heads"] // config["decoder_width"]


def _convert_michelangelo(renamer: _Renamer, config: dict, names: _Names) -> None:
    def block(new: str, old: str, heads: int, is_cross: bool, qk_norm: bool) -> None:
        attention = f"{new}.attn"
        if is_cross:
            renamer.move(f"{attention}.to_q", f"{old}.attn.c_q", ("weight",))
            fused = renamer.take(f"{old}.attn.c_kv.weight")
            renamer.split([f"{attention}.to_k", f"{attention}.to_v"], fused, heads)
        else:
            fused = renamer.take(f"{old}.attn.c_qkv.weight")
            renamer.split([f"{attention}.to_{kind}" for kind in "qkv"], fused, heads)
        if qk_norm:
            renamer.move(f"{attention}.norm_q", f"{old}.attn.attention.q_norm")
            renamer.move(f"{attention}.norm_k", f"{old}.attn.attention.k_norm")
        norms = ("norm1", "norm_context", "norm2") if is_cross else ("norm1", "norm2")
        for number, norm in enumerate(norms, start=1):
            renamer.move(f"{new}.{norm}", f"{old}.ln_{number}")
        renamer.move(f"{attention}.to_out.0", f"{old}.attn.c_proj")
        renamer.move(f"{new}.ff.net.0.proj", f"{old}.mlp.c_fc")
        renamer.move(f"{new}.ff.net.2", f"{old}.mlp.c_proj")

    if config["has_encoder"]:
        heads, qk_norm = config["encoder_heads"], config["qk_norm"]
        clouds = {"": ""} if names.sharp_suffix is None else {"": "", "_sharp": names.sharp_suffix}
        for new, old in clouds.items():
            renamer.move(f"encoder.proj_in{new}", f"encoder.input_proj{old}")
            block(f"encoder.cross_block{new}", f"encoder.cross_attn{old}", heads, True, qk_norm)
        for layer in range(config["num_encoder_layers"]):
            block(f"encoder.blocks.{layer}", f"{names.encoder_blocks}.{layer}", heads, False, qk_norm)
        renamer.move("encoder.norm_out", "encoder.ln_post")
        renamer.move("quant", "pre_kl")
    renamer.move("post_quant", names.post_quant)
    for layer in range(config["num_decoder_layers"]):
        old = f"{names.decoder_blocks}.{layer}"
        block(f"decoder.blocks.{layer}", old, config["decoder_heads"], False, config["qk_norm"])
    renamer.move("geometry.proj_query", names.proj_query)
    if config["geometry_latents_proj"]:
        renamer.move("geometry.proj_latents", names.proj_latents)
    heads, qk_norm = config["geometry_heads"], config["geometry_qk_norm"]
    block("geometry.cross_block", names.geometry_block, heads, True, qk_norm)
    if config["geometry_norm_out"]:
        renamer.move("geometry.norm_out", names.geometry_norm_out)
    renamer.move("geometry.proj_out", f"{names.geometry}.output_proj")


def _convert_triposg(renamer: _Renamer, config: dict, names: _Names) -> None:
    def block(new: str, old: str, heads: int, is_cross: bool) -> None:
        # `to_q`, `to_k` and `to_v` are the thirds of one fused matrix, not the projections that their names promise.
        attention = f"{old}.attn2" if is_cross else f"{old}.attn1"
        if is_cross:
            renamer.move(f"{new}.attn.to_q", f"{attention}.to_q", ("weight",))
        kinds = "kv" if is_cross else "qkv"
        slices = [renamer.take(f"{attention}.to_{kind}.weight") for kind in kinds]
        if all(part is not None for part in slices):
            renamer.split([f"{new}.attn.to_{kind}" for kind in kinds], torch.cat(slices), heads)
        renamer.move(f"{new}.norm1", f"{old}.norm2" if is_cross else f"{old}.norm1")
        if is_cross:
            renamer.move(f"{new}.norm_context", f"{attention}.norm_cross")
        renamer.move(f"{new}.norm2", f"{old}.norm3")
        renamer.move(f"{new}.attn.to_out.0", f"{attention}.to_out.0")
        renamer.move(f"{new}.ff.net.0.proj", f"{old}.ff.net.0.proj")
        renamer.move(f"{new}.ff.net.2", f"{old}.ff.net.2")

    if config["has_encoder"]:
        renamer.move("encoder.proj_in", "encoder.proj_in")
        block("encoder.cross_block", "encoder.blocks.0", config["encoder_heads"], True)
        for layer in range(config["num_encoder_layers"]):
            block(f"encoder.blocks.{layer}", f"encoder.blocks.{layer + 1}", config["encoder_heads"], False)
        renamer.move("encoder.norm_out", "encoder.norm_out")
        renamer.move("quant", "quant")
    renamer.move("post_quant", "post_quant")
    for layer in range(config["num_decoder_layers"]):
        block(f"decoder.blocks.{layer}", f"decoder.blocks.{layer}", config["decoder_heads"], False)
    renamer.move("geometry.proj_query", "decoder.proj_query")
    block("geometry.cross_block", names.geometry_block, config["geometry_heads"], True)
    renamer.move("geometry.norm_out", "decoder.norm_out")
    for kind in ("weight", "bias"):
        value = renamer.take(f"decoder.proj_out.{kind}")
        # TripoSG multiplies its field by -1 after the last layer.
        renamer.store(f"geometry.proj_out.{kind}", None if value is None else -value)


def convert_vae_checkpoint(path: str | Path, source: str, **overrides) -> VecSetVAE:
    """The `VecSetVAE` of a checkpoint file, see `convert_vae_state_dict`.

    Args:
        path (`str` or `Path`): a safetensors file; a torch file, of which only tensors are read; or a folder with one
            `diffusion_pytorch_model.safetensors`.
    """
    config, state_dict = convert_vae_state_dict(_read_tensors(Path(path), source), source, **overrides)
    vae = VecSetVAE.from_config(config)
    try:
        vae.load_state_dict(state_dict)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the configuration {config}: {error}") from error
    return vae.eval()


def _read_tensors(path: Path, source: str) -> dict[str, torch.Tensor]:
    if path.is_dir():
        path = path / "diffusion_pytorch_model.safetensors"
    if not path.is_file():
        raise ValueError(f"There is no checkpoint {str(path)!r}.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{str(path)!r} is no whole safetensors file: {error}") from error
    try:
        # mapped, so that a file which claims more than it holds costs nothing
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as tensors alone: {error}") from error
    # Lightning nests its parameters in "state_dict", Hunyuan3D those of the VAE in "vae".
    for name in ("state_dict", "vae", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} holds a {type(content).__name__}; a {source} VAE is a dictionary of tensors.")
    return content
