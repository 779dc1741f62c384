# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Refusals that a user of the command line can read."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import HFValidationError, HTTPError


@contextmanager
def refusals_in_one_line() -> Iterator[None]:
    """What is wrong with the arguments, the disk, the network or the installation ends the process with one line and
    status 1.

    The whole traceback shows under `python -X dev`, and of what has notes: it comes from the middle of the work.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, HTTPError) as error:
        if sys.flags.dev_mode or hasattr(error, "__notes__"):
            raise
        sys.exit(f"Error: {str(error) or repr(error)}")


@contextmanager
def noted(note: str) -> Iterator[None]:
    """Add to what goes wrong what was being done."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


@contextmanager
def named_if_absent(what: str, name: str) -> Iterator[None]:
    """Raise a `ValueError` in one line where the block does not find `name`, a folder or Hub id."""
    try:
        yield
    except (HFValidationError, OSError) as error:
        # What is wrong with the disk has a number.
        if getattr(error, "errno", None) is not None or Path(name).is_dir():
            raise
        raise ValueError(
            f"There is no folder {name!r}, and no {what} of that name could be reached on the Hub. A private or gated"
            " one needs `hf auth login`."
        ) from error
