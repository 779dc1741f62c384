# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A prepared dataset, small enough to train on in seconds: four training objects and one held out, two views each."""

import json
from pathlib import Path

import pytest
import torch
import trimesh
from tiny import TRAINED_VAE
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from diffusers_vilearn import VecSetVAE
from diffusers_vilearn.data.features import SHAPE_FEATURES, VIEW_FEATURES
from diffusers_vilearn.data.latents import LatentEncoder, encode_dataset
from diffusers_vilearn.data.preparation import PreparationOptions, prepare_object
from diffusers_vilearn.data.quality import QualityLimits
from diffusers_vilearn.data.shards import write_shard

TRANSFORMER = {"num_layers": 2, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8}
OPTIONS = PreparationOptions(
    num_surface=256, num_sharp=64, num_near=128, num_volume=256, solid_resolution=36, num_views=2, image_size=28
)
MESHES = {
    "train": {
        "box": lambda: trimesh.creation.box((1, 2, 0.5)),
        "ball": lambda: trimesh.creation.icosphere(subdivisions=2),
        "ring": lambda: trimesh.creation.torus(1, 0.3, 16, 8),
        "rod": lambda: trimesh.creation.cylinder(0.3, 2, sections=12),
    },
    "heldout": {"cone": lambda: trimesh.creation.cone(0.7, 1, sections=12)},
}


def mesh_record(split: str, name: str) -> dict[str, str]:
    """Of a mesh file in the list of objects."""
    record = dict.fromkeys(("source", "licence", "creator", "name", "category"), "test")
    return record | {"uid": f"{split}/{name}", "path": f"meshes/{split}-{name}.ply", "split": split}


def write_meshes(folder: Path) -> None:
    """The mesh files, and `objects.jsonl`, their list."""
    (folder / "meshes").mkdir()
    records = []
    for split, meshes in MESHES.items():
        for name, make in meshes.items():
            records.append(mesh_record(split, name))
            make().export(folder / records[-1]["path"])
    (folder / "objects.jsonl").write_text("\n".join(map(json.dumps, records)))


def write_dataset(folder: Path) -> None:
    """Tables `shapes` and `views`, one shard a split."""
    for split, meshes in MESHES.items():
        shapes, views = [], []
        for name, make in meshes.items():
            record = mesh_record(split, name)
            shape, of_shape = prepare_object(make(), record, OPTIONS, QualityLimits(max_base_share=1))
            shapes.append(shape)
            views.extend(of_shape)
        write_shard(folder, "shapes", f"{split}-test-00000", shapes, SHAPE_FEATURES)
        write_shard(folder, "views", f"{split}-test-00000", views, VIEW_FEATURES)


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    """`meshes`, their list `objects.jsonl`, `data`, `vae`, `encoder`, `transformer.json`; latents of 8 tokens, and in
    tables by name of 4 and 8."""
    folder = tmp_path_factory.mktemp("training")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        VecSetVAE(**TRAINED_VAE).save_pretrained(folder / "vae")
        dinov2 = Dinov2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=1
        )
        Dinov2Model(dinov2).save_pretrained(folder / "encoder")
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    BitImageProcessor(**size).save_pretrained(folder / "encoder")
    (folder / "transformer.json").write_text(json.dumps(TRANSFORMER))
    write_meshes(folder)
    write_dataset(folder / "data")
    encoder = LatentEncoder.from_pretrained(str(folder / "vae"), str(folder / "encoder"), device="cpu", mirror=True)
    tables = {"latents": TRAINED_VAE["num_tokens"], "latents-4": 4, "latents-8": 8}
    encode_dataset(encoder, folder / "data", tables, splits=["train"], batch_size=4)
    return folder
