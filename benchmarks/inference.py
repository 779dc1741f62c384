# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Memory and time of each stage from an image to a field, for both sizes of the paper, with random weights.

    python benchmarks/inference.py --output inference.json                      # computed for all, nothing is run
    python benchmarks/inference.py --measure small --dtypes float32 bfloat16    # and measured here, stage by stage
    python benchmarks/inference.py --measure small large --device cuda --dtypes bfloat16 float8

*Computed* runs the forward pass itself on fake tensors and adds up the bytes that are alive: exact for tensors, blind
to what a kernel or the allocator takes beside them. *Measured* runs each stage in a process of its own; "extra MiB" is
what it adds to a process that holds the weights (CPU), or the peak of the allocator less the weights (CUDA).

float8 is layerwise casting: stored in float8_e4m3fn, computed in bfloat16.
"""

import argparse
import json
import multiprocessing
import platform
import time
import weakref
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.hooks.layerwise_casting import apply_layerwise_casting
from resident_memory import resident_peak
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import Dinov2Config, Dinov2Model
from transformers.initialization import no_init_weights

from diffusers_vilearn import VecSetVAE, ViLearnTransformer3DModel
from diffusers_vilearn.models.transformer_vilearn import VILEARN_LARGE, VILEARN_SMALL

MIB = 2**20
DINOV2_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 518}
# configuration of the transformer, shape tokens, side of the image in pixels: the last stage of each schedule
SIZES = {"small": (VILEARN_SMALL, 2048, 252), "large": (VILEARN_LARGE, 4096, 518)}
QUERIES = 16384
STAGES = {"encode image": "image_encoder", "denoise": "transformer", "decode": "vae", "query": "vae"}
DTYPES = ("float32", "float16", "bfloat16", "float8")


@contextmanager
def default_dtype(dtype: str):
    """Makes the dtype that is computed in the default one."""
    torch.set_default_dtype(torch.bfloat16 if dtype == "float8" else getattr(torch, dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def build(component: str, size: str) -> torch.nn.Module:
    """A component on the default device and in the default dtype."""
    if component == "image_encoder":
        # initialising would look at the numbers, which fake tensors do not have
        with no_init_weights():
            return Dinov2Model(Dinov2Config(**DINOV2_LARGE, patch_size=14, mlp_ratio=4)).eval()
    if component == "transformer":
        return ViLearnTransformer3DModel.from_config(SIZES[size][0]).eval()
    return VecSetVAE(num_tokens=SIZES[size][1], dual_cross_attention=True).eval()


def stage_call(stage: str, model: torch.nn.Module, size: str):
    """The stage as a function without arguments; its inputs are on the default device. One shape, with guidance."""
    _, tokens, side = SIZES[size]
    if stage == "encode image":
        pixels = torch.randn(1, 3, side, side)
        return lambda: model(pixels)
    if stage == "denoise":
        inputs = {
            "hidden_states": torch.randn(2, tokens, model.config.in_channels),
            "encoder_hidden_states": torch.randn(2, (side // 14) ** 2, model.config.joint_attention_dim),
            "timestep": torch.full((2,), 500.0),
            "visible_mask": torch.arange(tokens).expand(2, -1) < tokens // 3,
        }
        return lambda: model(**inputs)
    if stage == "decode":
        latents = torch.randn(1, tokens, model.config.latent_channels)
        return lambda: model.project_key_value(model.decode(latents))
    heads = model.config.decoder_heads
    keys_values = tuple(torch.randn(1, tokens, heads, model.config.decoder_width // heads) for _ in range(2))
    xyz = torch.rand(1, QUERIES, 3, dtype=torch.float32) * 2 - 1
    return lambda: model.query(xyz, keys_values)


def cast_to_float8(model: torch.nn.Module) -> None:
    patterns = getattr(model, "_skip_layerwise_casting_patterns", None) or ["norm", "embeddings"]
    if hasattr(model, "enable_layerwise_casting"):
        model.enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
    else:
        apply_layerwise_casting(model, torch.float8_e4m3fn, torch.bfloat16, patterns)


def weight_bytes(module: torch.nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def weights(component: str, size: str, dtype: str) -> dict[str, int]:
    """Bytes of the weights: all of them, those on the device while a block of group offloading runs, and what a layer
    of layerwise casting grows by while it runs."""
    with default_dtype(dtype), torch.device("meta"):
        model = build(component, size)
    before = {module: weight_bytes(module) for module in model.modules()}
    if dtype == "float8":
        cast_to_float8(model)
    total = weight_bytes(model)
    blocks = [weight_bytes(block) for block in _blocks(model)]
    leaves = [module for module in model.modules() if not list(module.children())]
    return {
        "all": total,
        "block": total - sum(blocks) + max(blocks, default=0),
        "layer": max(before[leaf] - weight_bytes(leaf) for leaf in leaves),
    }


def _blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """What block-level group offloading moves on its own; the rest stays while the model runs."""
    holders = [model, *(getattr(model, name) for name in getattr(model, "_group_offload_block_modules", None) or ())]
    stacks = [child for holder in holders for child in holder.children() if isinstance(child, torch.nn.ModuleList)]
    return [block for stack in stacks for block in stack]


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that are alive, weights of `model` aside, and their peak."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.now = self.peak = 0
        self.storages = WeakIdKeyDictionary()
        for weight in (*model.parameters(), *model.buffers()):
            self.storages[weight.untyped_storage()] = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage not in self.storages:
                    size = self.storages[storage] = storage.nbytes()
                    weakref.finalize(storage, self._free, size)
                    self.now += size
                    self.peak = max(self.peak, self.now)
        return result

    def _free(self, size: int) -> None:
        self.now -= size


@torch.no_grad()
def compute_extra(stage: str, size: str, dtype: str) -> int:
    """Peak bytes of the tensors that a stage makes, and of its inputs."""
    with default_dtype(dtype), FakeTensorMode():
        model = build(STAGES[stage], size)
        call = stage_call(stage, model, size)
        with LiveBytes(model) as live:
            call()
    return live.peak


@torch.no_grad()
def measure(stage: str, size: str, dtype: str, device: str) -> dict:
    """Seconds and extra MiB of one call, in a process of its own; on CUDA after a first call that warms up."""
    with default_dtype(dtype), torch.device(device):
        torch.manual_seed(0)
        model = build(STAGES[stage], size)
        if dtype == "float8":
            cast_to_float8(model)
        call = stage_call(stage, model, size)
    if device == "cpu":
        before = resident_peak(reset=True)
        start, start_cpu = time.perf_counter(), time.process_time()
        call()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        extra = resident_peak() - before
    else:
        call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds = cpu_seconds = time.perf_counter() - start
        extra = torch.cuda.max_memory_allocated() - before
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "extra": extra}


def computed_rows(size: str, dtype: str) -> tuple[list[dict], dict]:
    """Each stage, and the peak on the device for each way of keeping the weights."""
    held = {component: weights(component, size, dtype) for component in dict.fromkeys(STAGES.values())}
    rows, peaks = [], {"all on the device": 0, "model offload": 0, "group offload": 0}
    everything = sum(held[component]["all"] for component in held)
    for stage, component in STAGES.items():
        one, extra = held[component], compute_extra(stage, size, dtype) + held[component]["layer"]
        rows.append({"size": size, "dtype": dtype, "stage": stage, "weights": one["all"], "computed_extra": extra})
        for way, kept in zip(peaks, (everything, one["all"], one["block"])):
            peaks[way] = max(peaks[way], kept + extra)
    return rows, {"size": size, "dtype": dtype, **peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="sizes to compute")
    parser.add_argument("--measure", nargs="*", choices=SIZES, default=[], help="sizes to measure as well")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of what is measured")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    stages, peaks = [], []
    print("| size | dtype | stage | weights MiB | extra MiB, computed | extra MiB, measured | seconds | CPU seconds |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for size in args.sizes:
        for dtype in args.dtypes:
            rows, peak = computed_rows(size, dtype)
            peaks.append(peak)
            for row in rows:
                measured = ("", "", "")
                if size in args.measure:
                    with multiprocessing.get_context("spawn").Pool(1) as pool:
                        result = pool.apply(measure, (row["stage"], size, dtype, args.device))
                    row.update({f"measured_{name}": value for name, value in result.items()})
                    measured = (
                        f"{result['extra'] / MIB:,.0f}",
                        f"{result['seconds']:.2f}",
                        f"{result['cpu_seconds']:.2f}",
                    )
                stages.append(row)
                print(
                    f"| {size} | {dtype} | {row['stage']} | {row['weights'] / MIB:,.0f} |"
                    f" {row['computed_extra'] / MIB:,.0f} | {' | '.join(measured)} |",
                    flush=True,
                )
    ways = [way for way in peaks[0] if way not in ("size", "dtype")]
    print(
        f"\nPeak MiB on the device, computed\n\n| size | dtype | {' | '.join(ways)} |\n| --- | --- |"
        + " ---: |" * len(ways)
    )
    for peak in peaks:
        values = " | ".join(f"{peak[way] / MIB:,.0f}" for way in ways)
        print(f"| {peak['size']} | {peak['dtype']} | {values} |")
    if args.output:
        report = {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if args.device == "cuda" else platform.processor(),
            "threads": torch.get_num_threads(),
            "bytes": {"stages": stages, "peaks": peaks},
        }
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
