# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The latents tables of a run: what they were made with, and which objects are kept for validation."""

import json
from pathlib import Path

import datasets
import numpy as np
from huggingface_hub import hf_hub_download

from ..data.latents import fingerprint
from ..data.records import uid_key
from ..errors import named_if_absent
from ..files import LATENTS_FILE


def read_metadata(dataset: str, table: str, cache_dir: str | None = None) -> dict:
    """What a latents table was made with.

    Args:
        dataset (`str`): folder or Hub id of a prepared dataset.
        table (`str`): name of the table.
        cache_dir (`str`, *optional*): of what comes from the Hub.
    """
    if not Path(dataset).is_dir():
        with named_if_absent("dataset", dataset):
            path = hf_hub_download(dataset, LATENTS_FILE, subfolder=table, repo_type="dataset", cache_dir=cache_dir)
        path = Path(path)
    else:
        path = Path(dataset) / table / LATENTS_FILE
    if not path.exists():
        raise ValueError(f"{dataset} has no latents table {table!r} ({path} is missing); `prepare latents` writes it.")
    return json.loads(path.read_text())


def check_metadata(metadata: dict, where: str, *, vae, image_encoder, num_tokens: int | None, image_size: int) -> None:
    """Refuse a table that does not fit the models of a run.

    Args:
        metadata (`dict`): of the table.
        where (`str`): names the table in messages.
        vae, image_encoder: of the run.
        num_tokens (`int`, *optional*): that the run wants; any if left out.
        image_size (`int`): of the condition images that the run wants.

    Raises:
        ValueError: for a table made by another VAE or image encoder, with another number of tokens, or image size.
    """
    for name, model in (("vae", vae), ("image_encoder", image_encoder)):
        if metadata[name] != fingerprint(model):
            raise ValueError(f"The latents {where} were made by another `--{name}`; encode them anew.")
    if num_tokens is not None and metadata["num_tokens"] != num_tokens:
        raise ValueError(
            f"The latents {where} have {metadata['num_tokens']} tokens a shape, but the run wants {num_tokens};"
            f" `prepare latents --num_tokens {num_tokens}` encodes these."
        )
    if metadata["image_size"] != image_size:
        raise ValueError(
            f"The latents {where} were made from images of {metadata['image_size']} pixels, but the run wants"
            f" {image_size} (`--resolution`, or `image_size` of a stage)."
        )


def check_complete(dataset: str, table: str, split: str) -> None:
    """Refuse a table in a local folder that lacks shards which the folder has shapes of.

    Raises:
        ValueError: the table was made in part.
    """
    shards, made = (
        {path.name for path in Path(dataset, name).glob(f"{split}-*.parquet")} for name in ("shapes", table)
    )
    # None at all is what its reader tells of.
    if made and (lacking := sorted(shards - made)):
        raise ValueError(
            f"The table {table} of {dataset} lacks {len(lacking)} of {len(shards)} shards of {split}, such as"
            f" {lacking[0]}; `prepare latents` makes them."
        )


def in_fair_order(rows: datasets.Dataset) -> datasets.Dataset:
    """Rows in the order of their hashed ids, so that the first ones are a fair sample of all sources."""
    return rows.select(np.argsort(_uid_keys(rows), kind="stable"))


def split_by_object(rows: datasets.Dataset, fraction: float) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Rows of most objects, and rows of the `fraction` of objects whose hashed ids come first: at least one object,
    unless the fraction is 0."""
    keys = _uid_keys(rows)
    objects = np.unique(keys)
    count = max(1, round(fraction * len(objects))) if fraction > 0 else 0
    if count >= len(objects):
        raise ValueError(
            f"`--validation_fraction` is {fraction}: all {len(objects)} objects would be kept for validation."
        )
    validation = keys < objects[count]
    return rows.select(np.flatnonzero(~validation)), rows.select(np.flatnonzero(validation))


def _uid_keys(rows: datasets.Dataset) -> np.ndarray:
    return np.array([uid_key(uid) for uid in rows["uid"]], np.uint64)
