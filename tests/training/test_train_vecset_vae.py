# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The VAE's trainer as a process: every option, exact resumption, finetuning, refusals."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from script_process import ScriptProcess, run_in_two
from tiny import TRAINED_VAE

from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.data.preparation import PreparationOptions
from diffusers_vilearn.data.shards import load_shard, write_shard
from diffusers_vilearn.files import read_json_lines
from diffusers_vilearn.models import VecSetVAE
from diffusers_vilearn.training.vae import check_margin, draw_num_tokens

SCRIPT = "train_vecset_vae.py"
TERMS = {"l1", "l2", "normal", "eikonal", "kl", "alignment", "anchor", "anchor_latent"}


def arguments(work: Path, output_dir: Path, steps: int, *more) -> list:
    return [
        *("--dataset_name", work / "data", "--output_dir", output_dir, "--max_train_steps", steps),
        *("--train_batch_size", 2, "--lr_warmup_steps", 0, "--logging_steps", 1, "--checkpointing_steps", 2),
        *("--lr_scheduler", "constant", "--num_points", 64, "--num_queries", 32, "--num_validation_shapes", 1),
        *("--num_normals", 16),
        *more,
    ]


def train(work: Path, output_dir: Path, steps: int, *more) -> ScriptProcess:
    process = ScriptProcess(SCRIPT, *arguments(work, output_dir, steps, *more), log=output_dir.with_suffix(".log"))
    process.status = process.wait()
    return process


def succeed(work: Path, output_dir: Path, steps: int, *more) -> str:
    process = train(work, output_dir, steps, *more)
    assert process.status == 0, process.output[-3000:]
    return process.output


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def everything(work: Path) -> list:
    """All options of a VAE with a cloud of sharp edges."""
    (work / "dual.json").write_text(json.dumps(TRAINED_VAE | {"dual_cross_attention": True}))
    return [
        *("--vae_config", work / "dual.json", "--num_tokens", 4, 6, 8, "--num_sharp_points", 48),
        *("--anchor_weight", 0.3, "--anchor_latent_weight", 0.1, "--kl_warmup_steps", 3),
        *("--alignment_weight", 0.5, "--image_encoder", work / "encoder", "--alignment_queries", "rays"),
        *("--alignment_layers", 2, "--num_alignment_queries", 12, "--use_ema", "--ema_decay", 0.5),
        *("--gradient_checkpointing", "--gradient_accumulation_steps", 2, "--report_to", "tensorboard"),
    ]


@pytest.fixture(scope="module")
def whole(work) -> Path:
    """An uninterrupted run of six steps with every option."""
    succeed(work, work / "vae-whole", 6, *everything(work))
    return work / "vae-whole"


def test_with_every_option_a_resumed_run_ends_with_the_same_bits(work, whole):
    parts = work / "vae-parts"
    for steps in (2, 4, 6):
        succeed(work, parts, steps, *everything(work), "--resume_from_checkpoint", "latest")
    assert same(weights(whole / "vae"), weights(parts / "vae"))
    for name in ("vae/diffusion_pytorch_model.safetensors", "model.safetensors", "model_1.safetensors"):
        assert same(load_file(whole / "checkpoint-6" / name), load_file(parts / "checkpoint-6" / name)), name
    assert read_json_lines(whole / "train_log.jsonl") == read_json_lines(parts / "train_log.jsonl")


def test_two_processes_make_the_losses_of_one(work, whole, tmp_path):
    options = [*everything(work), "--train_batch_size", 1]
    run_in_two(SCRIPT, *arguments(work, tmp_path / "two", 6, *options), log_dir=tmp_path)
    for two, one in zip(*(read_json_lines(folder / "train_log.jsonl") for folder in (tmp_path / "two", whole))):
        assert two == pytest.approx(one, abs=1e-5)
    (two,), (one,) = (read_json_lines(folder / "validation_log.jsonl") for folder in (tmp_path / "two", whole))
    assert two == pytest.approx(one, abs=1e-3)


def test_every_term_is_logged_and_every_number_of_tokens_validated(whole):
    log = read_json_lines(whole / "train_log.jsonl")
    assert [record["step"] for record in log] == [1, 2, 3, 4, 5, 6]
    assert all(set(record) == TERMS | {"step"} for record in log)
    (validation,) = read_json_lines(whole / "validation_log.jsonl")
    assert {f"iou@{count}" for count in (4, 6, 8)} < set(validation)
    assert 0 < validation["normal_angle@8"] < 180


def test_the_result_is_a_vae_of_averaged_weights_without_its_heads_and_with_a_card(whole):
    vae = VecSetVAE.from_pretrained(whole / "vae")
    assert len(vae.config.shift_factor) == len(vae.config.scaling_factor) == TRAINED_VAE["latent_channels"]
    result = weights(whole / "vae")
    assert result.keys() == vae.state_dict().keys()
    assert not same(result, weights(whole / "checkpoint-6" / "vae"))
    assert same(result, weights(whole / "checkpoint-6" / "vae_ema"))
    card = (whole / "vae" / "README.md").read_text()
    assert "| alignment | 0.5 |" in card and "| iou@8 |" in card and "3 shapes" in card and "{{" not in card
    assert str(whole.parent) not in card and f'from_pretrained("{whole.name}")' in card


