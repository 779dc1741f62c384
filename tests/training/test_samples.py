# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The randomness of a sample: a pure function of seed, view and epoch, whatever else changes."""

import os
import signal
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from diffusers_vilearn.data.latents import LatentEncoder
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.data.streaming import StreamedTable
from diffusers_vilearn.files import read_json_lines
from diffusers_vilearn.training.flow_matching import flow_matching_loss
from diffusers_vilearn.training.online import OnlineEncoder, OnlineSamples, jitter_colours
from diffusers_vilearn.training.run import TrainingStopped
from diffusers_vilearn.training.samples import WEIGHTING_SCHEMES, LatentSamples, SampleOptions
from diffusers_vilearn.training.stream import UnreadableRow, UnreadableRows, collate, make_loader, whole_batches

PLAIN = SampleOptions(condition_dropout=0.0, visible_fraction=0.25)


@pytest.fixture(scope="module")
def latents(work):
    return load_table(str(work / "data"), "latents", "train")


def assert_equal(one: dict, other: dict, names) -> None:
    assert all(torch.equal(one[name], other[name]) for name in names)


def test_samples_repeat_and_epochs_differ(latents):
    samples, again = (LatentSamples(latents, 8, PLAIN) for _ in range(2))
    assert_equal(samples[3, 5], again[3, 5], ("latents", "noise", "density", "visible_mask", "image_embeds"))
    for other in (samples[4, 5], LatentSamples(latents, 8, replace(PLAIN, seed=1))[3, 5], samples[3, 6]):
        assert not torch.equal(other["noise"], samples[3, 5]["noise"])


def test_the_order_of_the_rows_does_not_matter(latents):
    turned = latents.select(range(len(latents))[::-1])
    one, other = LatentSamples(latents, 8, PLAIN)[2, 1], LatentSamples(turned, 8, PLAIN)[2, len(latents) - 2]
    assert one["uid"] == other["uid"]
    assert_equal(one, other, ("latents", "noise", "density"))


def test_dropping_changes_what_is_dropped_and_nothing_else(latents):
    plain = LatentSamples(latents, 8, PLAIN)
    dropped = LatentSamples(latents, 8, replace(PLAIN, condition_dropout=1.0, mask_dropout=1.0))
    for index in range(len(latents)):
        one, other = plain[0, index], dropped[0, index]
        assert_equal(one, other, ("latents", "noise", "density"))
        assert one["image_embeds"].any() and not other["image_embeds"].any()
        # As many tokens are visible as inference declares, ...
        assert other["visible_mask"].sum() == 2
    masks = {tuple(dropped[epoch, 0]["visible_mask"].tolist()) for epoch in range(30)}
    # ... but which ones has nothing to do with their order.
    assert len(masks) > 5


def test_dropout_is_drawn_for_each_sample(latents):
    samples = LatentSamples(latents, 8, replace(PLAIN, condition_dropout=0.5))
    kept = [samples[epoch, index]["image_embeds"].any().item() for epoch in range(20) for index in range(16)]
    assert abs(np.mean(kept) - 0.5) < 4 * 0.5 / np.sqrt(len(kept))
    assert {True, False} == set(kept[:16])


@pytest.mark.parametrize("scheme, mean", [("logit_normal", 0.73), ("none", 0.5)])
def test_timesteps_follow_the_scheme(latents, scheme, mean):
    samples = LatentSamples(latents, 8, replace(PLAIN, weighting_scheme=scheme, logit_mean=1.2, logit_std=1.0))
    densities = np.array([samples[epoch, index]["density"].item() for epoch in range(20) for index in range(16)])
    assert abs(densities.mean() - mean) < 0.06 and 0 < densities.min() and densities.max() < 1


@pytest.mark.parametrize("scheme", WEIGHTING_SCHEMES)
def test_no_sample_outweighs_all_others(scheme):
    class Still(torch.nn.Linear):
        def forward(self, hidden_states, **_):
            return (torch.zeros_like(hidden_states),)

    class Plain:
        normalize_latents = staticmethod(lambda latents: latents)

    batch = {name: torch.zeros(2, 3, 4) for name in ("latents", "image_embeds")}
    batch |= {"noise": torch.ones(2, 3, 4), "density": torch.tensor([0.0, 1.0]), "visible_mask": torch.ones(2, 3)}
    # diffusers' 1,000 levels end at 1e-3
    assert flow_matching_loss(Still(1, 1), Plain(), batch, 1.0, scheme).max() <= 1.001e6


