# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Signals that reach a process at a chosen moment of its work with files, the same on any machine."""

import itertools
import os
import sys


def signal_at(number: int, text: str, time: int) -> None:
    """Have this process get a signal at the `time`-th time that it turns to a file or folder whose path has this text
    in it."""
    times = itertools.count(1)

    def hook(event: str, arguments: tuple) -> None:
        if event.startswith(("open", "os.", "shutil.")) and any(text in str(each) for each in arguments):
            if next(times) == time:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)
