# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A run whose data come from the Hub, row group by row group, and whose result goes there: on a Hub of loopback."""

import os
import subprocess
import sys
from pathlib import Path

from script_process import TRAINING
from test_train_vilearn import arguments

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from server import HubServer


def test_a_run_reads_from_the_hub_and_publishes_there(work, tmp_path):
    with HubServer() as hub:
        hub.add("user/data", work / "data", kind="datasets")
        words = arguments(work, tmp_path / "run", "--max_train_steps", 2, "--checkpointing_steps", 1)
        words += ["--dataset_name", "user/data", "--streaming", "--validation_fraction", 0]
        words += ["--push_to_hub", "--hub_model_id", "user/result", "--hub_token", hub.token]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            **{"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"},
        }
        command = [sys.executable, str(TRAINING / "train_vilearn.py"), *map(str, words)]
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr[-3000:]
        files = hub.files("user/result")
    assert {"README.md", "model_index.json", "transformer/config.json", "vae/config.json"} <= files.keys()
    left_out = ("checkpoint-", "logs", "samples", "train_log", ".partial")
    assert not [name for name in files if name.startswith(left_out)]
    card = files["README.md"].decode()
    assert "user/data" in card and hub.token not in card and "pipeline_tag: image-to-3d" in card
