# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of latents: their order, what becomes of shards without objects, of two writers, of a table made in part."""

import json
import shutil

import datasets
import pytest

from diffusers_vilearn.data.features import SHAPE_FEATURES, VIEW_FEATURES
from diffusers_vilearn.data.latents import LatentEncoder, encode_dataset
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.data.shards import load_shard, write_shard
from diffusers_vilearn.files import PREPARATION_FILE, locked
from diffusers_vilearn.training.tables import check_complete, in_fair_order, split_by_object


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


def test_neither_rows_nor_their_order_depend_on_the_batch(work, encoder, dataset):
    for batch_size, table in ((1, "one"), (3, "three")):
        encode_dataset(encoder, dataset, {table: 8}, splits=["train"], batch_size=batch_size)
    columns = ["uid", "view", "mirrored", "visible_tokens"]
    one, three = (load_table(str(dataset), table, "train").select_columns(columns) for table in ("one", "three"))
    assert one.to_list() == three.to_list()
    assert one["mirrored"][:] == len(one) // 2 * [False, True]


def test_a_table_without_a_shard_may_be_made_otherwise(work, dataset):
    few, enough = (
        LatentEncoder.from_pretrained(str(work / "vae"), str(work / "encoder"), device="cpu", num_points=number)
        for number in (4, 64)
    )
    with pytest.raises(ValueError, match="`num_tokens` is 8"):
        encode_dataset(few, dataset, {"latents": 8}, splits=["train"], batch_size=4)
    assert encode_dataset(enough, dataset, {"latents": 8}, splits=["train"], batch_size=4)["latents"] > 0


def test_a_table_that_was_made_in_part_is_not_trained_on(encoder, dataset):
    encode_dataset(encoder, dataset, {"latents": 8}, splits=["train"], batch_size=4)
    check_complete(str(dataset), "latents", "train")
    (shard,) = (dataset / "shapes").glob("train-*.parquet")
    shutil.copy(shard, shard.with_name("train-test-00009.parquet"))
    with pytest.raises(ValueError, match=r"latents of .* lacks 1 of 2 shards of train, such as train-test-00009\."):
        check_complete(str(dataset), "latents", "train")


def test_the_first_rows_in_fair_order_are_of_all_sources():
    rows = datasets.Dataset.from_dict({"uid": [f"{source}/{i}" for source in "ab" for i in range(500)]})
    ordered = in_fair_order(rows)
    assert sorted(ordered["uid"]) == sorted(rows["uid"])
    assert 30 < sum(uid.startswith("a/") for uid in ordered["uid"][:100]) < 70
    _, held = split_by_object(rows, 0.1)
    assert set(held["uid"]) == set(ordered["uid"][:100])


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
