# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What `--use_8bit_adam` and `--report_to` need is asked of nobody; where it is installed, it works."""

import json
import sqlite3
from pathlib import Path

import pytest
import torch
from script_process import run_deepspeed
from test_train_vilearn import arguments, same_weights, start
from torch.utils._pytree import tree_leaves

from diffusers_vilearn import ViLearnImageTo3DPipeline
from diffusers_vilearn.files import read_json_lines

WITH_SAMPLES = (
    *("--max_train_steps", 2, "--checkpointing_steps", 2, "--validation_steps", 2, "--num_validation_images", 1),
    *("--validation_inference_steps", 1, "--validation_resolution", 16),
)


def run(work: Path, output_dir: Path, *more, **environment: str) -> None:
    process = start(output_dir, arguments(work, output_dir, *more), environment=environment)
    assert process.wait() == 0, process.output[-3000:]


def test_wandb_offline(work, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run(work, tmp_path / "run", *WITH_SAMPLES, "--report_to", "wandb", WANDB_MODE="offline")
    (folder,) = (tmp_path / "run" / "logs" / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb")) and list(folder.glob("files/media/images/samples_*.png"))
    assert not list((tmp_path / "here").iterdir())


def test_trackio(work, tmp_path):
    pytest.importorskip("trackio")
    run(work, tmp_path / "run", *WITH_SAMPLES, "--report_to", "trackio", TRACKIO_DIR=str(tmp_path / "trackio"))
    with sqlite3.connect(tmp_path / "trackio" / "train_vilearn.db") as database:
        logged = [json.loads(metrics) for (metrics,) in database.execute("SELECT metrics FROM metrics")]
    assert {"train/loss", "validation/loss", "samples/iou", "samples"} <= {name for one in logged for name in one}
    assert len(list((tmp_path / "trackio" / "media").rglob("*.png"))) == 1


def test_8bit_adam_resumes_exactly(work, tmp_path):
    pytest.importorskip("bitsandbytes")
    # tensors of fewer than 4096 elements keep states of 32 bits
    (tmp_path / "wide.json").write_text(
        json.dumps({"num_layers": 1, "num_attention_heads": 4, "attention_head_dim": 16})
    )
    options = ("--use_8bit_adam", "--transformer_config", tmp_path / "wide.json", "--checkpointing_steps", 2)
    run(work, tmp_path / "whole", *options, "--max_train_steps", 4)
    state = torch.load(tmp_path / "whole" / "checkpoint-4" / "optimizer.bin", weights_only=True)["state"]
    assert torch.uint8 in {leaf.dtype for leaf in tree_leaves(state) if torch.is_tensor(leaf)}

    (tmp_path / "resumed").mkdir()
    (tmp_path / "whole" / "checkpoint-2").rename(tmp_path / "resumed" / "checkpoint-2")
    run(work, tmp_path / "resumed", *options, "--max_train_steps", 4, "--resume_from_checkpoint", "latest")
    assert same_weights(tmp_path / "resumed" / "transformer", tmp_path / "whole" / "transformer")


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed(work, tmp_path, stage):
    pytest.importorskip("deepspeed")
    folder, averaged = tmp_path / "run", "--use_ema" if stage == 2 else "--no-use_ema"
    for steps in (2, 3):
        words = (*WITH_SAMPLES, "--max_train_steps", steps, averaged, "--resume_from_checkpoint", "latest")
        words += ("--lr_scheduler", "constant", "--train_batch_size", 2, "--logging_steps", 1)
        status, output = run_deepspeed(
            stage, "train_vilearn.py", *arguments(work, folder, *words), log=tmp_path / "log.txt"
        )
        assert status == 0, output[-3000:]
    assert "Resumed from" in output
    steps = [row["step"] for row in read_json_lines(folder / "train_log.jsonl")]
    assert steps == [1, 2, 3] and ViLearnImageTo3DPipeline.from_pretrained(folder)
    status, output = run_deepspeed(
        *(stage, "train_vilearn.py", *arguments(work, folder, *words, "--visible_position", 7)),
        log=tmp_path / "log.txt",
    )
    assert status != 0 and "its model has `visible_position` 0 and not 7.0" in output


def test_deepspeed_and_a_vae(work, tmp_path):
    pytest.importorskip("deepspeed")
    words = ("--dataset_name", work / "data", "--vae_config", work / "vae" / "config.json", "--train_batch_size", 2)
    words += ("--num_points", 64, "--max_train_steps", 2, "--output_dir", tmp_path / "run")
    status, output = run_deepspeed(2, "train_vecset_vae.py", *words, log=tmp_path / "log.txt")
    assert status == 0 and (tmp_path / "run" / "vae" / "config.json").is_file(), output[-3000:]
    status, output = run_deepspeed(2, "train_vecset_vae.py", *words, "--anchor_weight", 1, log=tmp_path / "other.txt")
    assert status != 0 and "DeepSpeed trains one model" in output
