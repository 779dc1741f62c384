# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Draw held-out results: input, the generated mesh from four sides, the true object from the first of them.

    python training/tiny/contact_sheet.py --checkpoint checkpoints/vilearn-tiny --dataset_name data/tiny-heldout \\
        --objects objects.jsonl --root meshes --output docs/contact_sheet.png

The objects are spread evenly over the held-out table, whose order is that of hashed ids: nothing is picked by hand.
"""

import argparse
from pathlib import Path

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm

from diffusers_vilearn import ViLearnImageTo3DPipeline
from diffusers_vilearn.data.evaluation_views import EvaluationViews
from diffusers_vilearn.data.images import prepare_condition_image
from diffusers_vilearn.data.true_meshes import TrueMeshes
from diffusers_vilearn.pipelines.preview import contact_sheet, render_views

HEADINGS = ("input", "front", "right", "back", "left", "truth, front")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--dataset_name", required=True)
    parser.add_argument("--split", default="heldout")
    parser.add_argument("--objects", type=Path, required=True, help="`objects.jsonl` of the corpus.")
    parser.add_argument("--root", type=Path, required=True, help="Folder that its paths are relative to.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--columns", type=int, default=2, help="Objects beside each other.")
    parser.add_argument("--size", type=int, default=120, help="Side of each picture in pixels.")
    parser.add_argument("--num_inference_steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main(args):
    pipeline = ViLearnImageTo3DPipeline.from_pretrained(args.checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    config = pipeline.vae.config
    views = EvaluationViews(args.dataset_name, args.split, frame=config.frame, bounds=config.bounds)
    truth = TrueMeshes(args.objects, args.root, args.split)
    cells = []
    for index in tqdm(np.linspace(0, len(views) - 1, min(args.count, len(views))).astype(int)):
        view = views[int(index)]
        generator = torch.Generator().manual_seed(args.seed)
        mesh = pipeline(
            view.image, num_inference_steps=args.num_inference_steps, generator=generator, resolution=128
        ).meshes[0]
        picture = prepare_condition_image(view.image, args.size)
        (front,) = render_views(truth.in_frame_of(view), azimuths=(0,), size=args.size)
        cells.append([picture, *render_views(mesh, size=args.size), front])
    groups = (cells[start : start + args.columns] for start in range(0, len(cells), args.columns))
    rows = [[picture for cell in group for picture in cell] for group in groups]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows, headings=HEADINGS * min(args.columns, len(cells))).save(args.output, optimize=True)


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(parse_args())
