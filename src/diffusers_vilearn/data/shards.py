# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Parquet shards that are whole or absent, so that an interrupted preparation goes on where it stopped."""

import os
from pathlib import Path

import datasets


def shard_path(folder: Path, table: str, shard: str) -> Path:
    """`<folder>/<table>/<shard>.parquet`."""
    return folder / table / f"{shard}.parquet"


def write_shard(folder: Path, table: str, shard: str, rows: list[dict], features: datasets.Features) -> None:
    """Write the rows of one shard of a table, atomically."""
    path = shard_path(folder, table, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    if rows:
        table_rows = datasets.Dataset.from_list(rows, features=features)
    else:
        table_rows = datasets.Dataset.from_dict({name: [] for name in features}, features=features)
    table_rows.to_parquet(str(partial))
    os.replace(partial, path)
