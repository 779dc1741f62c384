# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""`diffusers-vilearn prepare` as its user sees it: help, what it prints, and refusals in one line."""

import argparse
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path

import pytest
import torch
import trimesh
from tiny import TRAINED_VAE
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from diffusers_vilearn import VecSetVAE
from diffusers_vilearn.data.command import main as prepare
from diffusers_vilearn.data.command import make_parser
from diffusers_vilearn.data.image_encoders import load_image_encoder
from diffusers_vilearn.data.latents import LatentEncoder, load_vae
from diffusers_vilearn.data.preparation import PreparationOptions
from diffusers_vilearn.data.quality import QualityLimits

TRAINING = Path(__file__).parents[2] / "training"
SIZES = {"num_views": 2, "image_size": 28, "solid_resolution": 36, "num_surface": 256, "num_near": 64}


def output_of(*words) -> tuple[str, str]:
    """What a command prints, and its warnings."""
    with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
        prepare([str(word) for word in words])
    return output.getvalue(), errors.getvalue()


def refusal_of(*words) -> str:
    """The line that a command ends with."""
    with pytest.raises(SystemExit) as refusal:
        output_of(*words)
    assert "\n" not in refusal.value.code
    return refusal.value.code


@pytest.fixture(scope="module")
def meshes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("meshes")
    trimesh.creation.box((1, 2, 0.5)).export(folder / "box.ply")
    for name in "abcdef":
        (folder / f"{name}.obj").write_text("this is no mesh")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """`runs/vae`, as a training script leaves it, and `encoder`."""
    folder = tmp_path_factory.mktemp("models")
    VecSetVAE(**TRAINED_VAE).save_pretrained(folder / "runs" / "vae")
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    Dinov2Model(Dinov2Config(hidden_size=16, **sizes)).save_pretrained(folder / "encoder")
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    BitImageProcessor(**size).save_pretrained(folder / "encoder")
    return folder


@pytest.fixture(scope="module")
def prepared(meshes, tmp_path_factory) -> tuple[Path, str, str]:
    """A dataset with the box in train and nothing but rejects in heldout; what `shapes` printed, and its warnings."""
    folder = tmp_path_factory.mktemp("prepared")
    common = {"source": "s", "licence": "CC0-1.0", "creator": "", "name": "", "category": ""}
    records = [common | {"uid": path.name, "path": path.name, "split": "heldout"} for path in sorted(meshes.iterdir())]
    records = [record | {"split": "train"} if record["uid"] == "box.ply" else record for record in records]
    (folder / "objects.jsonl").write_text("\n".join(map(json.dumps, records)))
    words = ["--objects", folder / "objects.jsonl", "--root", meshes, "--output_dir", folder / "data"]
    sizes = [f"--{name}={value}" for name, value in SIZES.items()]
    return folder / "data", *output_of("shapes", *words, "--num_workers", 1, *sizes)


def options_of(command: str) -> list[argparse.Action]:
    (commands,) = (action for action in make_parser(None)._actions if action.choices)
    return commands.choices[command]._actions


@pytest.mark.parametrize("command", ["scan", "shapes", "latents", "publish"])
def test_every_option_is_explained_and_says_its_default(command):
    for action in options_of(command):
        assert action.help, action.dest
        if action.default not in (None, False, argparse.SUPPRESS):
            assert "default: " in action.help, action.dest


def test_options_of_dataclasses_are_explained_by_their_docstrings():
    actions = {action.dest: action for action in options_of("shapes")}
    for field in (*fields(PreparationOptions), *fields(QualityLimits)):
        assert actions[field.name].default == field.default
    assert actions["azimuth"].help == "Range of the condition cameras in degrees (default: -90.0 90.0)."
    assert actions["max_base_share"].help.startswith("Part of the solid's area that is a horizontal plate")
    assert actions["renderer"].choices == ("embree", "nvdiffrast") and actions["num_views"].choices is None


def test_a_wrong_renderer_is_refused_by_its_option(capsys):
    with pytest.raises(SystemExit):
        prepare(["shapes", "--objects", "objects.jsonl", "--output_dir", "data", "--renderer", "foo"])
    assert "argument --renderer: invalid choice: 'foo' (choose from" in capsys.readouterr().err


