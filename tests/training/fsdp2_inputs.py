# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Print in what precision timesteps and rotary angles reach the layers of a transformer that FSDP2 shards, and in what
precision these compute.

accelerate launch --config_file FSDP2.yaml fsdp2_on_cpu.py fsdp2_inputs.py OUTPUT_DIR
"""

import sys
from argparse import Namespace

import torch

from diffusers_vilearn.models import ViLearnTransformer3DModel
from diffusers_vilearn.training.run import make_accelerator

args = Namespace(
    output_dir=sys.argv[1],
    mixed_precision=None,
    gradient_accumulation_steps=1,
    report_to="none",
    logging_dir="logs",
    allow_tf32=False,
    seed=0,
)
accelerator = make_accelerator(args)
transformer = ViLearnTransformer3DModel(
    in_channels=4,
    num_layers=1,
    num_single_layers=1,
    num_attention_heads=2,
    attention_head_dim=8,
    joint_attention_dim=16,
)
transformer, _ = accelerator.prepare(transformer, torch.optim.AdamW(transformer.parameters()))
plain = accelerator.unwrap_model(transformer)
plain.adaln_single.register_forward_pre_hook(lambda _, inputs: accelerator.print("timestep", inputs[0].tolist()))
for block in plain.transformer_blocks:
    block.register_forward_pre_hook(
        lambda _, __, named: accelerator.print("angles", {x.dtype for x in named["rotary_emb"]}), with_kwargs=True
    )
block.attn.to_q.register_forward_hook(lambda _, __, output: accelerator.print("products", output.dtype))
with accelerator.autocast():
    output = transformer(
        hidden_states=torch.zeros(1, 6, 4),
        encoder_hidden_states=torch.zeros(1, 5, 16),
        timestep=torch.tensor([997.3]),
        visible_mask=torch.tensor([[True, False] * 3]),
    )
accelerator.backward(output.sample.sum())
accelerator.end_training()
