# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Tasks in guarded processes: answers, limits, crashes, kills."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from diffusers_vilearn.data.engines import run_local
from diffusers_vilearn.data.workers import WorkerFailure, WorkerLimits

LIMITS = WorkerLimits(seconds=20, memory_gib=4, attempts=2)


def work(task):
    """A task is a number to square, or a mishap."""
    if task == "hang":
        time.sleep(1000)
    if task == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "allocate":
        return len(np.ones(2**33, np.uint8))
    if isinstance(task, Exception):
        raise task
    if isinstance(task, Path):
        # Dies the first time only, as when the machine runs out of memory.
        if not task.exists():
            task.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "second time"
    return task**2


def test_all_tasks_are_answered_whatever_the_number_of_workers():
    for num_workers in (1, 3):
        answers = dict(run_local(work, iter(range(20)), limits=LIMITS, num_workers=num_workers))
        assert answers == {task: task**2 for task in range(20)}


def test_a_mishap_costs_its_own_task_only(tmp_path):
    limits = WorkerLimits(seconds=2, memory_gib=4, attempts=2)
    tasks = [1, "hang", 2, "crash", 3, "allocate", tmp_path / "killed", 4]
    answers = dict(run_local(work, tasks, limits=limits, num_workers=2))
    assert [answers[task] for task in (1, 2, 3, 4)] == [1, 4, 9, 16]
    assert answers["hang"] == WorkerFailure("time_limit", "it took more than 2 s")
    assert answers["allocate"].reason == "memory_limit" and answers["crash"].reason == "crashed"
    assert answers[tmp_path / "killed"] == "second time"


@pytest.mark.parametrize("bug", [KeyError("a bug"), EOFError("a bug")])
def test_a_bug_is_raised_and_tasks_are_drawn_only_when_needed(bug):
    drawn = []

    def tasks():
        for task in (1, 2, bug, *range(1000)):
            drawn.append(task)
            yield task

    with pytest.raises(type(bug), match="a bug"):
        list(run_local(work, tasks(), limits=LIMITS, num_workers=1))
    assert len(drawn) < 10


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"seconds": 0}, "time limit must be a number of seconds above 0, but is 0"),
        ({"seconds": float("nan")}, "time limit .* but is nan"),
        ({"memory_gib": -1.0}, "memory limit must be a number of GiB above 0, but is -1"),
        ({"memory_gib": 1e12}, "memory limit"),
        ({"attempts": 0}, "`attempts` must be at least 1"),
    ],
)
def test_limits_under_which_nothing_would_ever_be_done_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        WorkerLimits(**limits)
