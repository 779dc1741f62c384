# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Files and folders that are whole or absent."""

import errno
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

# What `save_pretrained` leaves at the top of a pipeline and of a model, and `save_lora_weights` of LoRA layers.
PIPELINE_INDEX = "model_index.json"
INDICES = (PIPELINE_INDEX, "config.json")
LORA_WEIGHTS = "pytorch_lora_weights.safetensors"
# What `prepare` leaves: in a dataset of its shapes, and in each latents table of its rows.
PREPARATION_FILE = "preparation.json"
LATENTS_FILE = "metadata.json"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to fill, renamed at the end of the block: a full disk or a crash leaves the old file or
    none."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what `replacing` left in `folder` where its process was killed."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink()


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def locked(folder: Path, patience: float = 0) -> Iterator[None]:
    """Hold a folder, made if need be, that one process at a time may write to; it is free again however the process
    ends.

    Args:
        folder (`Path`): to hold.
        patience (`float`): seconds in which another process may come to its end.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A file in it: of folders, network file systems tell other machines nothing.
    lock = FileLock(folder / ".lock", timeout=patience)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"Another process is writing to {folder}; wait until it has finished.") from error
    try:
        yield
    finally:
        lock.release()


def sync_folder(folder: Path) -> None:
    """Make the device hold everything below `folder`, names included, as `fsync` does for one file."""
    for parent, _, names in os.walk(folder):
        for path in (*(Path(parent) / name for name in names), Path(parent)):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def saved_index(folder: Path) -> Path:
    """What `save_pretrained` leaves at the top: `model_index.json` of a pipeline, `config.json` of a model.

    Raises:
        ValueError: If there is neither; it says what lies there instead.
    """
    for path in (folder / name for name in INDICES):
        if _class_name(path) is not None:
            return path
    raise ValueError(f"`folder` must hold a saved pipeline or model, but {what_lies_in(folder)}")


def holds_lora(folder: Path) -> bool:
    """Whether a folder holds LoRA layers, and no pipeline or model of which they are a part."""
    return (folder / LORA_WEIGHTS).is_file() and not any((folder / name).is_file() for name in INDICES)


def what_lies_in(folder: Path, wanted: tuple[str, ...] = INDICES, class_name: str | None = None) -> str:
    """The end of an error's sentence: what a folder holds instead of a file of `wanted`, and which folders in it have
    one, if given of a class."""
    if not folder.is_dir():
        return f"there is no folder {str(folder)!r}."
    model = _class_name(folder / "config.json")
    held = "LoRA layers" if holds_lora(folder) else f"a {model}" if model else "none"
    found = [(path.parent, _class_name(path)) for name in wanted for path in sorted(folder.glob(f"*/{name}"))]
    nested = [str(place) for place, named in found if named and class_name in (None, named)]
    return f"{str(folder)!r} holds {held}" + (f"; did you mean {' or '.join(nested)}?" if nested else ".")


def _class_name(index: Path) -> str | list | None:
    """The class that a file of `INDICES` names; none where there is no such file, or it is another library's."""
    try:
        values = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values.get("_class_name") if isinstance(values, dict) else None


def append_json_line(path: Path, record: dict) -> None:
    """Add one line to a log of JSON records, by a single write: a crash or a full disk leaves no half of it."""
    line = json.dumps(record).encode() + b"\n"
    with open(path, "ab", buffering=0) as file:
        start = file.tell()
        if file.write(line) < len(line):
            file.truncate(start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def read_json_lines(path: Path) -> list[dict]:
    """The records of such a log; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def drop_json_lines(path: Path, keep: Callable[[dict], bool]) -> None:
    """Leave only the records of such a log for which `keep` is true."""
    if path.exists():
        lines = [json.dumps(record) + "\n" for record in read_json_lines(path) if keep(record)]
        write_atomically(path, "".join(lines).encode())
