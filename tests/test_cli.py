# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The command line, in this process: files it writes and the one line it says when it cannot."""

import importlib.util
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch
import trimesh
from huggingface_hub import constants
from PIL import Image

from diffusers_vilearn.cli import DEFAULT_CHECKPOINT, main
from diffusers_vilearn.files import LORA_WEIGHTS


@pytest.fixture
def workplace(pipe, image, tmp_path, monkeypatch):
    """A folder with a picture and the default checkpoint, as the README assumes."""
    pipe.save_pretrained(tmp_path / DEFAULT_CHECKPOINT)
    image.save(tmp_path / "chair.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs the console script; returns the exit code, stdout and stderr."""

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["diffusers-vilearn", *map(str, args)])
        with pytest.raises(SystemExit) as exit:
            main()
            raise SystemExit(0)
        code, captured = exit.value.code, capsys.readouterr()
        # A message in the place of the code goes to stderr, and the code is 1, once the process ends.
        return (1, captured.out, captured.err + code) if isinstance(code, str) else (code, *captured)

    return call


QUICK = ("--steps", 2, "--resolution", 16, "--device", "cpu")


def test_readme_command_writes_the_mesh_of_the_pipeline(cli, workplace, pipe):
    code, out, _ = cli("generate", "chair.png", "-o", "chair.glb", *QUICK)
    assert code == 0 and "chair.glb" in out
    mesh = trimesh.load("chair.glb", force="mesh")
    generator = torch.Generator().manual_seed(0)
    expected = pipe("chair.png", num_inference_steps=2, resolution=16, generator=generator).meshes[0]
    assert len(mesh.faces) == len(expected.faces)
    assert mesh.bounds == pytest.approx(expected.bounds, abs=1e-5)


def test_options_reach_the_pipeline(cli, workplace):
    def volume(*options):
        assert cli("generate", "chair.png", "-o", "out.ply", *QUICK, *options)[0] == 0
        return trimesh.load("out.ply").volume

    default = volume()
    assert volume("--seed", 0) == default
    options = [("--seed", 1), ("--num-tokens", 5), ("--visible-fraction", 0.9), ("--guidance-scale", 1)]
    for changed in options:
        assert volume(*changed) != pytest.approx(default, rel=1e-6), changed


def test_preview_and_folders_are_made(cli, workplace):
    code, _, _ = cli("generate", "chair.png", "-o", "outputs/a.glb", "--preview", "pictures/a.png", *QUICK)
    assert code == 0
    picture = Image.open("pictures/a.png")
    assert picture.width > 4 * picture.height and (workplace / "outputs" / "a.glb").stat().st_size > 100


def test_version(cli):
    code, out, _ = cli("--version")
    assert code == 0 and out.strip() == version("diffusers-vilearn")


def test_console_script():
    result = subprocess.run(
        [shutil.which("diffusers-vilearn", path=sys.prefix + "/bin"), "generate", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--remove-background" in result.stdout


@pytest.mark.parametrize(
    "args, message",
    [
        (("nothing.png", "-o", "a.glb"), "nothing.png"),
        (("opaque.png", "-o", "a.glb"), "--remove-background"),
        (("text.png", "-o", "a.glb"), "text.png"),
        (("chair.png", "-o", "a.xyz"), "a.xyz"),
        (("chair.png", "-o", "a.glb", "--preview", "a.xyz"), "a.xyz"),
        (("chair.png", "-o", "a.glb", "--checkpoint", "no/such/folder"), "no/such/folder"),
        (("chair.png", "-o", "a.glb", "--device", "toaster"), "toaster"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(cli, workplace, args, message):
    Image.new("RGB", (20, 20)).save("opaque.png")
    (workplace / "text.png").write_text("not a picture")
    code, _, err = cli("generate", *args, "--steps", 1)
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("Error:")]
    assert message in line and "Traceback" not in err
    assert not (workplace / "a.glb").exists() and not (workplace / "a.xyz").exists()


@pytest.mark.parametrize("checkpoint", ["no/such/folder", "../nowhere", "user/nowhere", "nowhere"])
def test_a_checkpoint_that_is_nowhere(cli, workplace, monkeypatch, checkpoint):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, err = cli("generate", "chair.png", "-o", "a.glb", "--checkpoint", checkpoint)
    assert code == 1
    assert err.splitlines()[-1] == (
        f"Error: There is no folder '{checkpoint}', and no pipeline of that name could be reached on the Hub. A"
        " private or gated one needs `hf auth login`."
    )


def test_a_folder_that_is_no_pipeline(cli, workplace):
    (workplace / "lora").mkdir()
    (workplace / "lora" / LORA_WEIGHTS).touch()
    for name, what in (
        (f"{DEFAULT_CHECKPOINT}/vae", "a VecSetVAE."),
        (f"{DEFAULT_CHECKPOINT}/transformer", "a ViLearnTransformer3DModel."),
        ("lora", "LoRA layers."),
        ("checkpoints", f"none; did you mean {DEFAULT_CHECKPOINT}?"),
    ):
        code, _, err = cli("generate", "chair.png", "-o", "a.glb", "--checkpoint", name)
        line = err.splitlines()[-1]
        assert code == 1 and line == f"Error: --checkpoint needs a pipeline, but '{name}' holds {what}"


def test_a_shape_without_a_surface_is_told_without_options_of_python(cli, workplace, pipe):
    with torch.no_grad():
        pipe.vae.geometry.proj_out.bias -= 1000
    pipe.save_pretrained("empty")
    code, _, err = cli("generate", "chair.png", "-o", "a.glb", "--checkpoint", "empty", *QUICK)
    assert code == 1 and "has no mesh" in err and "output_type" not in err


@pytest.mark.parametrize("option, value", [("--resolution", 4), ("--guidance-scale", -1), ("--steps", 0)])
def test_numbers_out_of_range_are_refused_before_the_checkpoint_is_read(cli, workplace, option, value):
    code, _, err = cli("generate", "chair.png", "-o", "a.glb", "--checkpoint", "no/such/folder", option, value)
    assert code == 2 and option in err and "no/such/folder" not in err


def test_default_checkpoint_missing(cli, workplace, monkeypatch):
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir(workplace / "elsewhere")
    code, _, err = cli("generate", "../chair.png", "-o", "a.glb")
    assert code == 1 and DEFAULT_CHECKPOINT in err and "--checkpoint" in err


@pytest.mark.skipif(importlib.util.find_spec("rembg") is not None, reason="rembg is installed")
def test_background_removal_without_rembg(cli, workplace):
    code, _, err = cli("generate", "chair.png", "-o", "a.glb", "--remove-background")
    assert code == 1 and "pip install 'diffusers-vilearn[rembg]'" in err


@pytest.mark.parametrize("args", [("generate",), ("generate", "a.png", "-o", "a.glb", "--steps", "0"), ("nonsense",)])
def test_usage_errors(cli, args):
    code, _, err = cli(*args)
    assert code == 2 and "Usage" in err
