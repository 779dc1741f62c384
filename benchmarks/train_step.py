# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What a training step costs: seconds, memory and model FLOP utilisation, ours against the same model without a
visibility encoding; graph breaks; and how long the step waits for its batch.

    python benchmarks/train_step.py --config training/configs/small.yaml --tokens 2048 --batch_size 208 \\
        --dtype bf16 --gradient_checkpointing --compile --device cuda --peak_tflops 989 --output train_step.json

Steps of all encodings alternate, so that whatever else the machine does falls on all of them alike. On a CPU, seconds
are those of the process (of all its threads), which other processes do not lengthen much.
"""

import argparse
import gc
import json
import platform
import time
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import torch
import yaml
from accelerate import Accelerator
from resident_memory import resident_peak
from torch.utils.flop_counter import FlopCounterMode

from diffusers_vilearn.data.features import latent_features
from diffusers_vilearn.models import ViLearnTransformer3DModel
from diffusers_vilearn.training.flow_matching import flow_matching_loss
from diffusers_vilearn.training.samples import LatentSamples, SampleOptions
from diffusers_vilearn.training.stream import make_loader, to_device

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Rows of the table that the loader is timed with.
NUM_ROWS = 256


class PlainLatents:
    """In place of a VAE: latents that need no normalisation."""

    @staticmethod
    def normalize_latents(latents: torch.Tensor) -> torch.Tensor:
        return latents


def random_batch(args, device) -> dict[str, torch.Tensor]:
    """A batch as `LatentSamples` makes them, of noise."""
    shape = (args.batch_size, args.tokens, args.latent_channels)
    return {
        "latents": torch.randn(shape, device=device),
        "noise": torch.randn(shape, device=device),
        "density": torch.rand(args.batch_size, device=device),
        "visible_mask": torch.rand(shape[:2], device=device) < 1 / 3,
        "image_embeds": torch.randn(args.batch_size, args.image_tokens, args.image_channels, device=device),
    }


class Trainee:
    """A model with its optimiser, and one training step of both."""

    def __init__(self, args, encoding: str):
        self.args = args
        torch.manual_seed(0)
        with torch.device(args.device):
            self.model = ViLearnTransformer3DModel(**model_config(args, encoding))
        if args.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()
        if args.compile:
            self.model.compile(fullgraph=True)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=args.device == "cuda")

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        """Seconds of one step."""
        clock = time.perf_counter if self.args.device == "cuda" else time.process_time
        synchronise(self.args.device)
        start = clock()
        autocast = torch.autocast(self.args.device, DTYPES[self.args.dtype], enabled=self.args.dtype != "fp32")
        with autocast:
            loss = flow_matching_loss(self.model, PlainLatents, batch, 1.0).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        synchronise(self.args.device)
        return clock() - start


def model_config(args, encoding: str) -> dict:
    channels = {"in_channels": args.latent_channels, "joint_attention_dim": args.image_channels}
    return {**args.transformer, **channels, "visibility_encoding": encoding}


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure_memory(args, encoding: str) -> float:
    """Peak GiB of one model that takes two steps alone; on a CPU of the process so far."""
    trainee = Trainee(args, encoding)
    batch = random_batch(args, args.device)
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        trainee.step(batch)
    if args.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resident_peak()
    del trainee
    gc.collect()
    return peak / 2**30


def count_flops(args, encoding: str) -> float:
    """FLOPs that the forward and backward pass of a step need, without recomputation; counted on no data."""
    one = argparse.Namespace(**{**vars(args), "batch_size": 1})
    with torch.device("meta"):
        model = ViLearnTransformer3DModel(**model_config(args, encoding))
    with FlopCounterMode(display=False) as counter:
        flow_matching_loss(model, PlainLatents, random_batch(one, "meta"), 1.0).mean().backward()
    return counter.get_total_flops() * args.batch_size


def count_graph_breaks(args, encoding: str) -> int:
    """Graph breaks of the model in training."""
    model = ViLearnTransformer3DModel(**model_config(args, encoding))
    one = argparse.Namespace(**{**vars(args), "batch_size": 2, "tokens": 32})
    batch = random_batch(one, "cpu")
    explanation = torch._dynamo.explain(model)(
        batch["latents"],
        encoder_hidden_states=batch["image_embeds"],
        timestep=1000 * batch["density"],
        visible_mask=batch["visible_mask"],
        return_dict=False,
    )
    torch._dynamo.reset()
    return explanation.graph_break_count


def measure_steps(args, encodings: list[str]) -> dict[str, np.ndarray]:
    """Seconds of each step by encoding; steps alternate."""
    trainees = {encoding: Trainee(args, encoding) for encoding in encodings}
    batch = random_batch(args, args.device)
    for _ in range(args.warmup):
        for trainee in trainees.values():
            trainee.step(batch)
    seconds = {encoding: [] for encoding in encodings}
    for number in range(args.steps):
        # Every other round in reverse, against drifts within a round.
        for encoding in encodings if number % 2 else encodings[::-1]:
            seconds[encoding].append(trainees[encoding].step(batch))
    return {encoding: np.array(values) for encoding, values in seconds.items()}


def measure_wait(args, encoding: str) -> float:
    """Share of the time in which a step waits for its batch, out of a table with rows of this size."""
    rng = np.random.default_rng(0)
    features = latent_features(args.latent_channels, args.image_channels)
    rows = {
        "uid": [f"object {row}" for row in range(NUM_ROWS)],
        "view": [0] * NUM_ROWS,
        "mirrored": [False] * NUM_ROWS,
        "frame": [np.eye(4, dtype=np.float32)] * NUM_ROWS,
        "moments": [
            rng.standard_normal((args.tokens, 2 * args.latent_channels)).astype(np.float16) for _ in range(NUM_ROWS)
        ],
        "visible_tokens": [np.arange(args.tokens // 3).tolist()] * NUM_ROWS,
        "visible_share": [1 / 3] * NUM_ROWS,
        "anchor_agreement": [1.0] * NUM_ROWS,
        "image_embeds": [
            rng.standard_normal((args.image_tokens, args.image_channels)).astype(np.float16) for _ in range(NUM_ROWS)
        ],
    }
    samples = LatentSamples(datasets.Dataset.from_dict(rows, features=features), args.tokens, SampleOptions())
    options = SimpleNamespace(
        seed=0,
        train_batch_size=args.batch_size,
        gradient_accumulation_steps=1,
        dataloader_num_workers=args.num_workers,
    )
    accelerator = Accelerator(cpu=args.device == "cpu")
    trainee = Trainee(args, encoding)
    loader = make_loader(options, samples, accelerator, position=0, num_steps=args.warmup + args.steps)
    waits, wholes = [], []
    start = time.perf_counter()
    for number, batch in enumerate(loader):
        waited = time.perf_counter() - start
        trainee.step(to_device(batch, accelerator.device))
        whole = time.perf_counter() - start
        if number >= args.warmup:
            waits.append(waited)
            wholes.append(whole)
        start = time.perf_counter()
    return sum(waits) / sum(wholes)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file with `transformer`.")
    parser.add_argument("--encodings", nargs="+", default=["none", "va_rope", "va_lpe", "va_rope_lpe"])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--batch_size", type=int, default=208)
    parser.add_argument("--image_tokens", type=int, default=324, help="Patches: (256 // 14)^2.")
    parser.add_argument("--image_channels", type=int, default=1024)
    parser.add_argument("--latent_channels", type=int, default=64)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--num_workers", type=int, default=8, help="Of the loader.")
    parser.add_argument("--peak_tflops", type=float, help="Of the device: 989 for an H100 or H200 in bf16.")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    args.transformer = yaml.safe_load(args.config.read_text())["transformer"]
    return args


def main():
    args = parse_args()
    torch.set_float32_matmul_precision("high")
    memory = {encoding: measure_memory(args, encoding) for encoding in args.encodings}
    seconds = measure_steps(args, args.encodings)
    base = seconds.get("none", seconds[args.encodings[0]])
    rows = {}
    for encoding in args.encodings:
        # Paired by round: the median over rounds of the ratio, and the standard error of its mean.
        ratio = seconds[encoding] / base
        flops = count_flops(args, encoding)
        rows[encoding] = {
            "seconds": float(np.median(seconds[encoding])),
            "cost": float(np.median(ratio) - 1),
            "cost_error": float(ratio.std(ddof=1) / np.sqrt(len(ratio))),
            "memory_gib": memory[encoding],
            "tflops_per_step": flops / 1e12,
            "graph_breaks": count_graph_breaks(args, encoding),
        }
        if args.peak_tflops:
            rows[encoding]["mfu"] = flops / rows[encoding]["seconds"] / (args.peak_tflops * 1e12)
    wait = measure_wait(args, args.encodings[-1])
    print("| encoding | s a step | cost | GiB | TFLOP a step | graph breaks | MFU |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for encoding, row in rows.items():
        mfu = f"{row['mfu']:.1%}" if "mfu" in row else "-"
        print(
            f"| {encoding} | {row['seconds']:.3f} | {row['cost']:+.1%} ± {row['cost_error']:.1%} |"
            f" {row['memory_gib']:.2f} | {row['tflops_per_step']:.3f} | {row['graph_breaks']} | {mfu} |"
        )
    print(f"waiting for the batch: {wait:.1%} of the time, with {args.num_workers} workers")
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.machine()} CPU"
    print(f"{device}, torch {torch.__version__}")
    if args.output:
        settings = {name: value for name, value in vars(args).items() if name not in ("config", "output")}
        result = {"device": device, "torch": torch.__version__, "settings": settings, "rows": rows, "wait": wait}
        args.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main()
