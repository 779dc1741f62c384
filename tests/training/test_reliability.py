# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed, filled up, preempted and poisoned; and that go on as if nothing had been."""

import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from script_process import ScriptProcess

from diffusers_vilearn.training.checkpoints import list_checkpoints

SCRIPTS = ["train_vilearn.py", "train_vecset_vae.py"]
RESULT = {"train_vilearn.py": "transformer", "train_vecset_vae.py": "vae"}


def arguments(script: str, work: Path, output_dir: Path, steps: int, *more) -> list:
    common = [
        *("--dataset_name", work / "data", "--output_dir", output_dir, "--max_train_steps", steps),
        *("--train_batch_size", 2, "--lr_warmup_steps", 0, "--logging_steps", 1, "--checkpointing_steps", 3),
    ]
    if script == "train_vecset_vae.py":
        sizes = ("--num_points", 64, "--num_queries", 32, "--num_validation_shapes", 1, "--anchor_weight", 0.1)
        return [*common, "--vae_config", work / "vae" / "config.json", *sizes, *more]
    models = ("--vae", work / "vae", "--image_encoder", work / "encoder")
    return [*common, *models, "--transformer_config", work / "transformer.json", "--use_ema", *more]


def start(script, work, output_dir, steps, *more, signal_at=None) -> ScriptProcess:
    log = output_dir.with_suffix(".log")
    return ScriptProcess(script, *arguments(script, work, output_dir, steps, *more), log=log, signal_at=signal_at)


def finish(script, work, output_dir, steps, *more) -> str:
    process = start(script, work, output_dir, steps, *more)
    assert process.wait() == 0, process.output[-3000:]
    return process.output


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def wait_for(condition, process: ScriptProcess, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process.process.exitcode is not None or time.monotonic() > deadline:
            process.process.kill()
            pytest.fail(f"The run ended or hung too early: {process.output[-2000:]}")
        time.sleep(0.005)


STEPS = 24


@pytest.fixture(scope="session", params=SCRIPTS)
def whole(request, work) -> tuple[str, Path]:
    """A script, and the folder of its uninterrupted run."""
    output_dir = work / f"whole-{RESULT[request.param]}"
    finish(request.param, work, output_dir, STEPS)
    return request.param, output_dir


def kill_and_resume(script: str, work: Path, output_dir: Path, kills: int, seed: int) -> int:
    """Kill a run `kills` times, in turn between steps and within a checkpoint, and let it finish.
    Returns how many times an unfinished checkpoint was left."""
    rng = np.random.default_rng(seed)
    while_writing = 0
    for kill in range(kills):
        where = (".partial-", rng.integers(1, 21)) if kill % 2 else ("train_log.jsonl", rng.integers(1, 13))
        resume, signal_at = ("--resume_from_checkpoint", "latest"), (signal.SIGKILL, *where)
        process = start(script, work, output_dir, STEPS, *resume, signal_at=signal_at)
        assert process.wait() == -signal.SIGKILL, process.output[-3000:]
        while_writing += bool(list(output_dir.glob(".partial-*")))
        for checkpoint in list_checkpoints(output_dir):
            assert (checkpoint / "progress.json").exists(), "what is called a checkpoint is whole"
    finish(script, work, output_dir, STEPS, "--resume_from_checkpoint", "latest")
    assert not list(output_dir.glob(".*checkpoint*")), "what a killed run left is tidied up"
    return while_writing


def finished(output_dir: Path, script: str) -> bool:
    return (output_dir / RESULT[script] / "config.json").exists()


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(work, whole, tmp_path):
    script, folder = whole
    assert kill_and_resume(script, work, tmp_path / "run", kills=4, seed=0) > 0
    assert_same_weights(tmp_path / "run" / RESULT[script], folder / RESULT[script])
    last = f"checkpoint-{STEPS}"
    assert_same_weights(tmp_path / "run" / last / RESULT[script], folder / last / RESULT[script])
    if script == "train_vilearn.py":
        ema = f"{last}/transformer_ema"
        assert_same_weights(tmp_path / "run" / ema, folder / ema)
        averaged, plain = (weights(folder / last / name) for name in ("transformer_ema", "transformer"))
        assert not torch.equal(averaged["proj_out.weight"], plain["proj_out.weight"])
    logs = [(run / "train_log.jsonl").read_text() for run in (tmp_path / "run", folder)]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_twenty_kills(work, whole, tmp_path):
    script, folder = whole
    assert kill_and_resume(script, work, tmp_path / "run", kills=20, seed=1) > 2
    assert_same_weights(tmp_path / "run" / RESULT[script], folder / RESULT[script])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_asked_to_end_checkpoints_and_exits_with_0(work, whole, tmp_path, number):
    script, folder = whole
    output_dir = tmp_path / "run"
    signal_at = (number, "train_log.jsonl", 2)
    process = start(script, work, output_dir, STEPS, "--checkpointing_steps", 1000, signal_at=signal_at)
    assert process.wait() == 0, process.output[-3000:]
    (checkpoint,) = list_checkpoints(output_dir)
    assert 0 < int(checkpoint.name.rpartition("-")[2]) < STEPS and "Asked to end" in process.output
    assert not finished(output_dir, script)
    finish(script, work, output_dir, STEPS, "--resume_from_checkpoint", "latest")
    assert_same_weights(output_dir / RESULT[script], folder / RESULT[script])


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(work, whole, tmp_path):
    script, _ = whole
    output_dir = tmp_path / "run"
    process = start(script, work, output_dir, 1000)
    wait_for(lambda: list_checkpoints(output_dir), process)
    # The kernel refuses to write any file beyond this size, as a full disk does; the output fits, weights do not.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (32768, 32768))
    assert process.wait() not in (0, -signal.SIGKILL)
    checkpoints = list_checkpoints(output_dir)
    assert f"The last whole checkpoint is {checkpoints[-1]}" in process.output
    assert "could not be written" in process.output and "GiB are free" in process.output
    assert not list(output_dir.glob(".partial-*"))
    step = int(checkpoints[-1].name.rpartition("-")[2])
    finish(script, work, output_dir, step, "--resume_from_checkpoint", "latest")
    # The result is the average of the weights where there is one.
    result = "transformer_ema" if script == "train_vilearn.py" else "vae"
    assert_same_weights(checkpoints[-1] / result, output_dir / RESULT[script])


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_rows_and_checkpoint(work, whole, tmp_path):
    script, _ = whole
    output_dir = tmp_path / "run"
    steep = ("--learning_rate", 1e30, "--checkpointing_steps", 1, "--adam_epsilon", 1e-30)
    process = start(script, work, output_dir, 1000, *steep)
    assert process.wait() != 0
    last = list_checkpoints(output_dir)[-1]
    step = int(last.name.rpartition("-")[2]) + 1
    message = process.output[process.output.index("TrainingStopped") :]
    assert f"not finite at step {step} " in message and f"The last good checkpoint is {last}" in message
    assert "Its rows: train/" in message
    assert all(value.isfinite().all() for value in weights(last / RESULT[script]).values())
