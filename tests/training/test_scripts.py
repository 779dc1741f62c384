# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The whole road, small: meshes -> dataset -> VAE -> latents -> transformer -> pipeline -> scores."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trimesh
from safetensors.torch import load_file
from tiny import TRAINED_VAE
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from diffusers_vilearn import ViLearnImageTo3DPipeline
from diffusers_vilearn.data.loading import load_table

TRAINING = Path(__file__).parents[2] / "training"
TRANSFORMER = {"num_layers": 2, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8}


def run(script: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TRAINING / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def succeed(script: str, *arguments) -> str:
    result = run(script, *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Meshes of three shapes (one of them an open sheet, one file broken), a tiny image encoder, and configs."""
    folder = tmp_path_factory.mktemp("work")
    open_box = trimesh.creation.box(extents=(1, 1, 1))
    open_box.update_faces([True] * 10 + [False] * 2)
    meshes = {"box": trimesh.creation.box((1, 2, 0.5)), "sphere": trimesh.creation.icosphere(), "open": open_box}
    records = []
    for split in ("train", "heldout"):
        for name, mesh in meshes.items():
            mesh.export(folder / f"{name}.ply")
            records.append({"uid": f"{split}/{name}", "path": f"{name}.ply", "split": split})
    (folder / "broken.ply").write_bytes(b"ply\nformat ascii 1.0\nend_header\n")
    records.append({"uid": "train/broken", "path": "broken.ply", "split": "train"})
    common = {"source": "test", "licence": "CC0-1.0", "creator": "", "name": "", "category": ""}
    (folder / "objects.jsonl").write_text("\n".join(json.dumps(common | record) for record in records))

    torch.manual_seed(0)
    encoder = Dinov2Model(
        Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    )
    encoder.save_pretrained(folder / "encoder")
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        folder / "encoder"
    )
    (folder / "vae.json").write_text(json.dumps(TRAINED_VAE))
    (folder / "transformer.json").write_text(json.dumps(TRANSFORMER))
    return folder


@pytest.fixture(scope="module")
def dataset(work) -> Path:
    shapes = ("shapes", "--objects", work / "objects.jsonl", "--output_dir", work / "data", "--num_workers", 1)
    sizes = ("--num_views", 2, "--image_size", 32, "--solid_resolution", 36, "--num_visible", 64, "--num_surface", 512)
    output = succeed("prepare_dataset.py", *shapes, *sizes, "--num_near", 512, "--num_volume", 512)
    assert "6 of 7 objects" in output and "rejected, empty: 1" in output
    (reject,) = load_table(str(work / "data"), "rejects", "train")
    assert reject["uid"] == "train/broken" and reject["reason"] == "empty" and "broken.ply" in reject["message"]
    return work / "data"


def vae_arguments(work, dataset, output_dir, steps):
    return (
        *("--dataset_name", dataset, "--output_dir", output_dir, "--vae_config", work / "vae.json"),
        *("--max_train_steps", steps, "--checkpointing_steps", 2, "--train_batch_size", 2, "--num_points", 128),
        *("--num_queries", 64, "--num_validation_shapes", 1, "--anchor_weight", 0.3, "--anchor_latent_weight", 0.1),
        *("--lr_warmup_steps", 0, "--lr_scheduler", "constant"),
    )


@pytest.fixture(scope="module")
def vae(work, dataset) -> Path:
    succeed("train_vecset_vae.py", *vae_arguments(work, dataset, work / "vae-run", 4))
    return work / "vae-run" / "vae"


@pytest.fixture(scope="module")
def latents(work, dataset, vae) -> Path:
    arguments = ("latents", "--dataset_name", dataset, "--vae", vae, "--image_encoder", work / "encoder")
    succeed("prepare_dataset.py", *arguments, "--mirror", "--batch_size", 3)
    return dataset


def transformer_arguments(work, latents, vae, output_dir, steps):
    return (
        *("--dataset_name", latents, "--vae", vae, "--image_encoder", work / "encoder", "--output_dir", output_dir),
        *("--transformer_config", work / "transformer.json", "--max_train_steps", steps, "--checkpointing_steps", 2),
        *("--train_batch_size", 2, "--use_ema", "--lr_warmup_steps", 0, "--lr_scheduler", "constant"),
    )


def weights(model_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(model_folder / "diffusion_pytorch_model.safetensors")


def test_tables_hold_what_the_schema_says(dataset):
    shapes, views = (load_table(str(dataset), table, "train") for table in ("shapes", "views"))
    assert sorted(shapes["uid"]) == ["train/box", "train/open", "train/sphere"]
    assert sorted(zip(views["uid"], views["view"])) == sorted((uid, view) for uid in shapes["uid"] for view in (0, 1))
    row = views[0]
    assert row["image"].mode == "RGBA" and row["image"].size == (32, 32)
    assert (row["vertical_fov"] is None) != (row["orthographic_height"] is None)


def test_preparing_again_does_nothing_and_other_options_are_refused(work, dataset):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*.parquet")}
    arguments = ("shapes", "--objects", work / "objects.jsonl", "--output_dir", dataset, "--num_workers", 1)
    result = run("prepare_dataset.py", *arguments, "--num_views", 3)
    assert result.returncode != 0 and "was prepared with another" in result.stderr and "num_views" in result.stderr
    assert before == {path: path.stat().st_mtime_ns for path in dataset.rglob("*.parquet")}


def test_an_interrupted_vae_training_resumes_to_the_same_weights(work, dataset, vae):
    succeed("train_vecset_vae.py", *vae_arguments(work, dataset, work / "vae-again", 2))
    resumed = (*vae_arguments(work, dataset, work / "vae-again", 4), "--resume_from_checkpoint", "latest")
    succeed("train_vecset_vae.py", *resumed)
    whole, parts = weights(vae), weights(work / "vae-again" / "vae")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_latents_cover_every_view_and_its_mirror_image(latents):
    rows = load_table(str(latents), "latents", "train").with_format("numpy")
    assert len(rows) == 3 * 2 * 2
    assert rows[0]["moments"].shape == (8, 8) and rows[0]["image_embeds"].shape == (4, 16)
    determinants = [float(torch.linalg.det(torch.from_numpy(row["frame"]).double())) for row in rows]
    assert [value < 0 for value in determinants] == [bool(row["mirrored"]) for row in rows]


@pytest.fixture(scope="module")
def pipeline(work, latents, vae) -> Path:
    succeed("train_vilearn.py", *transformer_arguments(work, latents, vae, work / "whole", 4))
    return work / "whole"


def test_an_interrupted_transformer_training_resumes_to_the_same_weights(work, latents, vae, pipeline):
    succeed("train_vilearn.py", *transformer_arguments(work, latents, vae, work / "parts", 2))
    resumed = (*transformer_arguments(work, latents, vae, work / "parts", 4), "--resume_from_checkpoint", "latest")
    succeed("train_vilearn.py", *resumed)
    whole, parts = weights(pipeline / "transformer"), weights(work / "parts" / "transformer")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_pipeline_knows_frame_and_visible_fraction_of_its_data(latents, pipeline):
    config = ViLearnImageTo3DPipeline.from_pretrained(pipeline).transformer.config
    assert config.frame == "view"
    counts = [len(row) for row in load_table(str(latents), "latents", "train")["visible_tokens"]]
    # One of three objects is kept for validation.
    assert min(counts) / 8 <= config.visible_fraction <= max(counts) / 8


def test_evaluation_compares_with_the_plain_answers(work, latents, pipeline):
    common = ("--checkpoint", pipeline, "--dataset_name", latents, "--output_dir", work / "scores")
    arguments = (*common, "--train_dataset", latents, "--mean_views", 2, "--regression_steps", 2, "--resolution", 16)
    succeed("tiny/plain_answers.py", *arguments)
    succeed("evaluate.py", *common, "--num_inference_steps", 2, "--resolution", 16, "--num_points", 128)
    summary = json.loads((work / "scores" / "summary.json").read_text())
    answers = {"mean_shape", "nearest_image", "regression", "reconstruction"}
    assert set(summary["scores"]) == answers | {"generation"} and set(summary["differences"]["generation"]) == answers
    assert all(scores["iou"]["n"] == 3 and 0 <= scores["iou"]["mean"] <= 1 for scores in summary["scores"].values())
    before = (work / "scores" / "generation.jsonl").read_text()
    succeed("evaluate.py", *common, "--num_inference_steps", 2, "--resolution", 16, "--num_points", 128)
    assert (work / "scores" / "generation.jsonl").read_text() == before, "a finished evaluation is not repeated"


def test_publishing_halves_the_precision_and_writes_a_card(work, latents, pipeline):
    published = work / "published"
    succeed("tiny/publish.py", "weights", "--pipeline", pipeline, "--output_dir", published)
    assert {value.dtype for value in weights(published / "transformer").values()} == {torch.float16}
    assert str(work) not in "".join(path.read_text() for path in published.rglob("*.json"))
    loaded = ViLearnImageTo3DPipeline.from_pretrained(published)
    assert {loaded.vae.dtype, loaded.transformer.dtype, loaded.image_encoder.dtype} == {torch.float32}
    evaluation = work / "card-scores"
    evaluation.mkdir()
    (evaluation / "summary.md").write_text("| method | iou |")
    (evaluation / "summary.json").write_text('{"scores": {"generation": {"iou": {"mean": 0.25}}}}')
    arguments = ("--checkpoint", published, "--evaluation", evaluation, "--objects", work / "objects.jsonl")
    succeed("tiny/publish.py", "card", *arguments, "--facts", TRAINING / "tiny" / "facts.json")
    card = (published / "README.md").read_text()
    assert "pipeline_tag: image-to-3d" in card and "| method | iou |" in card and "{{" not in card
    assert "value: 0.25" in card and (published / "example.png").is_file()


def test_latents_of_another_vae_are_refused(work, latents, pipeline):
    other = ViLearnImageTo3DPipeline.from_pretrained(pipeline).vae
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained(work / "other-vae")
    result = run("train_vilearn.py", *transformer_arguments(work, latents, work / "other-vae", work / "refused", 2))
    assert result.returncode != 0 and "another `--vae`" in result.stderr
    assert not list((work / "refused").glob("checkpoint-*"))
