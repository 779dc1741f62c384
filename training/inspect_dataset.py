# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Look at a prepared dataset: condition views with their visible points drawn over them, and its statistics.

    python training/inspect_dataset.py --dataset_name data/tiny --output data/tiny.png

Green points lie where the camera should see the surface: all of them on the object, none behind it. With a latents
table, prints how the visible share of its tokens is distributed and how far it agrees with the tokens' own points.
"""

import argparse
from pathlib import Path

import datasets
import numpy as np
from PIL import Image, ImageDraw

from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.errors import refusals_in_one_line
from diffusers_vilearn.geometry import Camera
from diffusers_vilearn.pipelines.preview import contact_sheet


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", required=True, help="Folder or Hub id of a prepared dataset.")
    parser.add_argument("--split", default="train")
    parser.add_argument("--output", type=Path, required=True, help="Picture to write.")
    parser.add_argument("--latents", help="Table whose statistics are printed.")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--size", type=int, default=160, help="Side of each picture in pixels.")
    parser.add_argument("--points", type=int, default=256, help="Visible points drawn on each.")
    return parser.parse_args()


def draw_view(view: dict, size: int, num_points: int) -> Image.Image:
    """The condition image on white with some of its visible points."""
    camera = Camera(view["camera_to_world"], view["vertical_fov"], view["orthographic_height"])
    image = view["image"].resize((size, size), Image.Resampling.BICUBIC)
    picture = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    draw = ImageDraw.Draw(picture)
    pixels, _ = camera.project(np.asarray(view["visible_points"][:num_points], np.float64), size)
    for x, y in pixels:
        draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=(0, 160, 60))
    return picture


def load_latents(dataset: str, table: str, split: str) -> datasets.Dataset:
    """Rows of a latents table."""
    rows = load_table(dataset, table, split)
    if "visible_share" not in rows.column_names:
        raise ValueError(f"`--latents` must be a table of latents, but {table!r} of {dataset} is none.")
    return rows


def print_statistics(latents: datasets.Dataset) -> None:
    """Quantiles and a histogram of the visible share, and the mean agreement with the anchors."""
    shares = np.array(latents["visible_share"])
    print(f"visible share of {len(shares)} views: mean {shares.mean():.3f}, median {np.median(shares):.3f}")
    counts, edges = np.histogram(shares, bins=20, range=(0, 1))
    for count, low, high in zip(counts, edges, edges[1:]):
        print(f"  {low:.2f} to {high:.2f} {'#' * round(60 * count / counts.max())} {count}")
    print(f"agreement with the tokens' own points: mean {np.mean(latents['anchor_agreement']):.3f}")


def main(args):
    views = load_table(args.dataset_name, "views", args.split)
    latents = load_latents(args.dataset_name, args.latents, args.split) if args.latents else None
    rows = np.linspace(0, len(views) - 1, min(args.count, len(views))).astype(int)
    pictures = [draw_view(views[int(row)], args.size, args.points) for row in rows]
    sheet = [pictures[start : start + args.columns] for start in range(0, len(pictures), args.columns)]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(sheet).save(args.output, optimize=True)
    if latents is not None:
        print_statistics(latents)


if __name__ == "__main__":
    datasets.disable_progress_bars()
    with refusals_in_one_line():
        main(parse_args())
