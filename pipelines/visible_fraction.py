# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""One picture, several visible fractions: how much the model invents where the picture shows nothing.

    python pipelines/visible_fraction.py docs/images/demo.png --output outputs/visible_fraction.png

Each row is one fraction of shape tokens declared visible: the mesh from the front, right, back and left.
The paper's supplement (Fig. S2) sees more detail behind with fewer visible tokens, less with more.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from diffusers_vilearn import ViLearnImageTo3DPipeline
from diffusers_vilearn.pipelines.preview import contact_sheet, render_views


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, help="RGBA picture of an object.")
    parser.add_argument("--checkpoint", default="checkpoints/vilearn-tiny")
    parser.add_argument("--fractions", type=float, nargs="+", default=[1 / 4, 1 / 3, 1 / 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=192)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def main(args):
    pipe = ViLearnImageTo3DPipeline.from_pretrained(args.checkpoint).to(args.device)
    picture = Image.open(args.image)
    rows = []
    for fraction in args.fractions:
        mesh = pipe(
            picture,
            num_inference_steps=25,
            visible_fraction=fraction,
            resolution=args.resolution,
            generator=torch.Generator().manual_seed(args.seed),
        ).meshes[0]
        rows.append(render_views(mesh))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    labels = [f"visible fraction {fraction:.2f}" for fraction in args.fractions]
    contact_sheet(rows, labels=labels, headings=["front", "right", "back", "left"]).save(args.output)


if __name__ == "__main__":
    main(parse_args())