def test_a_streamed_table_gives_the_same_samples(work, latents):
    streamed = StreamedTable.open(str(work / "data"), "latents", "train")
    assert len(streamed) == len(latents) == streamed.row_groups.sum()
    one, other = LatentSamples(latents, 8, PLAIN), LatentSamples(streamed, 8, PLAIN)
    for index in (0, 7, len(latents) - 1):
        assert one.uid_of(index) == other.uid_of(index) == one[0, index]["uid"]
        assert_equal(one[1, index], other[1, index], ("latents", "noise", "visible_mask", "image_embeds"))
    with pytest.raises(ValueError, match="no files missing/train"):
        StreamedTable.open(str(work / "data"), "missing", "train")


def test_rows_of_another_length_are_unreadable(latents):
    with pytest.raises(ValueError, match="has 8 tokens, but the table should have 4"):
        LatentSamples(latents, 4, PLAIN)[0, 0]


@pytest.fixture(scope="module")
def encoder(work):
    return LatentEncoder.from_pretrained(str(work / "vae"), str(work / "encoder"), device="cpu")


def online(work, encoder, options=PLAIN, **choices):
    tables = (load_table(str(work / "data"), table, "train") for table in ("views", "shapes"))
    choices = {"mirror": False, "augment": False} | choices
    return OnlineSamples(*tables, encoder.prepare_view, encoder.image_processor, 8, 4, options, **choices)


def test_online_latents_are_those_of_the_table_up_to_the_cloud(work, encoder, latents):
    cached = LatentSamples(latents.filter(lambda row: not row["mirrored"]), 8, PLAIN)
    batch = OnlineEncoder(encoder)(next(whole_batches(online(work, encoder), 8, torch.device("cpu"))), 8)
    table = next(whole_batches(cached, 8, torch.device("cpu")))
    order = [table["uids"].index(uid) for uid in batch["uids"]]
    # Noise and image tokens are the same; the latents differ by which points of the surface were picked.
    assert torch.equal(batch["noise"], table["noise"][order])
    torch.testing.assert_close(batch["image_embeds"], table["image_embeds"][order], atol=5e-3, rtol=5e-3)
    assert batch["latents"].shape == table["latents"].shape and batch["visible_mask"].dtype == torch.bool


def test_online_samples_vary_by_epoch_and_mirror_image_with_shape(work, encoder):
    samples = online(work, encoder, mirror=True)
    assert not torch.equal(samples[0, 0]["points"], samples[1, 0]["points"])
    pixels = [samples[epoch, 0]["pixel_values"] for epoch in range(12)]
    different = {tuple(value.flatten().tolist()) for value in pixels}
    assert len(different) == 2, "an image and its mirror image"
    flips = [torch.equal(value, pixels[0]) for value in pixels]
    means = [samples[epoch, 0]["visible_points"][:, 0].mean() for epoch in range(12)]
    signs = [np.sign(mean) == np.sign(means[0]) for mean in means]
    assert flips == signs, "the visible points are mirrored exactly when the image is"


def test_augmentation_leaves_the_object_where_it_is(work):
    view = load_table(str(work / "data"), "views", "train")[0]["image"]
    changed = jitter_colours(view, np.random.default_rng(0))
    assert changed.getchannel("A").tobytes() == view.getchannel("A").tobytes()
    assert changed.convert("RGB").tobytes() != view.convert("RGB").tobytes()


class Broken(torch.utils.data.Dataset):
    """Rows of which every third cannot be read."""

    def __len__(self):
        return 6

    def uid_of(self, index):
        return f"row {index}"

    def __getitem__(self, key):
        if key[1] % 3 == 0:
            Image.open(__file__)
        return {"uid": f"row {key[1]}", "value": torch.tensor(key[1])}


def test_unreadable_rows_are_left_out_and_errors_of_programming_are_not_hidden():
    args = SimpleNamespace(seed=0, gradient_accumulation_steps=1, dataloader_num_workers=0, train_batch_size=6)
    process = SimpleNamespace(process_index=0, num_processes=1, device=torch.device("cpu"))
    (batch,) = make_loader(args, Broken(), process, position=0, num_steps=1)
    assert sorted(row.uid for row in batch["unreadable"]) == ["row 0", "row 3"]
    assert sorted(batch["uids"]) == [f"row {int(value)}" for value in batch["value"].sort().values]
    assert all("UnidentifiedImageError" in row.reason for row in batch["unreadable"])
    broken = Broken()
    broken.__class__ = type("Wrong", (Broken,), {"__getitem__": lambda self, key: self.missing})
    with pytest.raises(AttributeError):
        list(make_loader(args, broken, process, position=0, num_steps=1))
    assert collate([])["uids"] == []


