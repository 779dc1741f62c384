# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Each command on a simulated accelerator: no tensor of the CPU meets one of its, and all comes out as on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from safetensors.torch import load_file
from script_process import TRAINING, ScriptProcess

from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.files import read_json_lines
from diffusers_vilearn.metrics.score_files import read_scores

ON_ACCELERATOR = Path(__file__).with_name("on_simulated_accelerator.py")
CHECKPOINT = TRAINING.parent / "checkpoints" / "vilearn-tiny"
DRAFT = ("--validation_resolution", 12, "--validation_inference_steps", 2)
REFUSED = """
import torch
from simulated_accelerator import NAME, Simulated

with Simulated():
    ours, theirs = torch.ones(3, device=NAME), torch.ones(3)
    assert ours.device.type == NAME and (ours + 1).tolist() == [2, 2, 2] and ours.cpu().device.type == "cpu"
    assert ours[theirs > 0].device.type == NAME and theirs.copy_(ours * torch.tensor(2.0)).tolist() == [2, 2, 2]
    layer = torch.nn.Linear(3, 2).to(NAME)
    layer(ours).sum().backward()
    assert layer.weight.grad.tolist() == [[1, 1, 1]] * 2
    for refused in (
        lambda: ours + theirs,
        lambda: theirs.add_(ours),
        lambda: theirs[ours > 0],
        lambda: torch.cat([ours, theirs]),
        lambda: layer(theirs),
        lambda: ours.numpy(),
        lambda: torch.randn(3, device=NAME, generator=torch.Generator()),
    ):
        try:
            refused()
        except (RuntimeError, TypeError):
            continue
        raise AssertionError("not refused")
"""


def run(log: Path, script: Path, *arguments, accelerated: bool = True) -> None:
    words = (ON_ACCELERATOR, script) if accelerated else (script,)
    environment = {} if accelerated else {"ACCELERATE_USE_CPU": "true"}
    process = ScriptProcess(*words, *arguments, log=log, environment=environment)
    assert process.wait() == 0, process.output[-3000:]


def train(work: Path, script: str, folder: Path, *arguments, steps: int = 2, accelerated: bool = True) -> Path:
    common = ("--dataset_name", work / "data", "--output_dir", folder, "--train_batch_size", 2, "--use_ema")
    common += ("--mixed_precision", "no", "--max_train_steps", steps, "--validation_steps", 2)
    common += ("--checkpointing_steps", 2, "--logging_steps", 1)
    folder.parent.mkdir(exist_ok=True)
    run(folder.with_suffix(".log"), TRAINING / script, *common, *arguments, accelerated=accelerated)
    return folder


def new(work: Path) -> tuple:
    models = ("--vae", work / "vae", "--image_encoder", work / "encoder")
    return (*models, "--transformer_config", work / "transformer.json")


def test_the_simulated_accelerator_refuses_what_cuda_does(tmp_path):
    (tmp_path / "refused.py").write_text(REFUSED)
    run(tmp_path / "log", tmp_path / "refused.py")


