# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Folders that one process holds."""

import multiprocessing
import threading
from pathlib import Path

import pytest

from diffusers_vilearn.files import locked


def hold(folder: Path, held, release) -> None:
    with locked(folder):
        held.set()
        release.wait()


def test_one_process_at_a_time_writes_to_a_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, release))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(ValueError, match="Another process is writing to"), locked(tmp_path):
            pass
    finally:
        other.kill()
        other.join()
    # Killed, it holds nothing; and an error on the way frees the folder.
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_is_freed_in_time_is_taken(tmp_path):
    held, release = threading.Event(), threading.Event()
    other = threading.Thread(target=hold, args=(tmp_path, held, release))
    other.start()
    assert held.wait(60)
    with pytest.raises(ValueError, match="Another process"), locked(tmp_path, patience=0.2):
        pass
    threading.Timer(0.3, release.set).start()
    with locked(tmp_path, patience=60):
        other.join()
