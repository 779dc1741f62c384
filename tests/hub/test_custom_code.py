# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A repository that carries its code: the same meshes where this package is not installed."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from environments import CHECKPOINT, PICTURE, ROOT, run_python
from PIL import Image

from diffusers_vilearn import ViLearnImageTo3DPipeline, custom_code
from diffusers_vilearn.custom_code import add_custom_code, custom_code_files

CALL = {"num_inference_steps": 3, "resolution": 48}
GENERATE_BARE = f"""
import importlib.util
assert importlib.util.find_spec("diffusers_vilearn") is None
assert importlib.util.find_spec("embreex") is None
import numpy as np, torch
from diffusers import AutoModel, DiffusionPipeline
from PIL import Image

vae = AutoModel.from_pretrained({{repository!r}} + "-vae", trust_remote_code=True)
pipe = DiffusionPipeline.from_pretrained({{repository!r}}, trust_remote_code=True)
assert all(torch.equal(one, other) for one, other in zip(vae.parameters(), pipe.vae.parameters(), strict=True))
mesh = pipe(Image.open({str(PICTURE)!r}), **{CALL}, generator=torch.Generator().manual_seed(0)).meshes[0]
np.savez("mesh.npz", vertices=mesh.vertices, faces=mesh.faces)
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The shipped checkpoint with its code beside it."""
    folder = tmp_path_factory.mktemp("repository") / "vilearn-tiny"
    shutil.copytree(CHECKPOINT, folder)
    add_custom_code(folder)
    vae = folder.with_name("vilearn-tiny-vae")
    shutil.copytree(CHECKPOINT / "vae", vae)
    add_custom_code(vae)
    return folder


def test_committed_files_are_those_of_the_source():
    folder = ROOT / "pipelines" / "hub"
    committed = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.py")}
    assert committed == custom_code_files(), "run python pipelines/build_hub_files.py"


def test_the_same_mesh_without_the_package(bare_python, repository, tmp_path):
    code = GENERATE_BARE.replace("{repository!r}", repr(str(repository)))
    result = run_python(code, tmp_path, python=bare_python, OMP_NUM_THREADS=str(torch.get_num_threads()))
    assert result.returncode == 0, result.stderr
    assert "Expected types" not in result.stderr, result.stderr
    pipe = ViLearnImageTo3DPipeline.from_pretrained(CHECKPOINT)
    expected = pipe(Image.open(PICTURE), **CALL, generator=torch.Generator().manual_seed(0)).meshes[0]
    mesh = np.load(tmp_path / "mesh.npz")
    assert len(expected.faces) > 100
    np.testing.assert_array_equal(mesh["vertices"], expected.vertices)
    np.testing.assert_array_equal(mesh["faces"], expected.faces)


def test_trust_is_never_implied(repository):
    for pipeline_class in (DiffusionPipeline, ViLearnImageTo3DPipeline):
        with pytest.raises(ValueError, match="Pass `trust_remote_code=True`"):
            pipeline_class.from_pretrained(repository)
    with pytest.raises(ValueError, match="Pass `trust_remote_code=True`"):
        ViLearnImageTo3DPipeline.from_pretrained(CHECKPOINT, custom_pipeline=str(repository))


def test_the_package_and_a_copy_of_it_in_one_process(repository, tmp_path):
    """Both have the operator of farthest-point sampling; neither breaks the other."""
    code = f"""
        import torch
        from diffusers import DiffusionPipeline
        from diffusers_vilearn import VecSetVAE
        ours = VecSetVAE.from_pretrained({str(CHECKPOINT / "vae")!r})
        points = torch.rand(1, 500, 6, generator=torch.Generator().manual_seed(0)) - 0.5
        before = ours.encode(points).latent_dist.mean
        pipe = DiffusionPipeline.from_pretrained({str(repository)!r}, trust_remote_code=True)
        assert type(pipe.vae) is not VecSetVAE
        again = DiffusionPipeline.from_pretrained({str(repository)!r}, trust_remote_code=True)
        for vae in (again.vae, pipe.vae, ours):
            assert torch.equal(vae.encode(points).latent_dist.mean, before)
    """
    result = run_python(code, tmp_path)
    assert result.returncode == 0, result.stderr


def test_adding_code_twice_changes_nothing(repository, tmp_path):
    shutil.copytree(repository, tmp_path / "again")
    add_custom_code(tmp_path / "again")
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert index == json.loads((repository / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "ViLearnImageTo3DPipeline"]
    assert index["vae"] == ["autoencoder_vecset", "VecSetVAE"]
    with pytest.raises(ValueError, match="must hold a saved pipeline or model"):
        add_custom_code(tmp_path)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of ours; returns a function that writes its modules."""
    root = tmp_path / "package"
    monkeypatch.setattr(custom_code, "PACKAGE", root)
    monkeypatch.setattr(custom_code, "PIPELINE", "pipelines.main")
    monkeypatch.setattr(custom_code, "COMPONENTS", {"vae": "models.vae"})

    def write(**sources):
        for name, source in {"models/vae": "class VAE: pass", **sources}.items():
            path = root / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"# copyright\n# licence\n{source}\n")

    return write


def test_files_that_only_siblings_import_are_named_by_the_pipeline(package):
    package(**{"pipelines/main": "from ..first import x", "first": "from .deep.second import y", "deep/second": "y=1"})
    files = custom_code_files()
    assert set(files) == {"pipeline.py", "vilearn_first.py", "vilearn_second.py", "vae/vae.py"}
    assert "from .vilearn_first import x" in files["pipeline.py"]
    assert "from .vilearn_second import" in files["pipeline.py"]
    assert "from .vilearn_second import y" in files["vilearn_first.py"]


@pytest.mark.parametrize(
    "sources, message",
    [
        ({"pipelines/main": "from ..models.vae import VAE\nVAE()"}, "may only be a type hint"),
        ({"pipelines/main": "from .. import models"}, "does not follow"),
        ({"pipelines/main": "from ..models import VAE"}, "is no file of the package"),
        ({"pipelines/main": "from package.models.vae import VAE"}, "must be relative"),
        ({"pipelines/main": "", "models/vae": "from .parts import x", "models/parts": "x = 1"}, "a file of its own"),
    ],
)
def test_imports_that_a_repository_cannot_have(package, sources, message):
    package(**sources)
    with pytest.raises(ValueError, match=message):
        custom_code_files()


def test_the_script_writes_the_committed_files(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("build_hub_files", ROOT / "pipelines" / "build_hub_files.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "HUB_FILES", tmp_path / "hub")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "outdated.py").touch()
    script.main()
    written = {path.relative_to(tmp_path / "hub").as_posix() for path in (tmp_path / "hub").rglob("*.py")}
    assert written == set(custom_code_files())
