# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The models of a transformer run: the frozen ones, and the one that is trained, new or taken up again."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from diffusers import FlowMatchEulerDiscreteScheduler
from peft import LoraConfig
from transformers import AutoImageProcessor, BaseImageProcessor, Dinov2Model

from ..data.image_encoders import load_image_encoder
from ..data.latents import at_image_size, fingerprint, load_vae
from ..models import VecSetVAE, ViLearnTransformer3DModel

# The attention layers of both kinds of blocks.
LORA_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


@dataclass
class FrozenModels:
    """What makes latents and image tokens, and is not trained.

    Args:
        vae (`VecSetVAE`), image_encoder (`Dinov2Model`): in evaluation mode, without gradients.
        processor (`BaseImageProcessor`): of the image encoder.
    """

    vae: VecSetVAE
    image_encoder: Dinov2Model
    processor: BaseImageProcessor

    @property
    def image_size(self) -> int:
        """Side of the condition image in pixels by default."""
        return self.processor.crop_size["height"]

    def image_processor(self, image_size: int) -> BaseImageProcessor:
        """The processor for another size of the condition image."""
        return at_image_size(self.processor, image_size)

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> "FrozenModels":
        """Those that `--vae` and `--image_encoder` name, or else those of `--pretrained_model_name_or_path`."""
        whole = args.pretrained_model_name_or_path
        if whole is None and (args.vae is None or args.image_encoder is None):
            raise ValueError("Without `--pretrained_model_name_or_path`, `--vae` and `--image_encoder` are needed.")
        common = {"cache_dir": args.cache_dir}
        part = {**common, "revision": args.revision}
        if args.vae is not None:
            vae = load_vae(args.vae, **common)
        else:
            vae = load_vae(whole, subfolder="vae", variant=args.variant, **part)
        if args.image_encoder is not None:
            image_encoder = load_image_encoder(args.image_encoder, **common)
            processor = AutoImageProcessor.from_pretrained(args.image_encoder, **common)
        else:
            image_encoder = load_image_encoder(whole, subfolder="image_encoder", variant=args.variant, **part)
            processor = AutoImageProcessor.from_pretrained(whole, subfolder="feature_extractor", **part)
        return cls(vae.requires_grad_(False).eval(), image_encoder.requires_grad_(False), processor)


def adopt_schedule(args: argparse.Namespace) -> None:
    """Set the timestep shift and the sampling that the arguments leave open: to those of the pipeline that is taken
    up, or else to a shift of 1 and no new noise at inference.

    Raises:
        ValueError: that pipeline's schedule cannot be told by a shift.
    """
    config = FlowMatchEulerDiscreteScheduler().config
    whole = args.pretrained_model_name_or_path
    if whole is not None:
        config = FlowMatchEulerDiscreteScheduler.load_config(
            whole, subfolder="scheduler", revision=args.revision, cache_dir=args.cache_dir
        )
        name = config["_class_name"] + (" of dynamic shift" if config.get("use_dynamic_shifting") else "")
        if name != FlowMatchEulerDiscreteScheduler.__name__ and args.timestep_shift is None:
            raise ValueError(
                f"The scheduler of {whole} is {name}, whose schedule training cannot adopt. Give `--timestep_shift`:"
                " the result has a FlowMatchEulerDiscreteScheduler of that shift."
            )
    if args.timestep_shift is None:
        args.timestep_shift = config.get("shift", 1.0)
    if args.stochastic_sampling is None:
        args.stochastic_sampling = config.get("stochastic_sampling", False)


def chosen_configuration(args: argparse.Namespace) -> dict:
    """What the arguments say of the transformer's configuration, of a new one and of one that is taken up alike."""
    return _given(args, "visibility_encoding", "visible_position", "invisible_position")


def chosen_parts(args: argparse.Namespace) -> dict:
    """What the arguments say of the rest of the pipeline."""
    return _given(args, "vae", "image_encoder", "timestep_shift", "stochastic_sampling")


