# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs whose data come from the Hub, row group by row group, and whose results go there: on a Hub of loopback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import test_train_vecset_vae
import test_train_vilearn
from script_process import TRAINING

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from server import HubServer


@pytest.fixture
def hub():
    with HubServer() as hub:
        yield hub


def run(hub: HubServer, home: Path, script: str, *words) -> subprocess.CompletedProcess:
    """A training script whose Hub is `hub`, with caches of its own in `home`."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        **{"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"},
    }
    command = [sys.executable, str(TRAINING / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_run_reads_from_the_hub_and_publishes_there(hub, work, tmp_path):
    hub.add("user/data", work / "data", kind="datasets")
    words = test_train_vilearn.arguments(work, tmp_path / "run", "--max_train_steps", 2, "--checkpointing_steps", 1)
    words += ["--dataset_name", "user/data", "--streaming", "--validation_fraction", 0]
    words += ["--push_to_hub", "--hub_model_id", "user/result", "--hub_token", hub.token]
    result = run(hub, tmp_path / "hf", "train_vilearn.py", *words)
    assert result.returncode == 0, result.stderr[-3000:]
    files = hub.files("user/result")
    assert {"README.md", "model_index.json", "transformer/config.json", "vae/config.json"} <= files.keys()
    left_out = ("checkpoint-", "logs", "samples", "train_log", ".partial")
    assert not [name for name in files if name.startswith(left_out)]
    card = files["README.md"].decode()
    assert "user/data" in card and hub.token not in card and "pipeline_tag: image-to-3d" in card


def train_vae(hub: HubServer, work: Path, output_dir: Path, token: str) -> subprocess.CompletedProcess:
    """One step of the VAE's trainer, its result meant for the repository of the output folder's name."""
    words = ("--vae_config", work / "vae" / "config.json", "--push_to_hub", "--hub_token", token)
    words = test_train_vecset_vae.arguments(work, output_dir, 1, *words)
    return run(hub, output_dir.parent / "hf", "train_vecset_vae.py", *words)


def test_the_vae_of_a_run_is_pushed(hub, work, tmp_path):
    result = train_vae(hub, work, tmp_path / "shapes", hub.token)
    assert result.returncode == 0, result.stderr[-3000:]
    files = hub.files("user/shapes")
    assert files.keys() - {".gitattributes"} == {"README.md", "config.json", "diffusion_pytorch_model.safetensors"}
    for name in ("README.md", "config.json", "diffusion_pytorch_model.safetensors"):
        assert files[name] == (tmp_path / "shapes" / "vae" / name).read_bytes()
    assert hub.token not in files["README.md"].decode()


def test_a_refused_repository_costs_no_step(hub, work, tmp_path):
    result = train_vae(hub, work, tmp_path / "refused", "hf_wrong")
    assert result.returncode != 0
    assert "401" in result.stderr
    assert not (tmp_path / "refused" / "train_log.jsonl").exists()
    assert not hub.repositories