def test_a_term_of_weight_zero_is_not_in_the_log(work, tmp_path):
    off = ("--normal_weight", 0, "--eikonal_weight", 0, "--kl_weight", 0)
    succeed(work, tmp_path / "run", 1, "--vae_config", work / "vae" / "config.json", *off)
    (record,) = read_json_lines(tmp_path / "run" / "train_log.jsonl")
    assert set(record) == {"step", "l1", "l2"}


def test_in_half_precision_and_with_a_broken_row_all_terms_are_trained(work, tmp_path):
    (shapes,) = (work / "data" / "shapes").glob("train-*.parquet")
    rows = load_shard(work / "data", "shapes", shapes.stem)
    spoilt = [dict(row) for row in rows.with_format("numpy")]
    spoilt[2]["surface"] = np.full_like(spoilt[2]["surface"], np.nan)
    write_shard(tmp_path / "data", "shapes", shapes.stem, spoilt, rows.features)
    more = ("--dataset_name", tmp_path / "data", "--mixed_precision", "bf16", "--train_batch_size", 3)
    succeed(work, tmp_path / "run", 2, "--vae_config", work / "vae" / "config.json", *more)
    log = read_json_lines(tmp_path / "run" / "train_log.jsonl")
    assert len(log) == 2 and all({"normal", "eikonal"} < set(record) for record in log)
    (unreadable,) = read_json_lines(tmp_path / "run" / "unreadable_rows.jsonl")
    assert unreadable["uid"] == spoilt[2]["uid"]
    assert VecSetVAE.load_config(tmp_path / "run" / "vae")["shift_factor"] != 0.0


def test_finetuning_starts_where_the_pretrained_model_is(work, tmp_path):
    start = ("--pretrained_model_name_or_path", work, "--subfolder", "vae")
    succeed(work, tmp_path / "still", 1, *start, "--learning_rate", 0)
    assert same(weights(tmp_path / "still" / "vae"), weights(work / "vae"))
    assert VecSetVAE.load_config(tmp_path / "still" / "vae")["shift_factor"] != 0.0
    succeed(work, tmp_path / "moved", 1, *start)
    assert not same(weights(tmp_path / "moved" / "vae"), weights(work / "vae"))


def test_the_result_has_by_default_tokens_that_it_was_trained_on(work, tmp_path):
    # More than the encoder has points: nothing could be encoded with them.
    (tmp_path / "many.json").write_text(json.dumps(TRAINED_VAE | {"num_tokens": 128}))
    succeed(
        work, tmp_path / "run", 1, "--vae_config", tmp_path / "many.json", "--num_tokens", 4, 8, "--num_points", 64
    )
    assert VecSetVAE.load_config(tmp_path / "run" / "vae")["num_tokens"] == 8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pretrained_model_name_or_path", "vae"], "exactly one of --vae_config"),
        (["--alignment_weight", 0.5], "--alignment_weight and --image_encoder"),
        (["--num_tokens", 8, 500], "`num_tokens` is 500"),
        (["--num_validation_shapes", 4], "`--num_validation_shapes` is 4; it must be above 0 and below 4"),
        (["--normal_weight", -1], "`normal` is -1"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(work, tmp_path, more, message):
    process = train(work, tmp_path / "run", 2, "--vae_config", work / "vae" / "config.json", *more)
    assert process.status != 0 and message in process.output
    assert not (tmp_path / "run" / "train_log.jsonl").exists()


def test_a_configuration_of_another_model_is_named(work, tmp_path):
    process = train(work, tmp_path / "run", 2, "--vae_config", work / "transformer.json")
    assert process.status == 1 and "Traceback" not in process.output
    assert "transformer.json is no JSON file of arguments of a VecSetVAE" in process.output


def test_a_dataset_whose_field_ends_too_near_is_refused(work):
    shapes = load_table(str(work / "data"), "shapes", "train")
    check_margin(shapes, PreparationOptions.margin, "canonical")
    check_margin(shapes, PreparationOptions.margin / 2**0.5, "view")
    with pytest.raises(ValueError, match=r"margin of about 0\.2\d*, less than the 0\.300 .* `truncation` .*, 0\.3"):
        check_margin(shapes, 0.3, "canonical")
    with pytest.raises(ValueError, match=r"margin of about 0\.2\d*, less than the 0\.283 .* in the frame 'view'"):
        check_margin(shapes, PreparationOptions.margin, "view")


def test_the_number_of_tokens_is_a_pure_function_of_seed_and_step():
    choices = [4, 8, 16]
    drawn = [draw_num_tokens(choices, 0, step) for step in range(600)]
    assert [draw_num_tokens(choices, 0, step) for step in reversed(range(600))] == drawn[::-1]
    assert [draw_num_tokens(choices, 1, step) for step in range(600)] != drawn
    assert all(150 < count < 250 for count in Counter(drawn).values()) and set(drawn) == set(choices)
    assert {draw_num_tokens([7], 0, step) for step in range(5)} == {7}
