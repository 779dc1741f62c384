# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Reading the tables of a prepared dataset."""

from pathlib import Path

import datasets
import pyarrow.parquet as pq


def load_table(dataset: str, table: str, split: str, cache_dir: str | None = None) -> datasets.Dataset:
    """One table of a prepared dataset as a memory-mapped `datasets.Dataset`.

    Args:
        dataset (`str`): local folder of `<table>/<split>-*.parquet` files, or the id of a Hub dataset laid out alike.
        table (`str`): `shapes`, `views` or the name of a latents table.
        split (`str`): `train` or `heldout`.
        cache_dir (`str`, *optional*): of `datasets`.

    Raises:
        ValueError: there are no such files, or some are no readable Parquet files; it names them.
    """
    if not Path(dataset).is_dir():
        return datasets.load_dataset(dataset, table, split=split, cache_dir=cache_dir)
    files = sorted(str(path) for path in (Path(dataset) / table).glob(f"{split}-*.parquet"))
    if not files:
        raise ValueError(f"The dataset folder {dataset!r} has no files {table}/{split}-*.parquet.")
    try:
        return datasets.load_dataset("parquet", data_files={split: files}, split=split, cache_dir=cache_dir)
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        broken = [path for path in files if not _is_readable(path)]
        if not broken:
            raise
        raise ValueError(f"Not readable as Parquet: {', '.join(broken)}; prepare these files anew.") from error


def _is_readable(path: str) -> bool:
    try:
        with pq.ParquetFile(path) as file:
            return all(batch is not None for batch in file.iter_batches())
    except (OSError, ValueError):
        return False
