# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Processes of their own: with this package, and in an environment that has never heard of it."""

import os
import re
import subprocess
import sys
import textwrap
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints" / "vilearn-tiny"
PICTURE = ROOT / "docs" / "images" / "demo.png"
# What the card of a repository with its own code asks for.
REQUIREMENTS = ("diffusers", "transformers", "trimesh", "libigl", "torch")


def run_python(code: str, home: Path, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a new process with caches of its own under `home`; offline unless `HF_ENDPOINT` is given."""
    home.mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS") if name in os.environ}
    offline = {} if "HF_ENDPOINT" in environment else {"HF_HUB_OFFLINE": "1"}
    caches = {"HF_HOME": str(home / "hf"), "HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [python, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=home,
        env=kept
        | offline
        | caches
        | {"PYTHONPATH": _source_path(python), "HF_HUB_DISABLE_TELEMETRY": "1"}
        | environment,
    )


def _source_path(python: str) -> str:
    return str(ROOT / "src") if python == sys.executable else ""


def _requirements(names: tuple[str, ...]) -> set[str]:
    """The distributions that `names` install, extras left out."""
    found, pending = set(), list(names)
    while pending:
        try:
            one = distribution(pending.pop())
        except PackageNotFoundError:  # of another platform
            continue
        if one.name not in found:
            found.add(one.name)
            wanted = [line for line in one.requires or () if "extra ==" not in line]
            pending.extend(re.match(r"[\w.-]+", line)[0] for line in wanted)
    return found


def make_bare_environment(folder: Path) -> str:
    """The Python of a virtual environment with `REQUIREMENTS` alone, linked from the one that runs the tests."""
    packages = folder / "packages"
    packages.mkdir()
    for name in _requirements(REQUIREMENTS):
        one = distribution(name)
        for entry in {file.parts[0] for file in one.files if file.parts[0] not in ("..", "__pycache__")}:
            if not entry.endswith(".pth") and not (packages / entry).exists():
                (packages / entry).symlink_to(one.locate_file(entry))
    venv.create(folder / "venv", symlinks=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n")
    return str(folder / "venv" / "bin" / "python")
