# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What both networks have beyond diffusers' `ModelMixin`: loading that checks, publishing with a card."""

from json import JSONDecodeError

from diffusers.models.modeling_utils import ModelMixin

from ..config_checks import Limits, check_limits, check_shard_indices, check_weights, load_json_object
from ..hub import ModelCardMixin, folder_of_model


class ViLearnModelMixin(ModelMixin, ModelCardMixin):
    """`ModelMixin` that refuses configurations out of range and checkpoints with missing or non-float weights.

    Subclasses list the lowest and highest value of their arguments in `_config_limits`.
    """

    _config_limits: Limits = {}  # noqa: RUF012

    @classmethod
    def load_config(cls, pretrained_model_name_or_path, *args, **kwargs):
        return load_json_object(super().load_config, pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_config(cls, config=None, *args, **kwargs):
        if isinstance(config, dict):
            check_limits({**config, **kwargs}, cls._config_limits)
        return super().from_config(config, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, output_loading_info=False, **kwargs):
        """As diffusers', but a checkpoint that lacks weights is an error, unless `ignore_mismatched_sizes` is set."""
        try:
            model, info = super().from_pretrained(pretrained_model_name_or_path, output_loading_info=True, **kwargs)
        except (AttributeError, JSONDecodeError, KeyError, RecursionError, TypeError):
            # diffusers takes an index of shards as it comes: if that was the reason, say so
            if folder := folder_of_model(pretrained_model_name_or_path, **kwargs):
                check_shard_indices(folder)
            raise
        # empty for files of flashpack, which hold all weights in one piece
        missing = sorted(info.get("missing_keys", ()))
        if missing and not kwargs.get("ignore_mismatched_sizes"):
            few = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise ValueError(f"the weights of {str(pretrained_model_name_or_path)!r} lack {few} of {cls.__name__}.")
        return (model, info) if output_loading_info else model

    @classmethod
    def _load_pretrained_model(cls, model, state_dict, resolved_model_file, *args, hf_quantizer=None, **kwargs):
        # diffusers would turn integers into floating-point numbers; quantised weights are meant to be integers
        if hf_quantizer is None:
            check_weights(resolved_model_file or ())
        return super()._load_pretrained_model(
            model, state_dict, resolved_model_file, *args, hf_quantizer=hf_quantizer, **kwargs
        )
