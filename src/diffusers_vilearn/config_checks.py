# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Configurations and weights that anybody may have written: refused by their numbers, before memory is asked for."""

import json
from collections.abc import Callable, Iterable
from numbers import Real
from pathlib import Path

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
    """What `load` (a `load_config` of diffusers) returns, provided that its configuration is a JSON object."""
    try:
        loaded = load(path, *args, **kwargs)
    except RecursionError as error:
        raise ValueError(f"the configuration in {str(path)!r} is nested too deeply.") from error
    config = loaded[0] if isinstance(loaded, tuple) else loaded
    if not isinstance(config, dict):
        raise ValueError(f"the configuration in {str(path)!r} must be a JSON object, but is {type(config).__name__}.")
    return loaded


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
    """`check_limits` for the components of a pipeline's folder that other libraries load."""
    for name, limits in COMPONENT_LIMITS.items():
        path = Path(folder) / name
        if path.is_file():
            config = load_json_object(lambda path: json.loads(path.read_text(encoding="utf-8")), path)
            try:
                check_limits(config, limits)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error


def check_index(index: dict, components: Iterable[str]) -> None:
    """Raise `ValueError` unless `model_index.json` has a library and a class, or two nulls, for each component."""
    for name in sorted(components):
        entry = index.get(name, [None, None])
        kinds = [type(one) for one in entry] if isinstance(entry, (list, tuple)) else None
        if kinds not in ([str, str], [type(None), type(None)]):
            raise ValueError(f"`{name}` in model_index.json must be [library, class], but is {entry!r:.50}.")


def check_weights(paths: Iterable[str | Path]) -> None:
    """Raise `ValueError` for a safetensors file that holds anything but floating-point numbers."""
    for path in map(str, paths):
        if not path.endswith(".safetensors"):
            continue
        with safe_open(path, "pt") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}
        for name, kind in kinds.items():
            if not kind.startswith(("F", "BF")):
                raise ValueError(f"{name} in {path!r} is of {kind}; weights must be floating-point numbers.")
