# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A child process that answers one task at a time under a time and a memory limit, and is replaced when it dies.

Native code (Embree, libigl, image decoders) may crash, hang or eat all memory on a broken file. Only the child dies of
it: the task is answered by a `WorkerFailure`, and everything else goes on.
"""

import math
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

# The fork server imports these once; every child is forked from it and can start at once.
_PRELOADED = ["diffusers_vilearn.data.preparation"]
# Seconds between two looks at the clock.
_PATIENCE = 0.1


@dataclass(frozen=True)
class WorkerLimits:
    """What one task may take.

    Args:
        seconds (`float`): wall-clock time.
        memory_gib (`float`): private memory of the child process.
        attempts (`int`): how often a task is tried whose child was killed or crashed.
    """

    seconds: float = 300.0
    memory_gib: float = 8.0
    attempts: int = 3

    def __post_init__(self):
        # written so that NaN fails them; the system counts bytes in 63 bits
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"The time limit must be a number of seconds above 0, but is {self.seconds}.")
        if not 0 < self.memory_gib < 2**33:
            raise ValueError(f"The memory limit must be a number of GiB above 0, but is {self.memory_gib}.")
        if self.attempts < 1:
            raise ValueError(f"`attempts` must be at least 1, but is {self.attempts}.")


@dataclass(frozen=True)
class WorkerFailure:
    """Why a task has no answer: `reason` is `time_limit`, `memory_limit`, `crashed` or `stopped`."""

    reason: str
    message: str


class GuardedWorker:
    """One child process; `function`, tasks and answers must be picklable.

    Args:
        function (`Callable`): task -> answer. What it raises is raised by the call.
        limits (`WorkerLimits`): of every task.
        stopped (`threading.Event`, *optional*): once it is set, the task at hand is given up.
    """

    def __init__(self, function: Callable[[Any], Any], limits: WorkerLimits, stopped: threading.Event | None = None):
        self.function = function
        self.limits = limits
        self.stopped = stopped or threading.Event()
        self._process = self._connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __call__(self, task: Any) -> Any:
        """The answer to `task`, or a `WorkerFailure`."""
        for _ in range(self.limits.attempts):
            try:
                answer, error = self._ask(task)
            except (EOFError, ConnectionError):
                self._process.join()
                code = self._process.exitcode
                self.close()
                continue
            if error is not None:
                raise error
            return answer
        return WorkerFailure("crashed", f"the process that worked on it died {self.limits.attempts} times ({code})")

    def _ask(self, task: Any) -> tuple[Any, Exception | None]:
        """The answer, or what the function raised; an error of the connection is of the child's death."""
        if self._process is None:
            self._start()
        self._connection.send(task)
        deadline = time.monotonic() + self.limits.seconds
        while not self._connection.poll(_PATIENCE):
            if self.stopped.is_set():
                self.close()
                return WorkerFailure("stopped", "the run ended before it was done"), None
            if time.monotonic() > deadline:
                self.close()
                return WorkerFailure("time_limit", f"it took more than {self.limits.seconds:g} s"), None
        answer, error = self._connection.recv()
        if isinstance(answer, WorkerFailure):
            # What the allocator holds after that is anyone's guess.
            self.close()
        return answer, error

    def _start(self):
        has_server = "forkserver" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if has_server else "spawn")
        if has_server:
            context.set_forkserver_preload(_PRELOADED)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_answer_tasks, args=(theirs, self.function, self.limits), daemon=True)
        self._process.start()
        theirs.close()

    def close(self):
        """Kill the child; the next task starts another one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = self._connection = None


def answer_within(function: Callable[[Any], Any], task: Any, limits: WorkerLimits) -> Any:
    """`function(task)`, or a `WorkerFailure` if this process needs too much memory for it; on one core."""
    # There is a worker for every core, so each keeps to one.
    os.environ["IGL_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    memory = int(limits.memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    try:
        return function(task)
    except MemoryError:
        return WorkerFailure("memory_limit", f"it needed more than {limits.memory_gib:g} GiB of memory")


def _answer_tasks(connection: Connection, function: Callable[[Any], Any], limits: WorkerLimits) -> None:
    """The child's loop."""
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            reply = (answer_within(function, task, limits), None)
        except Exception as error:
            reply = (None, error)
        connection.send(reply)
