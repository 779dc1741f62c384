# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of checkpoints after a crash at each place where one may leave something behind; logs; arguments."""

import argparse
import json
import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from diffusers_vilearn.files import append_json_line, drop_json_lines, read_json_lines
from diffusers_vilearn.training import run
from diffusers_vilearn.training.arguments import add_common_arguments, parse_arguments
from diffusers_vilearn.training.checkpoints import (
    CheckpointError,
    Progress,
    list_checkpoints,
    resume_from,
    save_checkpoint,
    tidy_checkpoints,
)
from diffusers_vilearn.training.loop import TrainingLoop
from diffusers_vilearn.training.run import note_options, rewind_logs


@pytest.fixture
def accelerator():
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_crashes_leave_behind_is_tidied(tmp_path):
    for name in (".partial-checkpoint-9", ".outdated-checkpoint-1", ".replaced-checkpoint-4", "checkpoint-4"):
        (tmp_path / name).mkdir()
    # The run was killed after it put the old checkpoint-6 aside and before the new one had its name.
    (tmp_path / ".replaced-checkpoint-6").mkdir()
    (tmp_path / ".replaced-checkpoint-6" / "old").touch()
    tidy_checkpoints(tmp_path)
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    assert (tmp_path / "checkpoint-6" / "old").exists() and not (tmp_path / "checkpoint-4" / "old").exists()


def test_a_second_run_leaves_the_first_ones_checkpoint_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "ORPHANS", 0)
    args = parse(tmp_path, f"output_dir: {tmp_path / 'run'}")
    partial = tmp_path / "run" / ".partial-checkpoint-9"
    try:
        with run.started(args):
            partial.mkdir()
            with pytest.raises(ValueError, match="Another process is writing to"), run.started(args):
                pass
            assert partial.exists()
        with run.started(args):
            assert not partial.exists()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_checkpoints_are_counted_by_step_and_the_oldest_go(tmp_path, accelerator):
    for step in (8, 9, 10, 11):
        save_checkpoint(accelerator, str(tmp_path), Progress(step, 2 * step), total_limit=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-11"]
    assert resume_from(accelerator, str(tmp_path), "latest") == Progress(11, 22)
    assert resume_from(accelerator, str(tmp_path), "checkpoint-11") == Progress(11, 22)
    # What a user keeps beside them is left alone.
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-99.tar").touch()
    save_checkpoint(accelerator, str(tmp_path), Progress(12, 24), total_limit=1)
    assert names(tmp_path) == ["checkpoint-12", "checkpoint-99.tar", "checkpoint-best"]
    for name in ("checkpoint-3", "checkpoint-best"):
        with pytest.raises(ValueError, match=f"{name}, which is no folder `checkpoint-<step>`"):
            resume_from(accelerator, str(tmp_path), name)


@pytest.mark.parametrize("name", [None, "checkpoint-10"])
def test_a_run_does_not_begin_before_checkpoints_that_are_there(tmp_path, accelerator, name):
    assert resume_from(accelerator, str(tmp_path), None) == resume_from(accelerator, str(tmp_path), "latest")
    for step in (10, 11):
        save_checkpoint(accelerator, str(tmp_path), Progress(step, 2 * step), total_limit=2)
    with pytest.raises(ValueError, match="holds checkpoint-11, which is further than this run would begin"):
        resume_from(accelerator, str(tmp_path), name)


@pytest.mark.parametrize("num_processes, last_epoch", [(None, 47), (1, 47), (2, 23)])
def test_a_resumed_learning_rate_knows_the_steps_that_the_scaler_left_out(
    tmp_path, accelerator, num_processes, last_epoch
):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 100)
    optimizer, scheduler = accelerator.prepare(optimizer, scheduler)
    scheduler.scheduler.last_epoch = 47
    save_checkpoint(accelerator, str(tmp_path), Progress(50, 50, num_processes), None)
    scheduler.scheduler.last_epoch = 0
    args = argparse.Namespace(output_dir=tmp_path, max_unreadable_rows=0, resume_from_checkpoint="latest")
    TrainingLoop(args, accelerator, [], optimizer, scheduler, 100).resume()
    assert scheduler.scheduler.last_epoch == last_epoch


def test_a_resumed_run_takes_the_options_of_the_optimiser_that_it_was_started_with(tmp_path, accelerator):
    def make_loop(learning_rate: float, weight_decay: float) -> TrainingLoop:
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], learning_rate, weight_decay=weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 100)
        args = argparse.Namespace(output_dir=tmp_path, max_unreadable_rows=0, resume_from_checkpoint="latest")
        return TrainingLoop(args, accelerator, [], *accelerator.prepare(optimizer, scheduler), 100)

    def take_step(loop: TrainingLoop) -> None:
        loop.optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
        loop.optimizer.step()
        loop.lr_scheduler.step()

    loop = make_loop(1e-3, 0.01)
    take_step(loop)
    save_checkpoint(accelerator, str(tmp_path), Progress(1, 1, 1), None)
    accelerator.free_memory()
    loop = make_loop(1e-5, 0.5)
    loop.resume()
    (group,) = loop.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (pytest.approx(0.99e-5), 0.5)
    take_step(loop)
    assert group["lr"] == pytest.approx(0.98e-5)


def test_a_run_that_starts_anew_forgets_the_options_of_one_without_a_checkpoint(tmp_path, accelerator, capsys):
    for learning_rate in (1e-3, 1e-4):
        note_options(argparse.Namespace(output_dir=tmp_path, learning_rate=learning_rate), accelerator, 0)
    assert read_json_lines(tmp_path / "options.jsonl") == [{"step": 0, "learning_rate": 1e-4}]
    assert "other options" not in capsys.readouterr().out


