# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Turn meshes into a visibility-annotated dataset; every command may be interrupted and run again.

    prepare scan --folder meshes --output objects.jsonl
    prepare shapes --objects objects.jsonl --output_dir data/mine
    prepare latents --dataset_name data/mine --vae runs/vae/vae --image_encoder facebook/dinov2-large
    prepare publish --dataset_name data/mine --repo_id me/mine

`prepare` is `diffusers-vilearn prepare` or `python training/prepare_dataset.py`.

`scan` lists the meshes of a folder, finds near-duplicates and splits by object. `shapes` reads such a list, one JSON
line an object (`uid`, `path` from `--root`, `source`, `licence`, `creator`, `name`, `category`, `split`), and writes
the tables `shapes`, `views` and `rejects`. `latents` encodes every view's shape in the frame of the VAE, groups its
tokens by visibility and caches the image tokens.
"""

import argparse
import os
import sys
import time
from dataclasses import fields
from functools import partial
from pathlib import Path

import datasets

from .engines import run_local, run_ray
from .preparation import ObjectPreparation, PreparationOptions
from .quality import QualityLimits
from .records import ObjectRecords
from .scanning import scan_meshes
from .shapes import build_shapes
from .workers import WorkerLimits


def votes(text: str) -> int | str:
    """What `--min_votes` says: a number or `balanced`."""
    return text if text == "balanced" else int(text)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)

    scan = commands.add_parser("scan", help="a folder of meshes -> a list of objects")
    scan.set_defaults(command=scan_folder)
    scan.add_argument("--folder", type=Path, required=True, help="Searched for OBJ, GLB, GLTF, PLY, STL, OFF and zip.")
    scan.add_argument("--output", type=Path, required=True, help="JSON lines to write, one an object.")
    scan.add_argument("--source", default="local", help="Of all objects; letters, digits, `_` and `.`.")
    scan.add_argument("--licence", default="unknown", help="Of all objects.")
    scan.add_argument("--creator", default="unknown", help="Of all objects.")
    scan.add_argument("--heldout_fraction", type=float, default=0.1, help="Part of the groups that is held out.")
    _add_engine(scan)

    shapes = commands.add_parser("shapes", help="meshes -> shapes and views")
    shapes.set_defaults(command=prepare_shapes)
    shapes.add_argument("--objects", type=Path, required=True, help="JSON lines, one an object.")
    shapes.add_argument("--root", type=Path, help="Folder that paths are relative to; default: of --objects.")
    shapes.add_argument("--output_dir", type=Path, required=True)
    shapes.add_argument("--sources", nargs="*", help="Only objects of these sources.")
    shapes.add_argument("--splits", nargs="*", help="Only objects of these splits.")
    shapes.add_argument("--objects_per_shard", type=int, default=64)
    _add_engine(shapes)
    _add_fields(shapes, PreparationOptions)
    _add_fields(shapes, QualityLimits)

    latents = commands.add_parser("latents", help="shapes and views -> latents with visible tokens")
    latents.set_defaults(command=prepare_latents)
    latents.add_argument("--dataset_name", type=Path, required=True, help="Folder written by `shapes`.")
    latents.add_argument("--vae", required=True, help="Folder or Hub id of a `VecSetVAE`.")
    latents.add_argument(
        "--image_encoder", required=True, help="Folder or Hub id of a `Dinov2Model` and its processor."
    )
    latents.add_argument("--name", default="latents", help="Name of the table that is written.")
    latents.add_argument(
        "--num_tokens", type=int, nargs="*", help="One table `<name>-<tokens>` each; default: the VAE's, in `<name>`."
    )
    latents.add_argument(
        "--num_points",
        type=int,
        default=4096,
        help="Given to the encoder of each cloud, at most as many as are stored.",
    )
    latents.add_argument(
        "--min_votes",
        type=votes,
        default="balanced",
        help="Votes that make a token visible: a number or balanced.",
    )
    latents.add_argument("--image_size", type=int, help="Of the condition image; default: the image processor's.")
    latents.add_argument("--mirror", action="store_true", help="Also encode the mirror image of every view.")
    latents.add_argument("--splits", nargs="*", default=["train"])
    latents.add_argument("--batch_size", type=int, default=16)
    latents.add_argument("--device", help="Default: CUDA if there is one.")

    publish = commands.add_parser("publish", help="write the dataset card, and upload the dataset to the Hub")
    publish.set_defaults(command=publish_dataset)
    publish.add_argument("--dataset_name", type=Path, required=True, help="Folder written by `shapes`.")
    publish.add_argument("--repo_id", help="Dataset on the Hub; without it only the card is written.")
    publish.add_argument("--private", action="store_true")
    return parser


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="Processes here, or a Ray cluster."
    )
    parser.add_argument("--num_workers", type=int, default=os.cpu_count(), help="Processes of the local engine.")
    parser.add_argument("--ray_address", help="Of the cluster, such as ray://host:10001.")
    parser.add_argument("--time_limit", type=float, default=WorkerLimits.seconds, help="Seconds an object.")
    parser.add_argument("--memory_limit", type=float, default=WorkerLimits.memory_gib, help="GiB an object.")


def _engine(args: argparse.Namespace):
    limits = WorkerLimits(seconds=args.time_limit, memory_gib=args.memory_limit)
    if args.engine == "ray":
        return partial(run_ray, limits=limits, address=args.ray_address)
    return partial(run_local, limits=limits, num_workers=args.num_workers)


def _add_fields(parser: argparse.ArgumentParser, options: type) -> None:
    """One argument for each field of a dataclass."""
    for field in fields(options):
        many = isinstance(field.default, tuple)
        kind = type(field.default[0]) if many else type(field.default)
        # Two numbers are a range.
        number = (2 if len(field.default) == 2 else "+") if many else None
        parser.add_argument(f"--{field.name}", type=kind, nargs=number, default=field.default)


def _take_fields(args: argparse.Namespace, options: type):
    values = {field.name: getattr(args, field.name) for field in fields(options)}
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def scan_folder(args: argparse.Namespace) -> None:
    counts = scan_meshes(
        args.folder,
        args.output,
        _engine(args),
        source=args.source,
        licence=args.licence,
        creator=args.creator,
        heldout_fraction=args.heldout_fraction,
    )
    print(f"{args.output}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


def prepare_shapes(args: argparse.Namespace) -> None:
    preparation = ObjectPreparation(
        args.root or args.objects.parent, _take_fields(args, PreparationOptions), _take_fields(args, QualityLimits)
    )
    start = time.perf_counter()
    records = ObjectRecords(args.objects, args.sources, args.splits)
    counts = build_shapes(records, args.output_dir, preparation, _engine(args), args.objects_per_shard)
    minutes = (time.perf_counter() - start) / 60
    print(f"{args.output_dir}: {counts.pop('accepted')} of {len(records)} objects, in {minutes:.1f} minutes.")
    for reason, count in counts.most_common():
        print(f"  rejected, {reason}: {count}")


def prepare_latents(args: argparse.Namespace) -> None:
    # Not at the top: the workers of the other commands need no models.
    import torch

    from .latents import LatentEncoder, encode_dataset

    encoder = LatentEncoder.from_pretrained(
        args.vae,
        args.image_encoder,
        device=args.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        min_votes=args.min_votes,
        num_points=args.num_points,
        mirror=args.mirror,
        image_size=args.image_size,
    )
    tables = {f"{args.name}-{num_tokens}": num_tokens for num_tokens in args.num_tokens or ()}
    tables = tables or {args.name: encoder.vae.config.num_tokens}
    encode_dataset(encoder, args.dataset_name, tables, splits=args.splits, batch_size=args.batch_size)


def publish_dataset(args: argparse.Namespace) -> None:
    from ..hub import push_dataset, write_dataset_card

    if args.repo_id is None:
        print(write_dataset_card(args.dataset_name))
    else:
        print(push_dataset(args.dataset_name, args.repo_id, private=args.private))


def main(arguments: list[str] | None = None) -> None:
    """Run one command; `arguments` are those of the process if left out. What is wrong with them or with the disk ends
    the process with one line."""
    datasets.disable_progress_bars()
    args = make_parser().parse_args(arguments)
    try:
        args.command(args)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"Error: {error}")
