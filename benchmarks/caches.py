# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What diffusers' caches of the transformer save and cost, beside simply taking fewer steps.

    python benchmarks/caches.py --checkpoint checkpoints/vilearn-tiny --dataset_name data/tiny-heldout \\
        --output caches.json

"computed" is the share of attention layers that are computed at all; "cpu s" the CPU time of the transformer and its
hooks for one shape; "same" the volume IoU with the shape that the same noise gives uncached; "truth" the volume IoU
with the true one; each the mean over the first held-out objects.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig

from diffusers_vilearn import ViLearnImageTo3DPipeline
from diffusers_vilearn.data.evaluation_views import EvaluationViews
from diffusers_vilearn.metrics.reconstruction import decoded_field, occupancy_iou
from diffusers_vilearn.models.transformer_vilearn import ViLearnAttention

STEPS = 50


def cache_config(name: str, value: float, pipe):
    """A configuration of diffusers; `value` is its threshold, interval or range."""
    if name == "FirstBlockCache":
        return FirstBlockCacheConfig(threshold=value)
    if name == "TaylorSeerCache":
        return TaylorSeerCacheConfig(cache_interval=int(value), taylor_factors_dtype=torch.float32)
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=int(value),
        spatial_attention_timestep_skip_range=(100, 900),
        current_timestep_callback=lambda: pipe.current_timestep,
    )


CACHES = [
    *(("FirstBlockCache", threshold) for threshold in (0.02, 0.05, 0.1, 0.2, 0.3)),
    *(("TaylorSeerCache", interval) for interval in (2, 3, 5)),
    *(("PyramidAttentionBroadcast", skip) for skip in (2, 3)),
]


class Watched:
    """Counts the attention layers that a transformer computes and the CPU time of its calls."""

    def __init__(self, transformer):
        self.calls = self.attentions = 0
        self.seconds = self.started = 0.0
        layers = [module for module in transformer.modules() if isinstance(module, ViLearnAttention)]
        self.layers = len(layers)
        for layer in layers:
            # inside what the caches replace
            layer.to_q.register_forward_hook(self._attended)
        transformer.register_forward_pre_hook(self._start)
        transformer.register_forward_hook(self._stop)

    def _attended(self, *_):
        self.attentions += 1

    def _start(self, *_):
        self.started = time.process_time()

    def _stop(self, *_):
        self.seconds += time.process_time() - self.started
        self.calls += 1

    def read(self) -> dict:
        shares = {"computed": self.attentions / (self.calls * self.layers), "cpu_seconds": self.seconds}
        self.calls = self.attentions = 0
        self.seconds = 0.0
        return shares


@torch.no_grad()
def generate(pipe, view, num_inference_steps: int, guidance_scale: float) -> torch.Tensor:
    """Whether each query point of the view lies inside the generated shape."""
    latents = pipe(
        view.image,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).meshes
    field = decoded_field(pipe.vae, latents)
    return torch.cat([field(chunk) > 0 for chunk in torch.from_numpy(view.xyz).split(16384)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="checkpoints/vilearn-tiny")
    parser.add_argument("--dataset_name", required=True, help="a prepared dataset")
    parser.add_argument("--split", default="heldout")
    parser.add_argument("--count", type=int, default=12, help="objects")
    parser.add_argument("--guidance_scale", type=float, default=2.0)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    pipe = ViLearnImageTo3DPipeline.from_pretrained(args.checkpoint)
    pipe.set_progress_bar_config(disable=True)
    config = pipe.vae.config
    views = EvaluationViews(args.dataset_name, args.split, frame=config.frame, bounds=config.bounds)
    views = [views[index] for index in range(args.count)]
    watched = Watched(pipe.transformer)

    references, rows = None, []
    print("| cache | setting | steps | computed | cpu s | same | truth |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, value, steps in [
        *(("none", None, steps) for steps in (STEPS, 25, 15, 10)),
        *((name, value, STEPS) for name, value in CACHES),
    ]:
        if name != "none":
            pipe.transformer.enable_cache(cache_config(name, value, pipe))
        inside = [generate(pipe, view, steps, args.guidance_scale) for view in views]
        measured = watched.read()
        if name != "none":
            pipe.transformer.disable_cache()
        references = references or inside
        truths = [torch.from_numpy(view.inside) for view in views]
        row = {
            "cache": name,
            "setting": value,
            "steps": steps,
            "computed": measured["computed"],
            "cpu_seconds": measured["cpu_seconds"] / len(views),
            "same": sum(occupancy_iou(a, b).item() for a, b in zip(inside, references)) / len(views),
            "truth": sum(occupancy_iou(a, b).item() for a, b in zip(inside, truths)) / len(views),
        }
        rows.append(row)
        print(
            f"| {name} | {'' if value is None else value} | {steps} | {row['computed']:.0%} |"
            f" {row['cpu_seconds']:.2f} | {row['same']:.3f} | {row['truth']:.3f} |",
            flush=True,
        )
    if args.output:
        report = {**vars(args), "torch": torch.__version__, "processor": platform.processor(), "rows": rows}
        report["threads"] = torch.get_num_threads()
        args.output.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
