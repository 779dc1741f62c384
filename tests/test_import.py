# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Importing the package: what it makes known to diffusers, and what it must not load."""

import json
import subprocess
import sys

import diffusers
import pytest
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

import diffusers_vilearn


def in_a_new_process(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_import_loads_no_renderer_and_no_cuda_and_says_nothing():
    loaded, cuda = in_a_new_process(
        "import json, sys, diffusers_vilearn, torch;"
        "print(json.dumps([[m.split('.')[0] for m in sys.modules], torch.cuda.is_initialized()]))"
    )
    assert not {"trimesh", "igl", "embreex", "nvdiffrast", "rembg", "typer"} & set(loaded)
    assert not cuda


def test_generating_takes_no_module_that_windows_lacks():
    loaded = in_a_new_process("import json, sys, diffusers_vilearn.cli; print(json.dumps(list(sys.modules)))")
    assert "diffusers_vilearn.hub" in loaded and "diffusers_vilearn.data.workers" not in loaded


def test_registered_with_diffusers():
    for name in ("ViLearnImageTo3DPipeline", "VecSetVAE", "ViLearnTransformer3DModel"):
        assert getattr(diffusers, name) is getattr(diffusers_vilearn, name)
    assert "diffusers_vilearn" in LOADABLE_CLASSES
    assert diffusers_vilearn.ModelMixin is diffusers.ModelMixin


@pytest.mark.parametrize("name", diffusers_vilearn.__all__)
def test_public_names(name):
    assert callable(getattr(diffusers_vilearn, name))


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = diffusers_vilearn.nonsense
