# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A script under FSDP2 where there is no GPU: accelerate does not shard between CPUs, though torch can.

accelerate launch --config_file FSDP2.yaml fsdp2_on_cpu.py SCRIPT ARGUMENTS
"""

import runpy
import sys

from accelerate.state import PartialState
from accelerate.utils import DistributedType

PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