def _given(args: argparse.Namespace, *names: str) -> dict:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def make_transformer(
    args: argparse.Namespace,
    models: FrozenModels,
    *,
    frame: str,
    visible_fraction: float,
    dtype: torch.dtype = torch.float32,
) -> ViLearnTransformer3DModel:
    """A new transformer, or that of `--pretrained_model_name_or_path`, for latents of a frame.

    Args:
        args: of `train_vilearn.py`.
        models (`FrozenModels`): of the run.
        frame (`str`), visible_fraction (`float`): of the latents. LoRA layers leave the fraction of their base.
        dtype (`torch.dtype`): of a transformer that is taken up, but for what it keeps in float32.

    Raises:
        ValueError: there is neither a configuration nor a checkpoint; or the checkpoint does not fit the latents.
    """
    chosen = chosen_configuration(args)
    if args.pretrained_model_name_or_path is not None:
        measured = {"visible_fraction": visible_fraction} if args.rank is None else {}
        return _take_up(args, models, frame, dtype, chosen | measured)
    # The command line wins over the file of `--config`, where `transformer` stands.
    if not isinstance(args.transformer, dict | None):
        raise ValueError(f"`transformer` in the `--config` file must map names to values, not {args.transformer!r}.")
    given = args.transformer is None or args.transformer_config is not None
    config = _read_config(args.transformer_config) if given else args.transformer
    config = {
        **config,
        **chosen,
        "in_channels": models.vae.config.latent_channels,
        "joint_attention_dim": models.image_encoder.config.hidden_size,
        "visible_fraction": visible_fraction,
        "frame": frame,
    }
    try:
        transformer = ViLearnTransformer3DModel(**config)
    except TypeError as error:
        raise ValueError(f"The configuration is not one of a ViLearnTransformer3DModel: {error}.") from error
    # Some encodings draw weights of their own first. Runs that differ in the encoding start from the same others.
    torch.manual_seed(args.seed)
    others = ViLearnTransformer3DModel(**{**config, "visibility_encoding": "none"})
    transformer.load_state_dict(others.state_dict(), strict=False)
    return transformer


def _take_up(args, models: FrozenModels, frame: str, dtype: torch.dtype, chosen: dict) -> ViLearnTransformer3DModel:
    if args.transformer is not None or args.transformer_config is not None:
        raise ValueError(
            "`--pretrained_model_name_or_path` brings its own configuration; `--transformer_config` is for new models."
        )
    transformer = ViLearnTransformer3DModel.from_pretrained(
        args.pretrained_model_name_or_path,
        subfolder="transformer",
        revision=args.revision,
        variant=args.variant,
        cache_dir=args.cache_dir,
        dtype=dtype,
        **chosen,
    )
    config = transformer.config
    for name, has, needs in (
        ("in_channels", config.in_channels, models.vae.config.latent_channels),
        ("joint_attention_dim", config.joint_attention_dim, models.image_encoder.config.hidden_size),
        ("frame", config.frame, frame),
    ):
        if has != needs:
            raise ValueError(
                f"The transformer of {args.pretrained_model_name_or_path} has `{name}={has!r}`, but the data and its"
                f" models need {needs!r}."
            )
    if args.vae is not None:
        _check_normalisation(args, models.vae)
    return transformer


def _check_normalisation(args: argparse.Namespace, vae: VecSetVAE) -> None:
    """Refuse a VAE that is that of the pipeline that is taken up, but for the normalisation of its latents."""
    whole = args.pretrained_model_name_or_path
    known = load_vae(whole, subfolder="vae", variant=args.variant, revision=args.revision, cache_dir=args.cache_dir)
    names = ("shift_factor", "scaling_factor")
    if any(known.config[name] != vae.config[name] for name in names) and fingerprint(known) == fingerprint(vae):
        raise ValueError(
            f"`--vae` {args.vae} has the weights of the VAE of {whole}, but other {' and '.join(names)}, by which the"
            " transformer's latents are normalised; leave out `--vae`."
        )


def _read_config(path: str | None) -> dict:
    """A JSON or YAML file."""
    if path is None:
        raise ValueError(
            "A new transformer needs `--transformer_config`, or `transformer` in the file of `--config`; to finetune,"
            " pass `--pretrained_model_name_or_path`."
        )
    text = Path(path).read_text(encoding="utf-8")
    config = json.loads(text) if Path(path).suffix == ".json" else yaml.safe_load(text)
    if not isinstance(config, dict):
        raise ValueError(f"{path} must map names of arguments to values, but is a {type(config).__name__}.")
    return config


def add_lora(transformer: ViLearnTransformer3DModel, rank: int, alpha: int | None) -> None:
    """Freeze the transformer and add LoRA layers to its attention, the only ones that are trained."""
    transformer.requires_grad_(False)
    names = {name for name, _ in transformer.named_modules()}
    layers = [layer for layer in LORA_LAYERS if any(name.endswith(f".{layer}") for name in names)]
    transformer.add_adapter(
        LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights="gaussian", target_modules=layers)
    )
