# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""How much memory a benchmark takes of the machine it runs on."""

import platform
import resource
from pathlib import Path


def resident_peak(reset: bool = False) -> int:
    """Bytes that the process has had resident at most; on Linux since the last reset, elsewhere ever."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
