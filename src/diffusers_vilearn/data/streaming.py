# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A table read from where it lies, row group by row group: nothing is copied to disk, and any row can be asked for."""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
from huggingface_hub import HfFileSystem

from .loading import table_files


class StreamedTable:
    """The rows of Parquet files, local or on the Hub; whole row groups are read and the latest ones kept.

    Looks like a `datasets.Dataset` to who reads rows one by one. Rows are cheap where their row group has just been
    read, so read them in the order of `row_groups`, shuffled within a few of them.

    Args:
        files (`list[str]`): paths in `filesystem`, in order.
        filesystem: with `open(path, "rb")`, of fsspec.
        kept_groups (`int`): row groups kept in memory.
    """

    def __init__(self, files: list[str], filesystem, kept_groups: int = 16):
        if not files:
            raise ValueError("The table has no files.")
        self.files, self.filesystem, self.kept_groups = files, filesystem, kept_groups
        with ThreadPoolExecutor(16) as pool:
            footers = list(pool.map(self._read_footer, files))
        self.features = datasets.Features.from_arrow_schema(footers[0].schema.to_arrow_schema())
        self.groups = [(file, group) for file, footer in enumerate(footers) for group in range(footer.num_row_groups)]
        self.row_groups = np.array([footers[file].row_group(group).num_rows for file, group in self.groups])
        self.ends = np.cumsum(self.row_groups)
        self.columns, self.format = list(self.features), None
        self._kept: OrderedDict[int, datasets.Dataset] = OrderedDict()

    @classmethod
    def open(cls, dataset: str, table: str, split: str, **options) -> "StreamedTable":
        """A table of a prepared dataset: see `load_table`."""
        if Path(dataset).is_dir():
            from fsspec.implementations.local import LocalFileSystem

            filesystem = LocalFileSystem()
            files = [str(Path(file).absolute()) for file in table_files(dataset, table, split)]
        else:
            filesystem = HfFileSystem()
            files = sorted(filesystem.glob(f"datasets/{dataset}/{table}/{split}-*.parquet"))
            if not files:
                raise ValueError(f"The dataset {dataset!r} has no files {table}/{split}-*.parquet.")
        rows = cls(files, filesystem, **options)
        if not len(rows):
            raise ValueError(f"{dataset} has no {split} objects (table {table}).")
        return rows

    def _read_footer(self, path: str) -> pq.FileMetaData:
        try:
            with self.filesystem.open(path, "rb") as file:
                return pq.read_metadata(file)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is no readable Parquet file: {error}") from error

    def with_format(self, format: str | None, columns: list[str]) -> "StreamedTable":
        """The same rows with these columns only, in a format of `datasets`."""
        view = object.__new__(StreamedTable)
        view.__dict__ |= self.__dict__ | {"columns": columns, "format": format, "_kept": OrderedDict()}
        return view

    def select_columns(self, columns: list[str]) -> "StreamedTable":
        """The same rows with these columns only."""
        return self.with_format(self.format, columns)

    def __len__(self) -> int:
        return int(self.row_groups.sum())

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        group = int(np.searchsorted(self.ends, index, side="right"))
        return self.read_group(group)[index - int(self.ends[group] - self.row_groups[group])]

    def read_group(self, group: int) -> datasets.Dataset:
        """The rows of one row group."""
        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group]
        file, number = self.groups[group]
        with self.filesystem.open(self.files[file], "rb") as handle:
            table = pq.ParquetFile(handle).read_row_group(number, columns=self.columns)
        features = datasets.Features({name: self.features[name] for name in self.columns})
        table = datasets.table.table_cast(table.replace_schema_metadata(None), features.arrow_schema)
        rows = datasets.Dataset(table, info=datasets.DatasetInfo(features=features)).with_format(self.format)
        self._kept[group] = rows
        if len(self._kept) > self.kept_groups:
            self._kept.popitem(last=False)
        return rows
