# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""`_cp_plan`: two processes share the tokens of one forward pass and give what one process gives."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from diffusers import ContextParallelConfig
from tiny import LATENT_CHANNELS, NUM_IMAGE_TOKENS, NUM_TOKENS, TRANSFORMER, randomize

from diffusers_vilearn import ViLearnTransformer3DModel


def run(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    # diffusers numbers accelerators; there is none, and the processes are all on the CPU
    torch.accelerator.device_count = lambda: 2
    torch.manual_seed(0)
    model = randomize(ViLearnTransformer3DModel(**TRANSFORMER, visibility_encoding="va_rope_lpe")).eval()
    inputs = {
        "hidden_states": torch.randn(2, NUM_TOKENS, LATENT_CHANNELS),
        "encoder_hidden_states": torch.randn(2, NUM_IMAGE_TOKENS, model.config.joint_attention_dim),
        "timestep": torch.tensor([500.0, 20.0]),
        "visible_mask": torch.rand(2, NUM_TOKENS) < 0.4,
        "return_dict": False,
    }
    seen = []
    model.x_embedder.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    with torch.no_grad():
        alone = model(**inputs)[0]
        model.set_attention_backend("native")
        model.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
        together = model(**inputs)[0]
    torch.save((alone, together, seen), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="gloo on the CPU, but diffusers takes the accelerator")
def test_two_processes_share_the_tokens(tmp_path):
    mp.spawn(run, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        alone, together, seen = torch.load(tmp_path / f"{rank}.pt")
        assert seen == [NUM_TOKENS, NUM_TOKENS // 2]
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
