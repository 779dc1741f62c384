# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Run a grid: make its tables, train every arm with every seed by `train_vilearn.py`, and score the samples.

    python benchmarks/convergence/run.py --grid benchmarks/convergence/grid-cpu.yaml \\
        --output_dir runs/convergence --device cpu --minutes 30

All state is in files: ended by its time, a signal or a crash, the same command goes on. Every process writes to a log
beside its results.
"""

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import datasets
import yaml
from arms import ARMS, masked_table
from grid import SETTINGS_FILE, Run, Settings, check_kept, list_runs, read_grid
from masks import check_derived
from samples import Truths
from tasks import is_scored, list_tasks

from diffusers_vilearn import VecSetVAE
from diffusers_vilearn.data.true_meshes import TrueMeshes
from diffusers_vilearn.files import LATENTS_FILE, write_atomically
from diffusers_vilearn.training.checkpoints import delete_checkpoint, list_checkpoints, step_of

HERE = Path(__file__).resolve().parent
TRAINING = HERE.parents[1] / "training"


class TableJob:
    """Makes a latents table of some settings.

    Args:
        settings (`Settings`): whose table it is.
        masks (`str`): of `MASKS`.
        root (`Path`): of the experiment, for the log.
        device (`str`): for the models.
    """

    def __init__(self, settings: Settings, masks: str, root: Path, device: str):
        self.settings, self.masks, self.device = settings, masks, device
        self.folder = Path(settings.dataset_name)
        self.table = masked_table(settings.latents.table, masks)
        self.splits = {"train", settings.scoring.split}
        self.name = f"{self.folder.name}-{self.table}"
        self.log = root / f"{self.name}.log"

    def next_command(self) -> list | None:
        """The arguments of what is to be done next; `None` if nothing is."""
        return self._encode() if self.masks == "grouped" else self._derive()

    def _encode(self) -> list | None:
        settings, latents = self.settings, self.settings.latents
        splits = sorted(self.splits)
        wanted = set.union(*(self._shards("shapes", split) for split in splits))
        if wanted and wanted <= set.union(*(self._shards(self.table, split) for split in splits)):
            self._check_metadata(self.folder / self.table)
            return None
        command = [TRAINING / "prepare_dataset.py", "latents", "--dataset_name", self.folder, "--name", latents.name]
        command += ["--vae", settings.vae, "--image_encoder", settings.image_encoder, "--device", self.device]
        command += ["--splits", *splits, "--min_votes", latents.min_votes]
        command += ["--num_tokens", latents.num_tokens] if latents.num_tokens is not None else []
        command += ["--image_size", latents.image_size] if latents.image_size is not None else []
        return command + (["--mirror"] if latents.mirror else [])

    def _derive(self) -> list | None:
        base = self.settings.latents.table
        wanted = self._shards(base, "train")
        if wanted and wanted == self._shards(self.table, "train"):
            check_derived(self.folder, base, self.masks)
            return None
        command = [HERE / "masks.py", "--dataset_name", self.folder, "--table", base, "--masks", self.masks]
        return [*command, "--vae", self.settings.vae]

    def _shards(self, table: str, split: str) -> set[str]:
        return {path.name for path in (self.folder / table).glob(f"{split}-*.parquet")}

    def _check_metadata(self, folder: Path) -> None:
        """`train_vilearn.py` checks the models of a table, but takes it with any options."""
        metadata = json.loads((folder / LATENTS_FILE).read_text())
        for name, wanted in asdict(self.settings.latents).items():
            if wanted is not None and metadata.get(name, wanted) != wanted:
                raise ValueError(
                    f"{folder} was made with `{name}` {metadata[name]!r}, but the grid wants {wanted!r}; give its"
                    " `latents` another `name`."
                )

    def tidy(self) -> None:
        """Nothing is left over."""


class RunJob:
    """Trains and scores a run.

    Args:
        run (`Run`): which one.
        grid (`Path`): the file that it is of.
        device (`str`): for the models.
    """

    def __init__(self, run: Run, grid: Path, device: str):
        self.run, self.grid, self.device = run, grid, device
        self.name, self.log = run.name, run.folder / "log.txt"

    def next_command(self) -> list | None:
        """As `TableJob.next_command`."""
        run = self.run
        if not run.is_trained:
            config = run.folder / "train.yaml"
            config.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(config, yaml.safe_dump(run.train_arguments()).encode())
            return [TRAINING / "train_vilearn.py", "--config", config]
        self.tidy()
        if is_scored(run):
            return None
        command = [HERE / "score.py", "--grid", self.grid, "--output_dir", run.root]
        return [*command, "--run", run.name, "--device", self.device]

    def tidy(self) -> None:
        """Keep the averaged weights of the steps that are scored, and of the checkpoints only the one that training
        goes on from."""
        run, checkpoints = self.run, list_checkpoints(self.run.folder)
        for checkpoint in checkpoints if run.is_trained else checkpoints[:-1]:
            step = step_of(checkpoint)
            if step in run.settings.scoring.steps and not run.snapshot(step).exists():
                run.snapshot(step).parent.mkdir(exist_ok=True)
                os.replace(checkpoint / "transformer_ema", run.snapshot(step))
            delete_checkpoint(checkpoint)


class Slice:
    """A part of the work, ended by time or by a signal.

    Args:
        minutes (`float`, *optional*): how long it may last.
        environment (`dict`): of the processes.
        lock: open file that stays locked as long as any process of the experiment lives.
    """

    def __init__(self, minutes: float | None, environment: dict[str, str], lock):
        self.end = None if minutes is None else time.monotonic() + 60 * minutes
        self.environment, self.lock = environment, lock
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_):
        self.asked = True

    @property
    def is_over(self) -> bool:
        return self.asked or (self.end is not None and time.monotonic() > self.end)

    def work(self, jobs: list, side_by_side: int) -> list[str]:
        """Do all commands of all jobs, or as many as there is time for; returns the names of those that failed."""
        queue, running, failed = deque(jobs), {}, []
        while not self.is_over and (queue or running):
            while queue and len(running) < side_by_side:
                job = queue.popleft()
                if (command := job.next_command()) is not None:
                    running[job] = self._start(command, job.log)
            for job, process in list(running.items()):
                job.tidy()
                if process.poll() is None:
                    continue
                del running[job]
                if process.returncode == 0:
                    queue.appendleft(job)
                else:
                    failed.append(job.name)
                    print(f"{job.name} failed with status {process.returncode}: see {job.log}.", flush=True)
            time.sleep(0.2)
        # Training ends with a checkpoint; everything else just ends.
        for process in running.values():
            process.terminate()
        for job, process in running.items():
            process.wait()
            job.tidy()
        return failed

    def _start(self, command: list, log: Path) -> subprocess.Popen:
        print(" ".join(map(str, command)), flush=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            return subprocess.Popen(
                [sys.executable, *map(str, command)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                pass_fds=[self.lock.fileno()],
                # Ctrl-C is for this process, which passes it on once.
                start_new_session=True,
            )


def lock_experiment(root: Path):
    """An open file that only one experiment in `root`, with all its processes, can hold.

    Raises:
        ValueError: another one holds it.
    """
    lock = open(root / ".lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(f"An experiment is still running in {root}, perhaps what a killed one left.") from error
    return lock


def keep_grid(grid: dict[str, Settings], root: Path) -> None:
    """Note the settings of each regime in `root`; refuse to go on with others, as `check_kept`."""
    kept = check_kept(grid, root) | {name: settings.shared() for name, settings in grid.items()}
    write_atomically(root / SETTINGS_FILE, json.dumps(kept, indent=1).encode())


def check_views(runs: list[Run]) -> None:
    """Open all views that the runs are scored on, and the list of their meshes, so that none trains in vain.

    Raises:
        ValueError: a grid asks for more than its dataset has, or there are no such meshes.
    """
    opened = set()
    for run in runs:
        if (alignment := run.settings.alignment) and run.regime not in opened:
            TrueMeshes(Path(alignment.objects), Path(alignment.root), run.settings.scoring.split)
            opened.add(run.regime)
        for task in list_tasks(run):
            key = (run.regime, *sorted(task.views.items()))
            if key not in opened:
                Truths(run.settings, SimpleNamespace(**VecSetVAE.load_config(run.settings.vae)), **task.views)
                opened.add(key)


def tables_of(runs: list[Run], device: str) -> list[TableJob]:
    """The tables that runs need, each once, the ones that others are derived from first."""
    jobs = {}
    for run in runs:
        for masks in dict.fromkeys(("grouped", ARMS[run.arm].masks)):
            job = TableJob(run.settings, masks, run.root, device)
            jobs.setdefault((job.folder, job.table), job).splits |= job.splits
    return list(jobs.values())


def process_environment(device: str, threads: int | None) -> dict[str, str]:
    """Of trainers and scorers."""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    if device == "cpu":
        environment["ACCELERATE_USE_CPU"] = "true"
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def parse_args(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=Path, required=True, help="YAML file; see `grid.py`.")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="End after as long; default: when all is done.")
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--jobs", type=int, default=1, help="Runs side by side.")
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of each; default: as it is.")
    return parser.parse_args(arguments)


def main(args) -> int:
    grid = read_grid(args.grid)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    lock = lock_experiment(args.output_dir)
    keep_grid(grid, args.output_dir)
    part = Slice(args.minutes, process_environment(args.device, args.threads), lock)
    runs, failed = list_runs(grid, args.output_dir), []
    # The ablations' tables can wait until their turn.
    for ablations in (False, True):
        wanted = [run for run in runs if (run.arm in run.settings.ablations) == ablations]
        without = part.work(tables_of(wanted, args.device), 1)
        ready = [run for run in wanted if not {job.name for job in tables_of([run], args.device)} & set(without)]
        if not part.is_over:
            check_views(ready)
        failed += without + part.work([RunJob(run, args.grid, args.device) for run in ready], args.jobs)
    done = sum(run.is_trained and is_scored(run) for run in runs)
    print(f"{done} of {len(runs)} runs are done." + ("" if done == len(runs) else " The same command goes on."))
    return 1 if failed else 0


if __name__ == "__main__":
    datasets.disable_progress_bars()
    sys.exit(main(parse_args()))
