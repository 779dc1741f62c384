# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Where tasks run: here, in processes of this machine, or on a Ray cluster. All answer the same, in any order."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from queue import Queue
from typing import Any

from .workers import GuardedWorker, WorkerFailure, WorkerLimits, answer_within

Answers = Iterator[tuple[Any, Any]]


def run_in_turn(function: Callable, tasks: Iterable) -> Answers:
    """`(task, answer)` of each, in this process."""
    return ((task, function(task)) for task in tasks)


def run_local(function: Callable[[Any], Any], tasks: Iterable, *, limits: WorkerLimits, num_workers: int) -> Answers:
    """`(task, answer or WorkerFailure)` as they come, from `num_workers` guarded processes.

    Tasks are drawn from their iterator when a worker is free, so that there may be any number of them.
    """
    if num_workers < 1:
        raise ValueError(f"`num_workers` is {num_workers}; it must be at least 1.")
    waiting, drawing = iter(tasks), threading.Lock()
    finished: Queue = Queue()
    stopped = threading.Event()

    def draw() -> list:
        with drawing:
            return [] if stopped.is_set() else list(islice(waiting, 1))

    def serve():
        try:
            with GuardedWorker(function, limits, stopped) as worker:
                while drawn := draw():
                    finished.put((drawn[0], worker(drawn[0]), None))
        except Exception as error:
            finished.put((None, None, error))
        finally:
            finished.put(None)

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(num_workers)]
    for thread in threads:
        thread.start()
    try:
        running = num_workers
        while running:
            item = finished.get()
            if item is None:
                running -= 1
                continue
            task, answer, error = item
            if error is not None:
                raise error
            yield task, answer
    finally:
        stopped.set()
        # No child is left behind, not even one that is about to start.
        for thread in threads:
            thread.join()


def run_ray(
    function: Callable[[Any], Any], tasks: Iterable, *, limits: WorkerLimits, address: str | None = None
) -> Answers:
    """Likewise on a Ray cluster, as tasks of one CPU each that Ray runs again where a machine is lost.

    Args:
        address (`str`, *optional*): of the cluster, `ray://host:10001` for one elsewhere; a new one on this machine if
            there is none. Every machine must see the files that the tasks name.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("`--engine ray` needs Ray: pip install 'diffusers-vilearn[ray]'") from error
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    clock = ray.remote(num_cpus=0)(TaskClock).remote()

    @ray.remote(num_cpus=1, max_retries=limits.attempts - 1)
    def answer(number, task):
        ray.get(clock.start.remote(number))
        return answer_within(function, task, limits)

    waiting, running = enumerate(tasks), {}
    # One for every CPU: each starts at once, and the rest of the tasks need no memory yet.
    room = max(1, int(ray.cluster_resources().get("CPU", 1)))
    try:
        while True:
            for number, task in islice(waiting, room - len(running)):
                running[answer.remote(number, task)] = number, task
            if not running:
                return
            finished, unfinished = ray.wait(list(running), timeout=1.0)
            for reference in finished:
                number, task = running.pop(reference)
                clock.stop.remote(number)
                yield task, _ray_answer(ray, reference)
            overdue = ray.get(clock.overdue.remote(limits.seconds))
            for reference in unfinished:
                number, task = running[reference]
                if number in overdue:
                    ray.cancel(reference, force=True)
                    clock.stop.remote(number)
                    del running[reference]
                    yield task, WorkerFailure("time_limit", f"it took more than {limits.seconds:g} s")
    finally:
        for unfinished in running:
            ray.cancel(unfinished)


class TaskClock:
    """Since when each task runs, for a cluster: how long it waited and its worker took to start does not count."""

    def __init__(self):
        self.started = {}

    def start(self, number: int) -> None:
        self.started[number] = time.monotonic()

    def stop(self, number: int) -> None:
        self.started.pop(number, None)

    def overdue(self, seconds: float) -> set[int]:
        """Tasks that have run for longer than that."""
        now = time.monotonic()
        return {number for number, start in self.started.items() if now - start > seconds}


def _ray_answer(ray, reference) -> Any:
    """What a finished task answers; a `WorkerFailure` if Ray gave it up, its own error if it raised one."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        return WorkerFailure("crashed", f"Ray gave it up: {error}")
