# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Tables that are not there: the error names what there is instead."""

from pathlib import Path

import datasets
import pytest

from diffusers_vilearn.data.features import REJECT_FEATURES
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.data.shards import write_shard
from diffusers_vilearn.data.streaming import StreamedTable
from diffusers_vilearn.training.tables import read_metadata

ROWS = [{"uid": "a", "source": "s", "reason": "empty", "message": "no triangles"}]


@pytest.fixture(params=[load_table, StreamedTable.open], ids=["loaded", "streamed"])
def read(request):
    return request.param


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Path:
    """A table `rejects` with a row of train and a shard of heldout without any, and a table `views` without rows."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    write_shard(folder, "rejects", "train-s-00000", ROWS, REJECT_FEATURES)
    write_shard(folder, "rejects", "heldout-s-00000", [], REJECT_FEATURES)
    write_shard(folder, "views", "train-s-00000", [], REJECT_FEATURES)
    return folder


def test_a_split_without_rows_or_files_is_called_that(dataset, read):
    assert len(read(str(dataset), "rejects", "train")) == 1
    with pytest.raises(ValueError, match=r"data has no heldout objects \(table rejects\)"):
        read(str(dataset), "rejects", "heldout")
    with pytest.raises(ValueError, match=r"no test objects \(table rejects\); it has those of train\."):
        read(str(dataset), "rejects", "test")
    with pytest.raises(ValueError, match=r"no train objects \(table views\)"):
        read(str(dataset), "views", "train")


def test_a_folder_may_have_any_name(dataset, read):
    odd = dataset.rename(dataset.with_name("data[1]*?"))
    assert read(str(odd), "rejects", "train")[0]["uid"] == "a"


def test_an_empty_split_names_the_others(dataset):
    with pytest.raises(ValueError, match=r"\(table rejects\); it has those of train\."):
        load_table(str(dataset), "rejects", "heldout")
    with pytest.raises(ValueError, match=r"\(table views\); the table is empty\."):
        load_table(str(dataset), "views", "train")


def test_a_table_that_is_not_there_names_those_that_are(dataset, read):
    with pytest.raises(ValueError, match=r"data has no table 'latents': .*; its tables are rejects, views\."):
        read(str(dataset), "latents", "train")
    with pytest.raises(ValueError, match=r"has no table 'rejects': .*; it has no table at all\."):
        read(str(dataset / "rejects"), "rejects", "train")


@pytest.mark.parametrize("name", ["nope/nope/nope", "./nope"])
def test_a_folder_that_is_not_there_is_called_that(name):
    with pytest.raises(ValueError, match=f"^There is no folder {name!r}, and no dataset of that name could be"):
        load_table(name, "views", "train")
    with pytest.raises(ValueError, match=f"^There is no folder {name!r}, and no dataset of that name could be"):
        read_metadata(name, "latents")


def test_a_hub_that_cannot_be_reached_is_called_that(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("Couldn't reach 'data/nope' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ValueError, match=r"^There is no folder 'data/nope', and no dataset .* the Hub"):
        load_table("data/nope", "views", "train")
