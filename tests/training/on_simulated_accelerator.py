# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Run a script on the simulated accelerator, which accelerate then takes: on_simulated_accelerator.py SCRIPT …"""

import runpy
import sys
from pathlib import Path

import torch
from accelerate.state import PartialState

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulated_accelerator import NAME, Simulated

if __name__ == "__main__":
    PartialState.default_device = property(lambda state: torch.device(NAME, 0))
    del sys.argv[0]
    with Simulated():
        runpy.run_path(sys.argv[0], run_name="__main__")