def test_a_resumed_run_accumulates_whole_steps(tmp_path, accelerator):
    accelerator.step = 5
    save_checkpoint(accelerator, str(tmp_path), Progress(5, 5), None)
    accelerator.gradient_accumulation_steps = 4
    resume_from(accelerator, str(tmp_path), "latest")
    model, ends = torch.nn.Linear(1, 1), []
    for _ in range(8):
        with accelerator.accumulate(model):
            ends.append(accelerator.sync_gradients)
    assert ends == 2 * [False, False, False, True]


def test_a_checkpoint_is_replaced_whole(tmp_path, accelerator):
    save_checkpoint(accelerator, str(tmp_path), Progress(3, 6), None)
    (tmp_path / "checkpoint-3" / "of the old one").touch()
    save_checkpoint(accelerator, str(tmp_path), Progress(3, 7), None)
    assert names(tmp_path) == ["checkpoint-3"] and resume_from(accelerator, str(tmp_path), "latest").position == 7
    assert not (tmp_path / "checkpoint-3" / "of the old one").exists()


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path, accelerator):
    save_checkpoint(accelerator, str(tmp_path), Progress(1, 1), 1)

    def fail(models, weights, folder):
        raise OSError(28, "No space left on device")

    accelerator.register_save_state_pre_hook(fail)
    with pytest.raises(CheckpointError, match=r"checkpoint-2 could not be written \(OSError.*is .*checkpoint-1"):
        save_checkpoint(accelerator, str(tmp_path), Progress(2, 2), 1)
    assert names(tmp_path) == ["checkpoint-1"]


def test_logs_are_rewound(tmp_path):
    path = tmp_path / "log.jsonl"
    assert read_json_lines(path) == []
    drop_json_lines(path, lambda record: True)
    for step in range(4):
        append_json_line(path, {"step": step})
    drop_json_lines(path, lambda record: record["step"] <= 1)
    append_json_line(path, {"step": 9})
    assert [record["step"] for record in read_json_lines(path)] == [0, 1, 9]


def test_all_logs_of_a_run_are_rewound(tmp_path):
    (tmp_path / "samples").mkdir()
    logs = [tmp_path / name for name in ("train_log.jsonl", "validation_log.jsonl", "samples/scores.jsonl")]
    for path in logs:
        append_json_line(path, {"step": 10})
        append_json_line(path, {"step": 20})
    rewind_logs(tmp_path, 10)
    assert [read_json_lines(path) for path in logs] == 3 * [[{"step": 10}]]


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path):
    path = tmp_path / "log.jsonl"
    append_json_line(path, {"step": 1})
    code = (
        "import resource, signal, sys, pathlib; from diffusers_vilearn.files import append_json_line;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20));"
        "append_json_line(pathlib.Path(sys.argv[1]), {'step': 2, 'text': 'x' * 50})"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "No space left on device" in result.stderr
    assert read_json_lines(path) == [{"step": 1}]


def parse(tmp_path, config: str, *words):
    (tmp_path / "config.yaml").write_text(config)
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_common_arguments(parser, learning_rate=1e-4)
    arguments = ["--config", str(tmp_path / "config.yaml"), *words]
    return parse_arguments(parser, ("stages",), arguments)


def test_a_file_gives_arguments_and_the_command_line_wins(tmp_path):
    config = "output_dir: here\nlearning_rate: 1e-3\nseed: 3\nallow_tf32: true\nscale_lr: false\nstages: [{tokens: 4}]"
    args = parse(tmp_path, config, "--seed", "4")
    assert (args.output_dir, args.learning_rate, args.seed) == ("here", 1e-3, 4)
    assert args.allow_tf32 is True and args.scale_lr is False and args.stages == [{"tokens": 4}]
    assert parse(tmp_path, "output_dir: here").stages is None
    # YAML reads it as false.
    assert parse(tmp_path, "output_dir: here\nmixed_precision: no").mixed_precision == "no"


def test_false_in_a_file_is_not_what_is_left_out(tmp_path):
    (tmp_path / "config.yaml").write_text("output_dir: here\nchoice: false\nflag: false")
    parser = argparse.ArgumentParser()
    add_common_arguments(parser, learning_rate=1e-4)
    parser.add_argument("--choice", action=argparse.BooleanOptionalAction)
    parser.add_argument("--flag", action="store_true")
    args = parse_arguments(parser, (), ["--config", str(tmp_path / "config.yaml")])
    assert args.choice is False and args.flag is False


@pytest.mark.parametrize(
    "config, message",
    [
        ("[1, 2]", "must map names of arguments to values, but is a list"),
        ("output_dir: here\nmax_train_steps: 0", "`--max_train_steps` is 0; it must be at least 1"),
        ("output_dir: here\nreport_to: all\nhub_token: secret", "would publish `--hub_token`"),
        ("output_dir: here\noutput: there", "unknown keys: output"),
    ],
)
def test_wrong_files_are_refused(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        parse(tmp_path, config)


def test_names_of_arguments_are_not_shortened(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("learning_rate: 0.5")
    with pytest.raises(SystemExit):
        parse(tmp_path, "output_dir: here", "--conf", str(tmp_path / "config.yaml"))
    assert "unrecognized arguments: --conf" in capsys.readouterr().err


def test_progress_is_part_of_the_checkpoint(tmp_path, accelerator):
    save_checkpoint(accelerator, str(tmp_path), Progress(2, 34, 1, 8), None)
    progress = json.loads((tmp_path / "checkpoint-2" / "progress.json").read_text())
    assert progress == {"step": 2, "position": 34, "num_processes": 1, "num_rows": 8}
