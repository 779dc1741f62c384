# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The exponential moving average of the weights, which is what a run validates and publishes."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from diffusers.training_utils import EMAModel

from .checkpoints import is_sharded


def start_ema(args: argparse.Namespace, model: ModelMixin, accelerator: Accelerator) -> EMAModel | None:
    """The average of the weights of a model that is not yet prepared, if `--use_ema` wants it."""
    if not args.use_ema:
        return None
    if is_sharded(accelerator):
        raise ValueError("`--use_ema` needs whole weights in each process: use DDP or DeepSpeed ZeRO-2.")
    ema = EMAModel(
        model.parameters(),
        decay=args.ema_decay,
        foreach=args.foreach_ema,
        model_cls=type(model),
        model_config=model.config,
    )
    ema.to("cpu" if args.offload_ema else accelerator.device)
    return ema


def step_ema(args: argparse.Namespace, ema: EMAModel | None, model: torch.nn.Module, accelerator: Accelerator) -> None:
    """Move the average, if there is one, towards the weights."""
    if ema is None:
        return
    if args.offload_ema:
        ema.to(accelerator.device, non_blocking=True)
    ema.step(model.parameters())
    if args.offload_ema:
        ema.to("cpu")


@contextmanager
def averaged_weights(ema: EMAModel | None, model: torch.nn.Module) -> Iterator[None]:
    """Within it the model has the weights of the average, if there is one."""
    if ema is None:
        yield
        return
    ema.store(model.parameters())
    ema.copy_to(model.parameters())
    try:
        yield
    finally:
        ema.restore(model.parameters())
