# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Score the snapshots of one run of a grid; may be killed and run again.

    python benchmarks/convergence/score.py --grid benchmarks/convergence/grid-cpu.yaml \\
        --output_dir runs/convergence --run base/va_rope/seed-0
"""

import argparse
import json
from functools import cached_property
from pathlib import Path

import datasets
import torch
from alignment import Alignments
from grid import Run, check_kept, list_runs, read_grid
from losses import LossByNoise
from masks import check_vae
from samples import Sampler, Truths, decode_and_score
from tasks import Task, list_tasks, loss_path

from diffusers_vilearn import VecSetVAE, ViLearnTransformer3DModel
from diffusers_vilearn.files import append_json_line, write_atomically
from diffusers_vilearn.metrics.score_files import read_scores
from diffusers_vilearn.training.tables import read_metadata


class Scorer:
    """Scores one run.

    Args:
        run (`Run`): whose snapshots are there.
        device (`str`): of the models.

    Raises:
        ValueError: its latents were made by another VAE than the grid's.
    """

    def __init__(self, run: Run, device: str):
        self.run, self.device = run, torch.device(device)
        self.vae = VecSetVAE.from_pretrained(run.settings.vae).to(self.device).eval()
        self._opened: dict[tuple, Truths] = {}
        metadata = read_metadata(run.settings.dataset_name, run.table)
        check_vae(self.vae, metadata, f"{run.table} of {run.settings.dataset_name}")
        self.num_tokens = metadata["num_tokens"]
        self.autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=run.settings.train.get("mixed_precision") == "bf16"
        )

    @cached_property
    def alignments(self) -> Alignments:
        return Alignments(self.run.settings, self.device)

    def _truths(self, views: dict) -> Truths:
        key = tuple(sorted(views.items()))
        if key not in self._opened:
            self._opened[key] = Truths(self.run.settings, self.vae.config, **views)
        return self._opened[key]

    def _transformer(self, step: int) -> ViLearnTransformer3DModel:
        return ViLearnTransformer3DModel.from_pretrained(self.run.snapshot(step)).to(self.device).eval()

    def score(self, task: Task) -> None:
        """Write the scores of one task, going on after those of a killed process."""
        path, scoring = task.path(self.run), self.run.settings.scoring
        partial = path.with_suffix(".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        done = read_scores(partial)
        truths = self._truths(task.views)
        sampler = Sampler(self.run.settings, self.vae, self._transformer(task.step), self.num_tokens)
        # Batches stay what they were before a kill: matrix products round differently in others.
        for start in range(0, len(truths), scoring.batch_size):
            rows = range(start, min(start + scoring.batch_size, len(truths)))
            if all(truths.keys[row] in done for row in rows):
                continue
            batch = [truths[row] for row in rows]
            with self.autocast:
                latents = sampler.sample(batch, task.guidance_scale, task.visible_fraction)
            for shape, truth in zip(latents.split(1), batch, strict=True):
                if truth.view.key not in done:
                    with self.autocast:
                        mesh, scores = decode_and_score(self.vae, shape, truth, scoring.resolution)
                    if task.measures_alignment:
                        scores |= self.alignments.score(mesh, truth.view)
                    append_json_line(partial, {"uid": truth.view.uid, "view": truth.view.view, **scores})
        partial.replace(path)

    def measure_losses(self) -> None:
        """Write the diagnostic losses of all snapshots."""
        losses = LossByNoise(self.run, self.num_tokens, self.device)
        for step in self.run.settings.scoring.steps:
            path = loss_path(self.run, step)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with self.autocast:
                    measured = losses.measure(self._transformer(step), self.vae)
                write_atomically(path, json.dumps(measured).encode())


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--run", required=True, help="Its name: regime/arm/seed-0.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main(args):
    grid = read_grid(args.grid)
    check_kept(grid, args.output_dir)
    runs = {run.name: run for run in list_runs(grid, args.output_dir)}
    if args.run not in runs:
        raise ValueError(f"`--run` is {args.run}, which {args.grid} does not have: {', '.join(runs)}.")
    run = runs[args.run]
    scorer = Scorer(run, args.device)
    for task in list_tasks(run):
        if not task.path(run).exists():
            scorer.score(task)
    scorer.measure_losses()


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(parse_args())
