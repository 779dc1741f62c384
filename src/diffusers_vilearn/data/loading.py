# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Reading the tables of a prepared dataset."""

import glob
from pathlib import Path

import datasets
import pyarrow.parquet as pq

from ..errors import named_if_absent
from .shards import rows_by_split


def load_table(dataset: str, table: str, split: str, cache_dir: str | None = None) -> datasets.Dataset:
    """One table of a prepared dataset as a memory-mapped `datasets.Dataset`.

    Args:
        dataset (`str`): local folder of `<table>/<split>-*.parquet` files, or the id of a Hub dataset laid out alike.
        table (`str`): `shapes`, `views` or the name of a latents table.
        split (`str`): `train` or `heldout`.
        cache_dir (`str`, *optional*): of `datasets`.

    Raises:
        ValueError: there is no such dataset, table or split, or the split has no rows; or some files are no readable
            Parquet files: it names them.
    """
    if not Path(dataset).is_dir():
        with named_if_absent("dataset", dataset):
            return datasets.load_dataset(dataset, table, split=split, cache_dir=cache_dir)
    files = table_files(dataset, table, split)
    # It takes names for patterns.
    patterns = [glob.escape(path) for path in files]
    try:
        return datasets.load_dataset("parquet", data_files={split: patterns}, split=split, cache_dir=cache_dir)
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        broken = [path for path in files if not _is_readable(path)]
        if broken:
            raise ValueError(f"Not readable as Parquet: {', '.join(broken)}; prepare these files anew.") from error
        if not rows_by_split(Path(dataset, table))[split]:
            raise no_objects(dataset, table, split) from error
        raise


def table_files(dataset: str, table: str, split: str) -> list[str]:
    """The Parquet files of one split of a table in a local folder.

    Raises:
        ValueError: there are none; it names the tables or the splits that there are.
    """
    if files := sorted(str(path) for path in Path(dataset, table).glob(f"{split}-*.parquet")):
        return files
    tables = sorted({path.parent.name for path in Path(dataset).glob("*/*.parquet")})
    if table in tables:
        raise no_objects(dataset, table, split)
    others = f"its tables are {', '.join(tables)}" if tables else "it has no table at all"
    raise ValueError(f"{dataset} has no table {table!r}: there are no files {table}/{split}-*.parquet; {others}.")


def no_objects(dataset: str | Path, table: str, split: str) -> ValueError:
    """The error of a split without rows, which names the splits of the table that have some."""
    others = [name for name, count in rows_by_split(Path(dataset, table)).items() if count]
    there = f"it has those of {', '.join(others)}" if others else "the table is empty"
    return ValueError(f"{dataset} has no {split} objects (table {table}); {there}.")


def _is_readable(path: str) -> bool:
    try:
        with pq.ParquetFile(path) as file:
            return all(batch is not None for batch in file.iter_batches())
    except (OSError, ValueError):
        return False
