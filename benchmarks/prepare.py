# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Where the time of dataset preparation goes: seconds an object and stage on one core, and objects a second.

    OMP_NUM_THREADS=1 python benchmarks/prepare.py --objects objects.jsonl --count 40 --vae VAE --output prepare.json

The stages are those of `data/preparation.py`, run one after the other on the same objects; Visibility Grouping is that
of `data/latents.py`, one view at a time. The paper prepared about 0.4 objects a second on one A800 with 8 views.
"""

import argparse
import json
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from diffusers_vilearn.data import preparation
from diffusers_vilearn.data.features import SHAPE_FEATURES, VIEW_FEATURES
from diffusers_vilearn.data.frames import object_to_frame, transform_cloud, transform_points
from diffusers_vilearn.data.preparation import PreparationOptions, object_rng, render_views, sample_shape
from diffusers_vilearn.data.quality import measure_quality
from diffusers_vilearn.data.records import ObjectRecords
from diffusers_vilearn.data.shards import to_parquet
from diffusers_vilearn.geometry import load_mesh, merge_geometry, normalize_mesh, solid_surface, validate_mesh
from diffusers_vilearn.models import VecSetVAE
from diffusers_vilearn.visibility import group_visible_tokens


class Stopwatch:
    """Seconds by stage."""

    def __init__(self):
        self.seconds = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str):
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start


def prepare(record: dict, root: Path, options: PreparationOptions, clock: Stopwatch) -> tuple[dict, list[dict]]:
    """One object, timed by stage."""
    with clock("load"):
        mesh = load_mesh(root / record["path"], member=record.get("member"))
        validate_mesh(mesh)
        mesh, _ = normalize_mesh(mesh)
        merged = merge_geometry(mesh)
    with clock("solid"):
        solid = solid_surface(merged, options.solid_resolution)
    with clock("quality"):
        scores = measure_quality(mesh, merged, solid)
    with clock("samples and field"):
        shape = sample_shape(solid, object_rng(record["uid"], "shape"), options)
    with clock("render"):
        views = render_views(mesh, solid, record["uid"], options)
    described = {name: record[name] for name in ("uid", "source", "licence", "creator", "name", "category")}
    shape = described | shape | scores
    with clock("encode and write"):
        to_parquet([shape], SHAPE_FEATURES)
        to_parquet(views, VIEW_FEATURES)
    return shape, views


@torch.no_grad()
def group(vae: VecSetVAE, shape: dict, views: list[dict], clock: Stopwatch) -> None:
    """Latents and visible tokens of all views of an object."""
    for view in views:
        similarity = object_to_frame(vae.config.frame, shape["surface"][:, :3].astype(np.float32), view["azimuth"])
        with clock("encode latents"):
            cloud = transform_cloud(similarity, shape["surface"][:4096].astype(np.float32))
            latents = vae.encode(torch.from_numpy(cloud)[None]).latent_dist.mode()
        with clock("visibility grouping"):
            points = transform_points(similarity, view["visible_points"].astype(np.float32))
            group_visible_tokens(vae, latents, torch.from_numpy(points)[None], min_votes="balanced")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--sources", nargs="*")
    parser.add_argument("--count", type=int, default=40, help="Objects, spread evenly over the list.")
    parser.add_argument("--vae", required=True)
    parser.add_argument("--renderer", default="embree")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    records = ObjectRecords(args.objects, args.sources)
    records = [records[int(row)] for row in np.linspace(0, len(records) - 1, args.count)]
    options = preparation.PreparationOptions(renderer=args.renderer)
    vae = VecSetVAE.from_pretrained(args.vae).eval()
    clock = Stopwatch()
    for record in tqdm(records):
        shape, views = prepare(record, args.root or args.objects.parent, options, clock)
        group(vae, shape, views, clock)
    total = sum(clock.seconds.values())
    print("| stage | ms an object | share |\n| --- | ---: | ---: |")
    for stage, seconds in clock.seconds.items():
        print(f"| {stage} | {1e3 * seconds / len(records):.0f} | {seconds / total:.1%} |")
    rate = len(records) / total
    print(f"{rate:.2f} objects and {rate * options.num_views:.1f} views a second on one core")
    if args.output:
        result = {"objects": len(records), "views": options.num_views, "seconds": dict(clock.seconds)}
        args.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