def test_each_process_counts_its_own_unreadable_rows_and_all_name_them_in_one_file(tmp_path):
    def batch(*uids):
        return {"uids": ["fine"], "unreadable": [UnreadableRow(uid, "why") for uid in uids]}

    path = tmp_path / "unreadable_rows.jsonl"
    for rank in range(3):
        rows = UnreadableRows(path, 2, rank)
        rows.note(batch(f"{rank}a", f"{rank}b", f"{rank}a"), step=1)
    assert len(read_json_lines(path)) == 6
    resumed = UnreadableRows(path, 2, rank=1)
    resumed.note(batch("1b"), step=2)
    with pytest.raises(TrainingStopped, match="3 rows are unreadable, and `--max_unreadable_rows` is 2"):
        resumed.note(batch("1c"), step=3)


def test_a_row_that_was_unreadable_does_not_end_a_run_that_is_taken_up_again(tmp_path):
    rows = UnreadableRows(tmp_path / "rows.jsonl", 0)
    with pytest.raises(TrainingStopped, match="1 rows are unreadable"):
        rows.note({"uids": ["fine"], "unreadable": [UnreadableRow("a", "why")]}, step=1)
    UnreadableRows(tmp_path / "rows.jsonl", 0).note({"uids": ["fine", "a"], "unreadable": []}, step=1)


class Rows(torch.utils.data.Dataset):
    """Of one column; reading the third one raises `error`."""

    def __init__(self, error: Exception | None = None):
        self.error = error

    def __len__(self):
        return 8

    def __getitem__(self, key):
        if key[1] == 2 and self.error:
            raise self.error
        return {"uid": str(key[1]), "value": torch.tensor(key[1])}

    def uid_of(self, index: int) -> str:
        return str(index)


class OnlyBroken(Rows):
    """The third row of `Rows` alone."""

    def __init__(self):
        super().__init__(ValueError("broken"))

    def __len__(self):
        return 1

    def __getitem__(self, key):
        return super().__getitem__((key[0], 2))

    def uid_of(self, index: int) -> str:
        return "2"


@pytest.mark.parametrize(
    "error", [HfHubHTTPError("503", response=MagicMock()), ConnectionResetError(), TimeoutError()]
)
def test_an_outage_is_no_fault_of_a_row(error):
    with pytest.raises(type(error)):
        list(whole_batches(Rows(error), 8, torch.device("cpu")))
    (batch,) = whole_batches(Rows(OSError("broken")), 8, torch.device("cpu"))
    assert batch["uids"] == [str(index) for index in range(8) if index != 2]


def test_a_validation_batch_of_nothing_ends_the_run_where_others_would_wait_for_it():
    rows = Rows(ValueError("broken"))
    assert len(list(whole_batches(rows, 1, torch.device("cpu")))) == 7
    with pytest.raises(
        TrainingStopped, match="No row of a whole validation batch could be read: 2: ValueError: broken"
    ):
        list(whole_batches(rows, 1, torch.device("cpu"), rank=0, world_size=2))


def test_what_cannot_be_read_of_validation_is_named_and_nothing_to_validate_ends_the_run(tmp_path):
    named = UnreadableRows(tmp_path / "rows.jsonl", 1)
    rows, device = Rows(ValueError("broken")), torch.device("cpu")
    for _ in range(2):
        assert len(list(whole_batches(rows, 1, device, name=partial(named.name, step=4)))) == 7
    assert read_json_lines(named.path) == [{"uid": "2", "step": 4, "rank": 0, "reason": "ValueError: broken"}]
    with pytest.raises(TrainingStopped, match="could be read: 2: ValueError: broken"):
        list(whole_batches(OnlyBroken(), 1, device))


def test_readers_outlive_the_signal_that_ends_a_run():
    args = SimpleNamespace(train_batch_size=1, gradient_accumulation_steps=1, seed=0, dataloader_num_workers=1)
    process = SimpleNamespace(process_index=0, num_processes=1, device=torch.device("cpu"))
    batches = iter(make_loader(args, Rows(), process, position=0, num_steps=6))
    uids = next(batches)["uids"]
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(batches._workers[0].pid, number)
    assert len(uids + [uid for batch in batches for uid in batch["uids"]]) == 6
