# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A trained pipeline -> `checkpoints/vilearn-tiny`: half precision, and a card with the measured figures.

    python training/tiny/publish.py weights --pipeline runs/vilearn --output_dir checkpoints/vilearn-tiny
    python training/tiny/publish.py card --checkpoint checkpoints/vilearn-tiny --evaluation runs/eval \\
        --objects objects.jsonl --facts facts.json
"""

import argparse
import json
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import torch

from diffusers_vilearn import ViLearnImageTo3DPipeline
from diffusers_vilearn.hub import write_card_and_example


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    weights = commands.add_parser("weights", help="save a pipeline in half precision")
    weights.add_argument("--pipeline", required=True)
    weights.add_argument("--output_dir", type=Path, required=True)
    card = commands.add_parser("card", help="write the model card of a checkpoint")
    card.add_argument("--checkpoint", type=Path, required=True)
    card.add_argument("--evaluation", type=Path, required=True, help="Folder written by `training/evaluate.py`.")
    card.add_argument("--objects", type=Path, required=True, help="`objects.jsonl` of the corpus.")
    card.add_argument("--facts", type=Path, required=True, help="JSON: how this checkpoint was trained and measured.")
    return parser.parse_args()


def publish_weights(args):
    """Save in half precision beside the target, then swap, so that the old checkpoint stays whole until the end."""
    pipeline = ViLearnImageTo3DPipeline.from_pretrained(args.pipeline).to(torch.float16)
    args.output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output_dir.parent) as scratch:
        pipeline.save_pretrained(Path(scratch) / "checkpoint")
        tidy_configurations(Path(scratch) / "checkpoint")
        shutil.rmtree(args.output_dir, ignore_errors=True)
        (Path(scratch) / "checkpoint").rename(args.output_dir)


def tidy_configurations(folder: Path):
    """Drop local paths, and let every model load in float32 by default: transformers would keep half precision."""
    for path in folder.rglob("*.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        if "dtype" in config:
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2) + "\n")


def list_creators(objects: Path) -> str:
    """Creators and licences of the real training objects, one line a licence."""
    creators = defaultdict(set)
    for line in objects.read_text().splitlines():
        record = json.loads(line)
        if record["split"] == "train" and record["source"] == "sweethome3d":
            creators[record["licence"]].add(record["creator"])
    return "\n".join(f"- {licence}: {', '.join(sorted(names))}" for licence, names in sorted(creators.items()))


def write_card(args):
    facts = json.loads(args.facts.read_text()) | {"creators": list_creators(args.objects)}
    write_card_and_example(args.checkpoint, facts, evaluation=args.evaluation, template="tiny")


if __name__ == "__main__":
    arguments = parse_args()
    {"weights": publish_weights, "card": write_card}[arguments.command](arguments)
