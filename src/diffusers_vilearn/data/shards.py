# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Parquet shards that are whole or absent, so that an interrupted preparation goes on where it stopped."""

import io
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ..files import replacing, write_atomically

# Enough rows to compress well, few enough that a reader of images and clouds holds some ten MB at a time.
ROWS_PER_GROUP = 64


def shard_path(folder: Path, table: str, shard: str) -> Path:
    """`<folder>/<table>/<shard>.parquet`."""
    return folder / table / f"{shard}.parquet"


def to_table(rows: list[dict], features: datasets.Features) -> pa.Table:
    """The Arrow table of some rows."""
    columns = {name: [row[name] for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=features).with_format("arrow")[:]


def to_parquet(rows: list[dict], features: datasets.Features) -> bytes:
    """The Parquet file of some rows."""
    file = io.BytesIO()
    _write_table(to_table(rows, features), file)
    return file.getvalue()


def load_shard(folder: Path, table: str, shard: str, columns: list[str] | None = None) -> datasets.Dataset:
    """One shard of a table, or some of its columns, in memory.

    Not by `datasets.load_dataset`: it fails on a shard without rows, and leaves a copy of any other in its cache.
    """
    return datasets.Dataset(read_parquet(shard_path(folder, table, shard), columns))


def read_parquet(file, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file (path or file object), or some of its columns.

    Not by `pq.read_table` or datasets of pyarrow: their threads may abort the process at its end: apache/arrow#45214.
    """
    with pq.ParquetFile(file) as parquet:
        return parquet.read(columns)


def rows_by_split(table: Path) -> Counter:
    """Number of rows of each split that the folder of a table has files of."""
    counts = Counter()
    for path in sorted(table.glob("*.parquet")):
        counts[path.stem.split("-")[0]] += pq.read_metadata(path).num_rows
    return counts


def _write_table(table: pa.Table, file) -> None:
    """Write a Parquet file; one of an empty table has no row group, since `datasets` stumbles over empty ones."""
    with pq.ParquetWriter(file, table.schema) as writer:
        if table.num_rows:
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)


def write_table(folder: Path, name: str, shard: str, table: pa.Table) -> None:
    """Write an Arrow table as one shard of the table `name`, whole or not at all."""
    path = shard_path(folder, name, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        _write_table(table, temporary)


class ShardWriter:
    """Writes rows to a Parquet file by and by; it keeps no more of them than a row group has.

    Args:
        parquet (`pq.ParquetWriter`): the open file.
        features (`datasets.Features`): of the rows.
    """

    def __init__(self, parquet: pq.ParquetWriter, features: datasets.Features):
        self.parquet, self.features, self.waiting = parquet, features, []

    def write(self, rows: list[dict]) -> None:
        """Append some rows."""
        self.waiting.extend(rows)
        while len(self.waiting) >= ROWS_PER_GROUP:
            self._write_group()

    def finish(self) -> None:
        """Write the rows that do not fill a row group."""
        if self.waiting:
            self._write_group()

    def _write_group(self) -> None:
        self.parquet.write_table(to_table(self.waiting[:ROWS_PER_GROUP], self.features))
        del self.waiting[:ROWS_PER_GROUP]


@contextmanager
def open_shard(folder: Path, table: str, shard: str, features: datasets.Features) -> Iterator[ShardWriter]:
    """A writer of one shard of a table, which is there when the block ends, whole or not at all."""
    path = shard_path(folder, table, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, to_table([], features).schema) as parquet:
        writer = ShardWriter(parquet, features)
        yield writer
        writer.finish()


def write_shard(folder: Path, table: str, shard: str, rows: list[dict], features: datasets.Features) -> None:
    """Write the rows of one shard of a table, whole or not at all."""
    with open_shard(folder, table, shard, features) as writer:
        writer.write(rows)


class StagedShard:
    """The objects of one shard, each kept in files of its own until the last one is there.

    Args:
        folder (`Path`): of the dataset; the files lie in `<folder>/.staging/<shard>`.
        shard (`str`): its name.
        size (`int`): how many objects it has.
    """

    def __init__(self, folder: Path, shard: str, size: int):
        self.folder, self.shard, self.size = folder, shard, size
        self.staging = folder / ".staging" / shard

    def missing(self) -> list[int]:
        """Indices of the objects that are not there yet."""
        return [index for index in range(self.size) if not self._done(index).exists()]

    def keep(self, index: int, tables: dict[str, bytes]) -> None:
        """Store the Parquet files of one object by table; none for an object without rows."""
        self.staging.mkdir(parents=True, exist_ok=True)
        for table, content in tables.items():
            write_atomically(self._rows(table, index), content)
        # Last of all, as what says that the others are whole.
        write_atomically(self._done(index), b"")

    def assemble(self, features: dict[str, datasets.Features]) -> None:
        """Write the shard of every table, rows in the order of the objects, and forget the single objects.

        Tables are written in the order of `features`: where the last one exists, all do.
        """
        for table, columns in features.items():
            files = [self._rows(table, index) for index in range(self.size)]
            rows = pa.concat_tables([to_table([], columns), *(read_parquet(file) for file in files if file.exists())])
            write_table(self.folder, table, self.shard, rows)
        self.forget()

    def forget(self) -> None:
        """Remove the files of single objects, also those of a shard whose process was killed before it did so."""
        if self.staging.exists():
            shutil.rmtree(self.staging)

    def _rows(self, table: str, index: int) -> Path:
        return self.staging / f"{index:05d}.{table}.parquet"

    def _done(self, index: int) -> Path:
        return self.staging / f"{index:05d}.done"
