# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""`group_visible_tokens` beside the straightforward full softmax: seconds, memory, and whether both agree.

    python benchmarks/visibility_grouping.py --output visibility_grouping.json

Each runs in a process of its own; "extra MiB" is what it adds to the process at its peak. The default is the largest
stage of the paper: 4,096 tokens, and 50,000 visible points; the widths are those of Dora's decoder.
"""

import argparse
import json
import multiprocessing
import platform
import time
from pathlib import Path

import torch
from resident_memory import resident_peak

from diffusers_vilearn.models import VecSetVAE
from diffusers_vilearn.visibility import group_visible_tokens


def make_inputs(num_tokens: int, num_points: int):
    """A VAE with one self-attention block, latents (1, tokens, 64) and points (1, points, 3)."""
    torch.manual_seed(0)
    vae = VecSetVAE(num_tokens=num_tokens, num_encoder_layers=0, num_decoder_layers=1).eval()
    return vae, torch.randn(1, num_tokens, vae.config.latent_channels), torch.rand(1, num_points, 3) * 2 - 1


@torch.no_grad()
def full_softmax(vae, latents, points) -> torch.Tensor:
    """All attention at once: (batch, heads, points, tokens)."""
    key, _ = vae.project_key_value(vae.decode(latents))
    query = vae.project_query(points).transpose(1, 2).float()
    attention = torch.softmax(query @ key.permute(0, 2, 3, 1).float() * query.shape[-1] ** -0.5, dim=-1)
    votes = attention.mean(dim=1).argmax(dim=-1)
    mask = torch.zeros(latents.shape[:2], dtype=torch.bool)
    return mask.scatter(1, votes, True)


METHODS = {"group_visible_tokens": group_visible_tokens, "full softmax": full_softmax}


def measure(method: str, num_tokens: int, num_points: int, connection) -> None:
    inputs = make_inputs(num_tokens, num_points)
    before = resident_peak()
    start = time.perf_counter()
    mask = METHODS[method](*inputs)
    seconds = time.perf_counter() - start
    extra = (resident_peak() - before) / 2**20
    connection.send({"seconds": seconds, "extra_mib": extra, "visible": mask[0].nonzero()[:, 0].tolist()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_tokens", type=int, default=4096)
    parser.add_argument("--num_points", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results = {method: [] for method in METHODS}
    for _ in range(args.repeats):
        for method in METHODS:
            ours, theirs = context.Pipe()
            process = context.Process(target=measure, args=(method, args.num_tokens, args.num_points, theirs))
            process.start()
            results[method].append(ours.recv())
            process.join()
    visible = [set(run.pop("visible")) for runs in results.values() for run in runs]
    print("| method | seconds | extra MiB |\n| --- | ---: | ---: |")
    for method, runs in results.items():
        seconds, extra = min(run["seconds"] for run in runs), max(run["extra_mib"] for run in runs)
        print(f"| {method} | {seconds:.2f} | {extra:.0f} |")
    differ = len(set.union(*visible) - set.intersection(*visible))
    print(f"tokens that differ: {differ} of {args.num_tokens}; {platform.processor()}, torch {torch.__version__}")
    if args.output:
        args.output.write_text(json.dumps({"tokens_that_differ": differ, **results}, indent=1))


if __name__ == "__main__":
    main()
