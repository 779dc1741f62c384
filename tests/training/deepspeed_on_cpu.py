# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A script under DeepSpeed where there is no GPU: accelerate does not offer that, though DeepSpeed can.

deepspeed_on_cpu.py SCRIPT ARGUMENTS, with the variables that `accelerate launch` sets
"""

import os
import runpy
import sys

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    # Shared memory between processes, which it would compile; there is one process.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
    PartialState(cpu=True)
    PartialState._shared_state |= {"distributed_type": DistributedType.DEEPSPEED, "_cpu": False}
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
