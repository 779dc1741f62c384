# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Reading the tables of a prepared dataset."""

from pathlib import Path

import datasets


def load_table(dataset: str, table: str, split: str) -> datasets.Dataset:
    """One table of a prepared dataset as a memory-mapped `datasets.Dataset`.

    Args:
        dataset (`str`): local folder of `<table>/<split>-*.parquet` files, or the id of a Hub dataset laid out alike.
        table (`str`): `shapes`, `views` or the name of a latents table.
        split (`str`): `train` or `heldout`.
    """
    if not Path(dataset).is_dir():
        return datasets.load_dataset(dataset, table, split=split)
    files = sorted(str(path) for path in (Path(dataset) / table).glob(f"{split}-*.parquet"))
    if not files:
        raise ValueError(f"The dataset folder {dataset!r} has no files {table}/{split}-*.parquet.")
    return datasets.load_dataset("parquet", data_files={split: files}, split=split)
