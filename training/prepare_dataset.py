# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Turn meshes into a visibility-annotated dataset, in two commands that may be interrupted and run again.

    python training/prepare_dataset.py shapes --objects objects.jsonl --output_dir data/tiny
    python training/prepare_dataset.py latents --dataset_name data/tiny --vae runs/vae/vae --image_encoder DINOV2

`shapes` reads one JSON line an object (`uid`, `path`, `source`, `licence`, `creator`, `name`, `category`, `split`;
paths are relative to `--root`) and writes the tables `shapes` and `views`. `latents` encodes every view's shape in the
frame of the VAE, groups its tokens by visibility and caches the image tokens.
"""

import argparse
import hashlib
import json
import os
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, fields
from pathlib import Path

import datasets
import torch
from tqdm.auto import tqdm

from diffusers_vilearn.data.features import SHAPE_FEATURES, VIEW_FEATURES
from diffusers_vilearn.data.preparation import PreparationOptions, prepare_object
from diffusers_vilearn.data.shards import shard_path, write_shard
from diffusers_vilearn.geometry import load_mesh


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    shapes = commands.add_parser("shapes", help="meshes -> shapes and views")
    shapes.add_argument("--objects", type=Path, required=True, help="JSON lines, one an object.")
    shapes.add_argument(
        "--root", type=Path, default=None, help="Folder that paths are relative to; default: of --objects."
    )
    shapes.add_argument("--output_dir", type=Path, required=True)
    shapes.add_argument("--sources", nargs="*", default=None, help="Only objects of these sources.")
    shapes.add_argument("--splits", nargs="*", default=None, help="Only objects of these splits.")
    shapes.add_argument("--objects_per_shard", type=int, default=16)
    shapes.add_argument("--num_workers", type=int, default=os.cpu_count())
    for field in fields(PreparationOptions):
        many = isinstance(field.default, tuple)
        kind = type(field.default[0]) if many else type(field.default)
        shapes.add_argument(f"--{field.name}", type=kind, nargs="+" if many else None, default=field.default)

    latents = commands.add_parser("latents", help="shapes and views -> latents with visible tokens")
    latents.add_argument("--dataset_name", type=Path, required=True, help="Folder written by `shapes`.")
    latents.add_argument("--vae", required=True, help="Folder or Hub id of a `VecSetVAE`.")
    latents.add_argument(
        "--image_encoder", required=True, help="Folder or Hub id of a `Dinov2Model` and its processor."
    )
    latents.add_argument("--name", default="latents", help="Name of the table that is written.")
    latents.add_argument("--num_tokens", type=int, default=None, help="Default: the VAE's own.")
    latents.add_argument(
        "--min_votes", default="balanced", help="Votes that make a token visible: a number or balanced."
    )
    latents.add_argument("--mirror", action="store_true", help="Also encode the mirror image of every view.")
    latents.add_argument("--splits", nargs="*", default=["train"])
    latents.add_argument("--batch_size", type=int, default=16)
    latents.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def plan_shards(objects: list[dict], objects_per_shard: int) -> dict[str, list[dict]]:
    """Name of each shard -> its objects, in an order that mixes categories but depends on the uids only."""
    groups = defaultdict(list)
    for record in sorted(objects, key=lambda record: hashlib.sha256(record["uid"].encode()).hexdigest()):
        groups[record["split"], record["source"]].append(record)
    return {
        f"{split}-{source}-{start // objects_per_shard:05d}": records[start : start + objects_per_shard]
        for (split, source), records in sorted(groups.items())
        for start in range(0, len(records), objects_per_shard)
    }


def prepare_shard(shard: str, records: list[dict], root: Path, output_dir: Path, options: PreparationOptions) -> list:
    """Prepare the objects of one shard; return the rejected ones with their reasons."""
    datasets.disable_progress_bars()
    shapes, views, rejects = [], [], []
    for record in records:
        try:
            shape, shape_views = prepare_object(load_mesh(root / record["path"]), record, options)
        except (ValueError, OSError) as error:
            rejects.append({"uid": record["uid"], "reason": str(error)})
            continue
        shapes.append(shape)
        views.extend(shape_views)
    (output_dir / "rejects").mkdir(exist_ok=True)
    (output_dir / "rejects" / f"{shard}.json").write_text(json.dumps(rejects, indent=1))
    write_shard(output_dir, "views", shard, views, VIEW_FEATURES)
    # The shapes come last: a shard with shapes is a finished one.
    write_shard(output_dir, "shapes", shard, shapes, SHAPE_FEATURES)
    return rejects


def check_options(output_dir: Path, options: PreparationOptions, objects_per_shard: int) -> None:
    """Refuse to mix rows made with different options, or shards of different sizes, in one folder."""
    path = output_dir / "preparation.json"
    wanted = json.loads(json.dumps(asdict(options) | {"objects_per_shard": objects_per_shard}))
    if path.exists() and json.loads(path.read_text()) != wanted:
        raise ValueError(f"{output_dir} was prepared with other options ({path}); choose another `--output_dir`.")
    path.write_text(json.dumps(wanted, indent=1))


def prepare_shapes(args):
    objects = [json.loads(line) for line in args.objects.read_text().splitlines()]
    objects = [record for record in objects if args.sources is None or record["source"] in args.sources]
    objects = [record for record in objects if args.splits is None or record["split"] in args.splits]
    options = {field.name: getattr(args, field.name) for field in fields(PreparationOptions)}
    options = PreparationOptions(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
    args.output_dir.mkdir(parents=True, exist_ok=True)
    check_options(args.output_dir, options, args.objects_per_shard)

    shards = plan_shards(objects, args.objects_per_shard)
    missing = {name: rows for name, rows in shards.items() if not shard_path(args.output_dir, "shapes", name).exists()}
    done = len(objects) - sum(map(len, missing.values()))
    num_rejects = 0
    with (
        tqdm(total=len(objects), initial=done, desc="Objects", unit="object") as progress,
        ProcessPoolExecutor(args.num_workers) as pool,
    ):
        jobs = {
            pool.submit(prepare_shard, name, rows, args.root or args.objects.parent, args.output_dir, options): rows
            for name, rows in missing.items()
        }
        for job in as_completed(jobs):
            num_rejects += len(job.result())
            progress.update(len(jobs[job]))
            progress.set_postfix(rejected=num_rejects)
    print(f"{len(objects)} objects prepared in {args.output_dir}, {num_rejects} rejected in this run (see rejects/).")


def prepare_latents(args):
    # Not at the top: the workers of `shapes` need no models.
    from diffusers_vilearn.data.latents import LatentEncoder

    min_votes = args.min_votes if args.min_votes == "balanced" else int(args.min_votes)
    encoder = LatentEncoder.from_pretrained(
        args.vae,
        args.image_encoder,
        device=args.device,
        num_tokens=args.num_tokens,
        min_votes=min_votes,
        mirror=args.mirror,
    )
    encoder.check_table(args.dataset_name / args.name)
    shards = [path.stem for path in (args.dataset_name / "shapes").glob("*.parquet")]
    shards = sorted(name for name in shards if name.split("-")[0] in args.splits)
    for shard in tqdm(shards, desc="Shards"):
        if shard_path(args.dataset_name, args.name, shard).exists():
            continue
        rows = encoder.encode_shard(args.dataset_name, shard, args.batch_size)
        write_shard(args.dataset_name, args.name, shard, rows, encoder.features)


if __name__ == "__main__":
    datasets.disable_progress_bars()
    arguments = parse_args()
    {"shapes": prepare_shapes, "latents": prepare_latents}[arguments.command](arguments)
