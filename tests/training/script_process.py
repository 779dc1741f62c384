# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Training scripts as real processes that can be killed, without the seconds that each import of torch takes: a server
imports once and forks."""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import signals

TRAINING = Path(__file__).parents[2] / "training"
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "accelerate",
        "diffusers_vilearn.metrics.reconstruction",
        "diffusers_vilearn.pipelines.pipeline_vilearn",
        "diffusers_vilearn.pipelines.preview",
        "diffusers_vilearn.training.loop",
        "peft",
    ]
)


def _run(
    script: str, arguments: list[str], log: str, environment: dict[str, str], signal_at: tuple[int, str, int] | None
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    if signal_at is not None:
        signals.signal_at(*signal_at)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


class ScriptProcess:
    """A training script in a process of its own.

    Args:
        script (`str` or `Path`): its name in `training/`, or its whole path.
        arguments: of its command line.
        log (`Path`): where its output goes.
        environment (`dict`): variables beside those of this process.
        signal_at (`tuple`): a signal, part of a path, and at which time that it turns to such a path it gets it.
    """

    def __init__(
        self,
        script: str | Path,
        *arguments,
        log: Path,
        environment: dict[str, str] | None = None,
        signal_at: tuple[int, str, int] | None = None,
    ):
        self.log = log
        words = [str(argument) for argument in arguments]
        target = (str(TRAINING / script), words, str(log), environment or {}, signal_at)
        self.process = _SERVER.Process(target=_run, args=target)
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait(self, seconds: float = 300) -> int:
        """Exit status, negative for a signal."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            pytest.fail(f"No end after {seconds} s: {self.output[-2000:]}")
        return self.process.exitcode


def _free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def run_deepspeed(stage: int, script: str, *arguments, log: Path) -> tuple[int, str]:
    """Exit status and output of a training script under DeepSpeed ZeRO, one process on the CPU, as `accelerate launch`
    starts it with the shipped configurations."""
    environment = {
        **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port(), "ACCELERATE_MIXED_PRECISION": "bf16"},
        **{"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage)},
        **dict.fromkeys(("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_GRADIENT_CLIPPING"), "auto"),
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
    }
    wrapper = Path(__file__).with_name("deepspeed_on_cpu.py")
    process = ScriptProcess(wrapper, TRAINING / script, *arguments, log=log, environment=environment)
    return process.wait(), process.output


def launch_fsdp2(script: str | Path, *arguments, mixed_precision: str = "no") -> str:
    """What a script (of `training/`, or by its whole path) prints when `accelerate launch` runs it with the shipped
    configuration of FSDP2, in two processes on the CPU."""
    config = ("--config_file", TRAINING / "accelerate_configs" / "fsdp2.yaml", "--num_machines", 1)
    processes = ("--num_processes", 2, "--mixed_precision", mixed_precision, "--main_process_port", _free_port())
    words = (*config, *processes, Path(__file__).with_name("fsdp2_on_cpu.py"), TRAINING / script, *arguments)
    command = [sys.executable, "-m", "accelerate.commands.launch", *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr[-5000:]
    return result.stdout


def run_in_two(script: str, *arguments, log_dir: Path) -> None:
    """A training script in two processes that share its steps (gloo)."""
    common = {
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port(), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
        "ACCELERATE_USE_CPU": "true",
    }
    log_dir.mkdir(parents=True, exist_ok=True)
    processes = [
        ScriptProcess(
            script,
            *arguments,
            log=log_dir / f"rank-{rank}.log",
            environment=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    codes = [process.wait() for process in processes]
    assert codes == [0, 0], "\n".join(process.output[-2000:] for process in processes)
