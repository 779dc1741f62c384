# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Pinned files from Debian and PyPI: fetched once into the cache, checked, unpacked whole or not at all."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A pinned package file and the ordinary command, run in the download folder, that fetches it."""

    file: str
    sha256: str
    command: tuple[str, ...]


PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:")


def cache_folder() -> Path:
    return Path(os.environ.get("DIFFUSERS_VILEARN_CACHE", "~/.cache/diffusers-vilearn")).expanduser()


def fetch(package: Package, downloads: Path) -> Path:
    """The package's file, downloaded when absent; `RuntimeError` without the command or with a wrong checksum."""
    path = downloads / package.file
    if not path.exists():
        downloads.mkdir(parents=True, exist_ok=True)
        print(f"fetching {package.file} with `{' '.join(package.command)}`")
        if shutil.which(package.command[0]) is None:
            raise RuntimeError(
                f"`{package.command[0]}` is needed to fetch {package.file}; or put that file into {downloads}"
            )
        subprocess.run(package.command, cwd=downloads, check=True)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise RuntimeError(f"{path} has SHA-256 {digest}, expected {package.sha256}; delete it to fetch it again")
    return path


def unpack(archive: Path, folder: Path, prefix: str = "") -> Path:
    """Extract the members under `prefix` of a Debian package or a zip into `folder`, whole or not at all."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        target = Path(scratch) / "content"
        if archive.suffix == ".deb":
            if shutil.which("dpkg-deb") is None:
                raise RuntimeError(f"`dpkg-deb` (Debian package dpkg) is needed to unpack {archive.name}")
            subprocess.run(("dpkg-deb", "-x", archive, target), check=True)
        else:
            with zipfile.ZipFile(archive) as members:
                members.extractall(target, [name for name in members.namelist() if name.startswith(prefix)])
        target.rename(folder)
    return folder
