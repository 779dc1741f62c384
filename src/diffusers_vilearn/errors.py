# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Refusals that a user of the command line can read."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def refusals_in_one_line() -> Iterator[None]:
    """What is wrong with the arguments, the disk or the installation ends the process with one line and status 1, or
    under `python -X dev` with the whole traceback."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        if sys.flags.dev_mode:
            raise
        sys.exit(f"Error: {error}")
