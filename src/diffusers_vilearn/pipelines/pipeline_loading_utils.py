# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What the pipelines have beyond diffusers' `DiffusionPipeline`: loading that checks, publishing with a card."""

from pathlib import Path

from diffusers import DiffusionPipeline

from ..config_checks import check_component_configs, check_index, load_json_object
from ..data.image_encoders import check_image_encoder_weights
from ..hub import ModelCardMixin


class ViLearnDiffusionPipeline(DiffusionPipeline, ModelCardMixin):
    """`DiffusionPipeline` that refuses an index, a component's configuration out of range, or an image encoder that is
    not whole, before it loads any."""

    @classmethod
    def load_config(cls, pretrained_model_name_or_path, *args, **kwargs):
        loaded = load_json_object(super().load_config, pretrained_model_name_or_path, *args, **kwargs)
        check_index(loaded[0] if isinstance(loaded, tuple) else loaded, cls._get_signature_keys(cls)[0])
        check_component_configs(pretrained_model_name_or_path)
        check_image_encoder_weights(Path(pretrained_model_name_or_path, "image_encoder"))
        return loaded