def test_help_calls_the_command_by_its_name(capsys):
    with pytest.raises(SystemExit):
        prepare(["--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: diffusers-vilearn prepare [-h]")
    assert "diffusers-vilearn prepare shapes --objects objects.jsonl --root meshes --output_dir data/mine\n" in text
    script = [sys.executable, TRAINING / "prepare_dataset.py", "shapes", "--help"]
    text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert text.startswith("usage: prepare_dataset.py shapes [-h]")


def test_a_scan_names_what_is_unreadable_and_a_split_that_is_empty(meshes, tmp_path):
    words = ["scan", "--folder", meshes, "--output", tmp_path / "objects.jsonl", "--num_workers", 1]
    output, warnings = output_of(*words, "--heldout_fraction", 1e-9)
    assert "7 objects, 7 groups, 6 unreadable, 1 train, 0 heldout" in output
    assert "    local/a.obj (empty): " in output and "local/e.obj" in output and "local/f.obj" not in output
    assert "table `rejects`" in output
    assert "Warning: no mesh that can be read is heldout: each of 7 groups" in warnings
    output, warnings = output_of(*words, "--heldout_fraction", 0)
    assert "Warning" not in warnings, "nothing was to be held out"


def test_shapes_names_what_is_rejected_and_a_split_that_is_empty(prepared):
    folder, output, warnings = prepared
    assert "1 of 7 objects" in output and "rejected, empty: 6" in output
    named = [line for line in output.splitlines() if ".obj (empty): " in line]
    assert len(named) == 5 and "holds no triangles" in named[0]
    assert f"all of them with their reasons: table `rejects`, {folder / 'rejects'}" in output
    assert warnings.endswith(f"Warning: {folder} has no heldout objects: all were rejected.\n")


def test_latents_says_what_it_wrote(prepared, models):
    folder, *_ = prepared
    words = ["latents", "--dataset_name", folder, "--vae", models / "runs" / "vae"]
    words += ["--image_encoder", models / "encoder", "--device", "cpu", "--num_points", 64]
    for _ in range(2):
        output, _ = output_of(*words, "--mirror", "--num_tokens", 4, 8)
        assert output.splitlines() == [
            f"{folder / f'latents-{count}'}: 4 rows of {count} tokens (train)" for count in (4, 8)
        ]
    assert refusal_of(*words, "--name", "none", "--splits", "train", "heldout") == (
        f"Error: {folder} has no heldout objects (table shapes); it has those of train."
    )
    words[2] = folder / "nowhere"
    assert refusal_of(*words) == f"Error: There is no folder {folder / 'nowhere'}; `prepare shapes` writes it."
    assert not (folder / "nowhere").exists() and not (folder / "none").exists()


def test_an_image_without_a_patch_is_refused_first(models):
    vae, encoder = str(models / "runs" / "vae"), str(models / "encoder")
    with pytest.raises(ValueError, match=r"`image_size` is 10; it must be at least .* 14\. A multiple .* 224"):
        LatentEncoder.from_pretrained(vae, encoder, device="cpu", image_size=10)
    # Not a multiple of the patch size: the paper's 256 is none of DINOv2's either.
    at_20 = LatentEncoder.from_pretrained(vae, encoder, device="cpu", image_size=20)
    assert at_20.encode_pixels(torch.zeros(1, 3, 20, 20)).shape == (1, 1, 16)


def test_a_folder_around_the_vae_names_the_vae(models):
    with pytest.raises(ValueError, match=r"`vae` must be a VecSetVAE, but .*/runs' .*did you mean .*/runs/vae"):
        load_vae(str(models / "runs"))


@pytest.mark.parametrize("load, what", [(load_vae, "VAE"), (load_image_encoder, "image encoder")])
def test_a_model_that_is_not_there_is_refused_in_one_line(load, what):
    with pytest.raises(ValueError, match=rf"^There is no folder 'a/b/c', and no {what} of that name .* login`\.$"):
        load("a/b/c")


def test_an_inspection_ends_with_one_line(prepared, tmp_path):
    folder, *_ = prepared
    words = ["--dataset_name", folder, "--split", "heldout", "--output", tmp_path / "views.png"]
    run = subprocess.run([sys.executable, TRAINING / "inspect_dataset.py", *words], capture_output=True, text=True)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.endswith(f"Error: {folder} has no heldout objects (table views); it has those of train.\n")
    words = ["--dataset_name", folder, "--latents", "shapes", "--output", tmp_path / "views.png"]
    run = subprocess.run([sys.executable, TRAINING / "inspect_dataset.py", *words], capture_output=True, text=True)
    assert run.stderr.endswith(f"Error: `--latents` must be a table of latents, but 'shapes' of {folder} is none.\n")
    assert not (tmp_path / "views.png").exists()
