# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Turn meshes into a visibility-annotated dataset; every command may be interrupted and run again.

    diffusers-vilearn prepare scan --folder meshes --output objects.jsonl
    diffusers-vilearn prepare shapes --objects objects.jsonl --root meshes --output_dir data/mine
    diffusers-vilearn prepare latents --dataset_name data/mine --vae runs/vae/vae --image_encoder facebook/dinov2-large
    diffusers-vilearn prepare publish --dataset_name data/mine --repo_id me/mine

`python training/prepare_dataset.py` is the same as `diffusers-vilearn prepare`.

`scan` lists the meshes of a folder, finds near-duplicates and splits by object. `shapes` reads such a list, one JSON
line an object (`uid`, `path` from `--root`, `source`, `licence`, `creator`, `name`, `category`, `split`), and writes
the tables `shapes`, `views` and `rejects`. `latents` encodes every view's shape in the frame of the VAE, groups its
tokens by visibility and caches the image tokens.
"""

import argparse
import inspect
import os
import re
import sys
import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import get_args

import datasets

from ..errors import refusals_in_one_line
from .engines import run_local, run_ray
from .preparation import ObjectPreparation, PreparationOptions, Reject
from .quality import QualityLimits
from .records import ObjectRecords, plan_shards
from .scanning import scan_meshes
from .shapes import build_shapes, first_rejects
from .shards import rows_by_split
from .workers import WorkerLimits

# Of those that are rejected, so many are named.
NUM_NAMED = 5
DEFAULT = "(default: %(default)s)"


def votes(text: str) -> int | str:
    """What `--min_votes` says: a number or `balanced`."""
    return text if text == "balanced" else int(text)


def make_parser(program: str | None) -> argparse.ArgumentParser:
    """Of the four commands; `program` is the name that help and errors show, the script's if none is given."""
    parser = argparse.ArgumentParser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)

    scan = commands.add_parser("scan", help="a folder of meshes -> a list of objects")
    scan.set_defaults(command=scan_folder)
    scan.add_argument("--folder", type=Path, required=True, help="Searched for OBJ, GLB, GLTF, PLY, STL, OFF and zip.")
    scan.add_argument("--output", type=Path, required=True, help="JSON lines to write, one an object.")
    scan.add_argument(
        "--source", default="local", help=f"Where all objects are from; letters, digits, `_` and `.` {DEFAULT}."
    )
    scan.add_argument("--licence", default="unknown", help=f"Licence of all objects {DEFAULT}.")
    scan.add_argument("--creator", default="unknown", help=f"Who made all objects {DEFAULT}.")
    scan.add_argument(
        "--heldout_fraction", type=float, default=0.1, help=f"Part of the groups that is held out {DEFAULT}."
    )
    _add_engine(scan)

    shapes = commands.add_parser("shapes", help="meshes -> shapes and views")
    shapes.set_defaults(command=prepare_shapes)
    shapes.add_argument("--objects", type=Path, required=True, help="JSON lines, one an object.")
    shapes.add_argument("--root", type=Path, help="Folder that paths are relative to; default: of --objects.")
    shapes.add_argument("--output_dir", type=Path, required=True, help="Folder of the dataset.")
    shapes.add_argument("--sources", nargs="*", help="Only objects of these sources.")
    shapes.add_argument("--splits", nargs="*", help="Only objects of these splits.")
    shapes.add_argument("--objects_per_shard", type=int, default=64, help=f"Objects of a Parquet file {DEFAULT}.")
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
    latents.add_argument("--name", default="latents", help=f"Name of the table that is written {DEFAULT}.")
    latents.add_argument(
        "--num_tokens", type=int, nargs="*", help="One table `<name>-<tokens>` each; default: the VAE's, in `<name>`."
    )
    latents.add_argument(
        "--num_points",
        type=int,
        default=4096,
        help=f"Given to the encoder of each cloud, at most as many as are stored {DEFAULT}.",
    )
    latents.add_argument(
        "--min_votes",
        type=votes,
        default="balanced",
        help=f"Votes that make a token visible: a number or balanced {DEFAULT}.",
    )
    latents.add_argument("--image_size", type=int, help="Of the condition image; default: the image processor's.")
    latents.add_argument("--mirror", action="store_true", help="Also encode the mirror image of every view.")
    latents.add_argument("--splits", nargs="*", default=["train"], help="Whose shapes are encoded (default: train).")
    latents.add_argument("--batch_size", type=int, default=16, help=f"Views at a time {DEFAULT}.")
    latents.add_argument("--device", help="Default: CUDA if there is one.")

    publish = commands.add_parser("publish", help="write the dataset card, and upload the dataset to the Hub")
    publish.set_defaults(command=publish_dataset)
    publish.add_argument("--dataset_name", type=Path, required=True, help="Folder written by `shapes`.")
    publish.add_argument("--repo_id", help="Dataset on the Hub; without it only the card is written.")
    publish.add_argument("--private", action="store_true", help="Make the repository private, if it is not there yet.")
    return parser


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local", help=f"Processes here, or a Ray cluster {DEFAULT}."
    )
    parser.add_argument(
        "--num_workers", type=int, default=os.cpu_count(), help=f"Processes of the local engine {DEFAULT}."
    )
    parser.add_argument("--ray_address", help="Of the cluster, such as ray://host:10001.")
    parser.add_argument("--time_limit", type=float, default=WorkerLimits.seconds, help=f"Seconds an object {DEFAULT}.")
    parser.add_argument(
        "--memory_limit", type=float, default=WorkerLimits.memory_gib, help=f"GiB an object {DEFAULT}."
    )


