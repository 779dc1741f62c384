# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of latents: what becomes of shards without objects, and of two writers of one table."""

import json
import shutil

import pytest

from diffusers_vilearn.data.features import SHAPE_FEATURES, VIEW_FEATURES
from diffusers_vilearn.data.latents import LatentEncoder, encode_dataset
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.data.shards import load_shard, locked, write_shard
from diffusers_vilearn.files import PREPARATION_FILE


@pytest.fixture(scope="module")
def encoder(work):
    return LatentEncoder.from_pretrained(str(work / "vae"), str(work / "encoder"), device="cpu", mirror=True)


@pytest.fixture
def dataset(work, tmp_path):
    for table in ("shapes", "views"):
        shutil.copytree(work / "data" / table, tmp_path / table)
    return tmp_path


def test_a_shard_whose_objects_are_all_rejected_has_no_latents(work, encoder, dataset):
    for table, features in (("shapes", SHAPE_FEATURES), ("views", VIEW_FEATURES)):
        write_shard(dataset, table, "train-rejected-00000", [], features)
    encode_dataset(encoder, dataset, {"latents": 8}, splits=["train"], batch_size=4)
    assert (dataset / "latents" / "train-rejected-00000.parquet").exists()
    columns = ["uid", "view", "mirrored", "moments"]
    rows, expected = (load_table(str(folder), "latents", "train") for folder in (dataset, work / "data"))
    assert rows.select_columns(columns).to_list() == expected.select_columns(columns).to_list()


def test_a_table_has_one_writer_and_a_dataset_several(encoder, dataset):
    with locked(dataset / "latents"):
        with pytest.raises(ValueError, match=r"Another process is writing to .*latents"):
            encode_dataset(encoder, dataset, {"latents": 8}, splits=["train"], batch_size=4)
        encode_dataset(encoder, dataset, {"others": 8}, splits=["train"], batch_size=4)
    assert not list((dataset / "latents").glob("*.parquet")) and list((dataset / "others").glob("*.parquet"))


def test_every_split_that_is_asked_for_must_be_there(encoder, dataset):
    for name in ("shapes", "rejects", "a/b"):
        with pytest.raises(ValueError, match=f"Latents cannot have the name '{name}'"):
            encode_dataset(encoder, dataset, {name: 8}, splits=["train"], batch_size=4)
    with pytest.raises(ValueError, match="has no shapes of heldut"):
        encode_dataset(encoder, dataset, {"latents": 8}, splits=["train", "heldut"], batch_size=4)
    assert not (dataset / "latents").exists()


def test_a_table_has_one_number_of_points(work, dataset):
    models = (str(work / "vae"), str(work / "encoder"))
    few, many = (LatentEncoder.from_pretrained(*models, device="cpu", num_points=number) for number in (16, 64))
    encode_dataset(few, dataset, {"latents": 8}, splits=["train"], batch_size=4)
    with pytest.raises(ValueError, match="made with another num_points"):
        encode_dataset(many, dataset, {"latents": 8}, splits=["train"], batch_size=4)
    encode_dataset(many, dataset, {"more": 8}, splits=["train"], batch_size=4)
    one, other = (load_table(str(dataset), table, "train")["moments"] for table in ("latents", "more"))
    assert list(one) != list(other)
    with pytest.raises(ValueError, match="`num_points` is 0"):
        LatentEncoder.from_pretrained(*models, device="cpu", num_points=0)


def test_shapes_prepared_anew_do_not_keep_their_latents(encoder, dataset):
    def encode(**plan):
        (dataset / PREPARATION_FILE).write_text(json.dumps(plan))
        encode_dataset(encoder, dataset, {"latents": 8}, splits=["train"], batch_size=4)

    encode(options={"image_size": 64, "num_views": 2}, objects={})
    same = {"num_views": 2, "image_size": 64}
    encode(options=same, objects={"train": "more of them"})
    with pytest.raises(ValueError, match="made with another preparation"):
        encode(options={**same, "image_size": 77})
    (path,) = (dataset / "views").glob("train-*.parquet")
    views = load_shard(dataset, "views", path.stem)
    views.select(range(1, len(views))).to_parquet(path)
    with pytest.raises(ValueError, match=r"latents.*\.parquet holds latents of other views than .*views"):
        encode(options=same)
