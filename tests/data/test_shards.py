# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Shards that are written by and by: the same file as at once, whole or not at all."""

import io

import pyarrow.parquet as pq
import pytest

from diffusers_vilearn.data.features import REJECT_FEATURES
from diffusers_vilearn.data.shards import (
    ROWS_PER_GROUP,
    load_shard,
    open_shard,
    read_parquet,
    to_parquet,
    write_shard,
)

ROWS = [{"uid": str(i), "source": "s", "reason": "empty", "message": f"{i}"} for i in range(2 * ROWS_PER_GROUP + 5)]


@pytest.mark.parametrize("size", [1, 7, ROWS_PER_GROUP, len(ROWS)])
def test_rows_by_and_by_are_the_same_file(tmp_path, size):
    with open_shard(tmp_path, "rejects", "a", REJECT_FEATURES) as writer:
        for start in range(0, len(ROWS), size):
            writer.write(ROWS[start : start + size])
            assert len(writer.waiting) < ROWS_PER_GROUP
    content = (tmp_path / "rejects" / "a.parquet").read_bytes()
    assert content == to_parquet(ROWS, REJECT_FEATURES)
    assert pq.ParquetFile(io.BytesIO(content)).num_row_groups == 3
    assert load_shard(tmp_path, "rejects", "a").to_list() == ROWS


def test_an_error_on_the_way_leaves_the_old_shard_alone(tmp_path):
    write_shard(tmp_path, "rejects", "a", ROWS[:3], REJECT_FEATURES)
    with pytest.raises(KeyError), open_shard(tmp_path, "rejects", "a", REJECT_FEATURES) as writer:
        writer.write(ROWS[:ROWS_PER_GROUP])
        writer.write([{"uid": "no more"}] * ROWS_PER_GROUP)
    assert [path.name for path in (tmp_path / "rejects").iterdir()] == ["a.parquet"]
    assert load_shard(tmp_path, "rejects", "a").to_list() == ROWS[:3]


def test_a_shard_may_have_no_rows(tmp_path):
    write_shard(tmp_path, "rejects", "a", [], REJECT_FEATURES)
    table = read_parquet(tmp_path / "rejects" / "a.parquet")
    assert table.num_rows == 0 and table.column_names == list(REJECT_FEATURES)
    shard = load_shard(tmp_path, "rejects", "a", ["uid"])
    assert shard.to_list() == [] and shard.column_names == ["uid"]