@pytest.mark.parametrize(
    "script, more",
    [
        ("train_vilearn.py", ("--gradient_checkpointing", "--num_validation_images", 1, *DRAFT)),
        ("train_vilearn.py", ("--online_encoding",)),
        ("train_vecset_vae.py", ("--alignment_weight", 1)),
    ],
)
def test_training_and_taking_it_up_again(work, tmp_path, script, more):
    models = new(work) if script == "train_vilearn.py" else ("--vae_config", work / "vae" / "config.json")
    models += () if script == "train_vilearn.py" else ("--image_encoder", work / "encoder", "--num_points", 64)
    folders = []
    for accelerated in (False, True):
        folders.append(tmp_path / f"accelerated-{accelerated}")
        for steps in (2, 3):
            resume = ("--resume_from_checkpoint", "latest", "--lr_scheduler", "constant")
            train(work, script, folders[-1], *models, *more, *resume, steps=steps, accelerated=accelerated)
    cpu, simulated = (read_json_lines(folder / "train_log.jsonl") for folder in folders)
    assert [row["step"] for row in simulated] == [row["step"] for row in cpu]
    for ours, theirs in zip(simulated, cpu, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    cpu, simulated = (read_json_lines(folder / "validation_log.jsonl") for folder in folders)
    assert len(cpu) == 2 and [set(row) for row in simulated] == [set(row) for row in cpu]


def test_lora_layers(work, tmp_path):
    base = train(work, "train_vilearn.py", tmp_path / "base", *new(work), accelerated=False)
    start = ("--pretrained_model_name_or_path", base, "--rank", 2, "--no-use_ema")
    layers = [
        train(work, "train_vilearn.py", tmp_path / f"lora-{accelerated}", *start, accelerated=accelerated)
        for accelerated in (False, True)
    ]
    cpu, simulated = (load_file(folder / "pytorch_lora_weights.safetensors") for folder in layers)
    assert cpu.keys() == simulated.keys()
    for name, value in cpu.items():
        torch.testing.assert_close(simulated[name], value, rtol=1e-3, atol=1e-6)


def test_latents(work, tmp_path):
    for table in ("shapes", "views"):
        (tmp_path / table).symlink_to(work / "data" / table)
    words = ("--dataset_name", tmp_path, "--splits", "train", "--mirror", "--batch_size", 4, "--device", "simulated")
    words += ("--vae", work / "vae", "--image_encoder", work / "encoder")
    run(tmp_path / "log", TRAINING / "prepare_dataset.py", "latents", *words)
    rows, expected = (load_table(str(folder), "latents", "train") for folder in (tmp_path, work / "data"))
    assert rows["uid"] == expected["uid"] and rows["visible_tokens"] == expected["visible_tokens"]
    np.testing.assert_allclose(rows["moments"], expected["moments"], rtol=1e-2, atol=1e-3)


def test_generation(tmp_path):
    (tmp_path / "cli.py").write_text("from diffusers_vilearn.cli import main\n\nmain()\n")
    picture, meshes = TRAINING.parent / "docs" / "images" / "demo.png", []
    for device in ("cpu", "simulated"):
        words = (picture, "--checkpoint", CHECKPOINT, "--steps", 2, "--resolution", 16, "--device", device)
        mesh = tmp_path / f"{device}.ply"
        run(mesh.with_suffix(".log"), tmp_path / "cli.py", "generate", *words, "--output", mesh)
        meshes.append(trimesh.load_mesh(mesh))
    assert np.array_equal(*(mesh.faces for mesh in meshes))
    np.testing.assert_allclose(*(mesh.vertices for mesh in meshes), atol=1e-3)


def test_scores(work, tmp_path):
    words = ("--checkpoint", CHECKPOINT, "--num_inference_steps", 2, "--num_points", 256, "--resolution", 12)
    words += ("--dataset_name", work / "data", "--split", "train", "--max_views", 1, "--sheet_rows", 0)
    words += ("--metrics", "is_as", "normal_fd", "renders", "detail", "--normal_estimator", "true")
    words += ("--metric_encoder", work / "encoder", "--objects", work / "objects.jsonl", "--root", work)
    words += ("--num_metric_views", 4, "--num_feature_views", 2, "--metric_resolution", 28, "--render_resolution", 28)
    scores = []
    for accelerated in (False, True):
        folder = tmp_path / f"accelerated-{accelerated}"
        here = (*words, "--output_dir", folder)
        run(folder.with_suffix(".log"), TRAINING / "evaluate.py", *here, accelerated=accelerated)
        scores.append([read_scores(folder / f"{method}.jsonl") for method in ("generation", "reconstruction")])
    cpu, simulated = scores
    for method, expected in zip(simulated, cpu, strict=True):
        assert method.keys() == expected.keys() and len(method) == 1
        for key, row in method.items():
            assert row == pytest.approx(expected[key], rel=1e-2, abs=1e-3, nan_ok=True)
