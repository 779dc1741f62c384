# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Model cards for checkpoints."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData


def write_model_card(folder: str | Path, template: str | Path, **facts) -> Path:
    """Render a card template into `README.md` of a checkpoint folder.

    Args:
        folder (`str` or `Path`): the checkpoint.
        template (`str` or `Path`): a Jinja template, such as `model_cards/tiny.md`.
        facts: what the template asks for.
    """
    data = ModelCardData(
        license="apache-2.0",
        library_name="diffusers",
        pipeline_tag="image-to-3d",
        tags=["diffusers-vilearn", "vilearn", "image-to-3d", "mesh"],
    )
    path = Path(folder) / "README.md"
    ModelCard.from_template(data, template_path=str(template), **facts).save(path)
    return path