def _engine(args: argparse.Namespace):
    limits = WorkerLimits(seconds=args.time_limit, memory_gib=args.memory_limit)
    if args.engine == "ray":
        return partial(run_ray, limits=limits, address=args.ray_address)
    return partial(run_local, limits=limits, num_workers=args.num_workers)


def _add_fields(parser: argparse.ArgumentParser, options: type) -> None:
    """One argument for each field of a dataclass, explained by the dataclass's docstring."""
    texts = _field_texts(options)
    for field in fields(options):
        many = isinstance(field.default, tuple)
        values = field.default if many else (field.default,)
        parser.add_argument(
            f"--{field.name}",
            type=type(values[0]),
            # Two numbers are a range.
            nargs=(2 if len(values) == 2 else "+") if many else None,
            choices=None if many else get_args(field.type) or None,
            default=field.default,
            help=f"{texts[field.name]} (default: {' '.join(map(str, values))}).",
        )


def _field_texts(options: type) -> dict[str, str]:
    """Field -> what the `Args:` of a dataclass's docstring say of it."""
    texts = {}
    for entry in re.split(r"\n {4}(?=\w)", inspect.getdoc(options).partition("Args:")[2])[1:]:
        names, _, text = entry.partition(": ")
        text = " ".join(text.split()).removesuffix(".")
        texts |= dict.fromkeys(names.partition(" (")[0].split(", "), text[0].upper() + text[1:])
    return texts


def _take_fields(args: argparse.Namespace, options: type):
    values = {field.name: getattr(args, field.name) for field in fields(options)}
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def scan_folder(args: argparse.Namespace) -> None:
    counts, unreadable = scan_meshes(
        args.folder,
        args.output,
        _engine(args),
        source=args.source,
        licence=args.licence,
        creator=args.creator,
        heldout_fraction=args.heldout_fraction,
    )
    print(f"{args.output}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    _print_rejects(
        unreadable[:NUM_NAMED], "they stay in the list, and `shapes` puts them all into the table `rejects`"
    )
    for split, wanted in {"train": args.heldout_fraction < 1, "heldout": args.heldout_fraction > 0}.items():
        if wanted and not counts[split]:
            _warn(
                f"no mesh that can be read is {split}: each of {counts['groups']} groups is held out, by its name,"
                f" with a chance of {args.heldout_fraction}; see `--heldout_fraction`."
            )


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
    rejects = first_rejects(args.output_dir, plan_shards(records, args.objects_per_shard), NUM_NAMED)
    _print_rejects(rejects, f"all of them with their reasons: table `rejects`, {args.output_dir / 'rejects'}")
    rows = rows_by_split(args.output_dir / "shapes")
    for split in dict.fromkeys(split for split, _ in records.groups):
        if not rows[split]:
            _warn(f"{args.output_dir} has no {split} objects: all were rejected.")


def _print_rejects(first: list[Reject], rest: str) -> None:
    """The first rejects in one line each, and what became of all."""
    for uid, reason, message in first:
        print(f"    {uid} ({reason}): {' '.join(message.split())}")
    if first:
        print(f"  {rest}")


def _warn(message: str) -> None:
    print(f"Warning: {message}", file=sys.stderr)


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
    rows = encode_dataset(encoder, args.dataset_name, tables, splits=args.splits, batch_size=args.batch_size)
    for table, num_tokens in tables.items():
        print(f"{args.dataset_name / table}: {rows[table]} rows of {num_tokens} tokens ({', '.join(args.splits)})")


def publish_dataset(args: argparse.Namespace) -> None:
    from ..hub import push_dataset, write_dataset_card

    if args.repo_id is None:
        print(write_dataset_card(args.dataset_name))
    else:
        print(push_dataset(args.dataset_name, args.repo_id, private=args.private))


def main(arguments: list[str] | None = None, program: str | None = "diffusers-vilearn prepare") -> None:
    """Run one command; `arguments` are those of the process if left out, and `program` is what help calls it. What is
    wrong with them or with the disk ends the process with one line."""
    datasets.disable_progress_bars()
    args = make_parser(program).parse_args(arguments)
    with refusals_in_one_line():
        args.command(args)
