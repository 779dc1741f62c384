# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Configurations and weights that anybody may have written: refused by their numbers, before memory is asked for."""

import json
from collections.abc import Callable, Iterable
from numbers import Real
from pathlib import Path

import torch
from diffusers.models.model_loading_utils import load_state_dict
from safetensors import safe_open

Limits = dict[str, tuple[float, float]]

# Of components whose classes are those of transformers and diffusers.
COMPONENT_LIMITS: dict[str, Limits] = {
    "image_encoder/config.json": {
        "hidden_size": (1, 8192),
        "num_hidden_layers": (1, 512),
        "num_attention_heads": (1, 512),
        "mlp_ratio": (0.01, 16.0),
        "image_size": (1, 8192),
        "patch_size": (1, 512),
        "num_channels": (1, 16),
    },
    "scheduler/scheduler_config.json": {"num_train_timesteps": (1, 100_000)},
    "feature_extractor/preprocessor_config.json": {"crop_size": (1, 8192), "size": (1, 8192)},
}


def load_json_object(load: Callable, path: str | Path, *args, **kwargs):
    """What `load` (a `load_config` of diffusers) returns, provided that its configuration is a JSON object.

    Raises:
        `ValueError`: If it is none, or names its class by anything but text, or by [module, class] in an index.
    """
    try:
        loaded = load(path, *args, **kwargs)
    except RecursionError as error:
        raise ValueError(f"the configuration in {str(path)!r} is nested too deeply.") from error
    config = loaded[0] if isinstance(loaded, tuple) else loaded
    if not isinstance(config, dict):
        raise ValueError(f"the configuration in {str(path)!r} must be a JSON object, but is {type(config).__name__}.")
    class_name = config.get("_class_name", "")
    if not isinstance(class_name, str) and not _is_pair_of_text(class_name):
        raise ValueError(
            f"`_class_name` of the configuration in {str(path)!r} must be a string, or [module, class] where the"
            f" module comes with it, but is {class_name!r:.50}."
        )
    return loaded


def _is_pair_of_text(value) -> bool:
    return isinstance(value, (list, tuple)) and [type(one) for one in value] == [str, str]


def check_limits(config: dict, limits: Limits) -> None:
    """Raise `ValueError` for an entry of `config` that is no number within its limits, both included.

    Where both limits are integers, the entry must be one. Every number of a list or an object counts; None and
    absence are fine.
    """
    for name, (low, high) in limits.items():
        entry = config.get(name)
        values = list(entry.values()) if isinstance(entry, dict) else entry
        for value in values if isinstance(values, (list, tuple)) else [values]:
            if value is None:
                continue
            whole = isinstance(low, int) and isinstance(high, int)
            is_number = isinstance(value, int if whole else Real) and not isinstance(value, bool)
            # written so that NaN fails it
            if not (is_number and low <= value <= high):
                kind = "an integer" if whole else "a number"
                raise ValueError(f"`{name}` is {value!r:.50}; it must be {kind} in [{low}, {high}].")


def check_component_configs(folder: str | Path) -> None:
    """`check_limits` and `check_shard_indices` for the components of a pipeline's folder that other libraries load."""
    for name, limits in COMPONENT_LIMITS.items():
        path = Path(folder) / name
        if path.is_file():
            config = load_json_object(lambda path: json.loads(path.read_text(encoding="utf-8")), path)
            try:
                check_limits(config, limits)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            check_shard_indices(path.parent)


def check_index(index: dict, components: Iterable[str]) -> None:
    """Raise `ValueError` unless `model_index.json` has a library and a class, or two nulls, for each component."""
    for name in sorted(components):
        entry = index.get(name, [None, None])
        if not _is_pair_of_text(entry) and entry not in ([None, None], (None, None)):
            raise ValueError(f"`{name}` in model_index.json must be [library, class], but is {entry!r:.50}.")


def check_shard_indices(folder: str | Path) -> None:
    """Raise `ValueError` for an index of shards in `folder` that does not map weights to files beside it."""
    for path in sorted(Path(folder).glob("*.index*.json")):
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{str(path)!r} is no readable JSON: {error}") from error
        if not isinstance(index, dict):
            raise ValueError(f"{str(path)!r} must be a JSON object, but is {type(index).__name__}.")
        for name in ("metadata", "weight_map"):
            if not isinstance(index.get(name), dict):
                raise ValueError(f"`{name}` in {str(path)!r} must be a JSON object, but is {index.get(name)!r:.50}.")
        for weight, file in index["weight_map"].items():
            if not isinstance(file, str) or not file or Path(file).name != file:
                raise ValueError(
                    f"`{weight}` in the `weight_map` of {str(path)!r} must be the name of a file beside it, without a"
                    f" path separator, but is {file!r:.50}."
                )


def check_weights(paths: Iterable[str | Path]) -> set[str]:
    """The names of the weights of safetensors and torch files; `ValueError` for any that are no floating-point
    numbers."""
    names = set()
    for path in map(str, paths):
        kinds = _kinds_of_weights(path)
        for name, kind in kinds.items():
            if not kind.startswith(("F", "BF", "torch.float", "torch.bfloat")):
                raise ValueError(f"{name} in {path!r} is of {kind}; weights must be floating-point numbers.")
        names.update(kinds)
    return names


def _kinds_of_weights(path: str) -> dict[str, str]:
    """Weight -> name of its type, without reading it, of a safetensors or torch file; nothing of other files."""
    if path.endswith(".safetensors"):
        with safe_open(path, "pt") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}
    if path.endswith(".bin"):
        weights = load_state_dict(path, map_location="meta")
        return {name: str(weight.dtype) for name, weight in weights.items() if isinstance(weight, torch.Tensor)}
    return {}
