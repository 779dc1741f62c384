# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What extracting a mesh costs: points asked of the field, seconds and memory, beside marching cubes on the full grid.

    python benchmarks/extraction.py --output extraction.json

The scene is a torus and a box as a truncated signed distance in a box of half-side 1.01; a plate and a rod two cells
of a 256 grid thick stand for thin parts. "sparse, no t" is the search that is not told the truncation. Each
measurement runs in a process of its own; "extra MiB" is what it adds to Python with torch and libigl loaded.
"""

import argparse
import json
import multiprocessing
import platform
import time
from pathlib import Path

import igl
import numpy as np
import torch
import trimesh
from resident_memory import resident_peak

from diffusers_vilearn.geometry import extract_mesh, field_grid

BOUNDS = 1.01
TRUNCATION = 0.015
HALF_THICKNESS = 2 / 256


def box(points, half_sides, centre):
    outside = (points - torch.tensor(centre)).abs() - torch.tensor(half_sides)
    return -(outside.clamp(min=0).norm(dim=1) + outside.amax(1).clamp(max=0))


def torus_and_box(points):
    ring = torch.hypot(points[:, 0], points[:, 2]) - 0.55
    torus = 0.2 - torch.hypot(ring, points[:, 1] + 0.35)
    return torch.maximum(torus, box(points, (0.3, 0.35, 0.2), (0.1, 0.45, 0.05)))


def plate_and_rod(points):
    plate = box(points, (0.7, HALF_THICKNESS, 0.6), (0.0, -0.3, 0.0))
    return torch.maximum(plate, box(points, (0.8, HALF_THICKNESS, HALF_THICKNESS), (0.0, 0.3, 0.0)))


SCENES = {"torus and box": torus_and_box, "plate and rod": plate_and_rod}


def dense_mesh(field, resolution: int) -> trimesh.Trimesh:
    """Marching cubes on the full grid."""
    values = field_grid(field, bounds=BOUNDS, resolution=resolution).numpy()
    # libigl runs through x fastest.
    z, y, x = np.unravel_index(np.arange(values.size), values.shape)
    points = np.stack([x, y, z], -1) * (2 * BOUNDS / resolution) - BOUNDS
    vertices, faces, _ = igl.marching_cubes(
        values.transpose(2, 1, 0).ravel().astype(np.float64), points, *[resolution + 1] * 3, 0.0
    )
    return trimesh.Trimesh(vertices, faces[:, ::-1], process=False)


def measure(scene: str, method: str, resolution: int, threads: int) -> dict:
    torch.set_num_threads(threads)
    asked, field_seconds = 0, 0.0

    def field(points):
        nonlocal asked, field_seconds
        start = time.perf_counter()
        values = (SCENES[scene](points) / TRUNCATION).clamp(-1, 1)
        asked += len(points)
        field_seconds += time.perf_counter() - start
        return values

    baseline, start, start_cpu = resident_peak(), time.perf_counter(), time.process_time()
    if method == "dense":
        mesh = dense_mesh(field, resolution)
    else:
        truncation = TRUNCATION if method == "sparse" else None
        mesh = extract_mesh(field, bounds=BOUNDS, resolution=resolution, truncation=truncation)
    seconds, cpu_seconds, peak = time.perf_counter() - start, time.process_time() - start_cpu, resident_peak()
    return {
        "scene": scene,
        "method": method,
        "resolution": resolution,
        "queries": asked,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "field_seconds": round(field_seconds, 2),
        "peak_mib": round(peak / 2**20, 1),
        "extra_mib": round((peak - baseline) / 2**20, 1),
        "faces": len(mesh.faces),
        "watertight": bool(mesh.is_watertight),
        "bodies": int(mesh.body_count),
        "volume": float(mesh.volume),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[256, 384, 512])
    parser.add_argument("--dense-up-to", type=int, default=256, help="the finest full grid to march as well")
    parser.add_argument("--threads", type=int, default=1, help="threads of the field")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()

    rows = []
    line = "{:14} {:12} {:>5} {:>11} {:>8} {:>7} {:>8} {:>9} {:>10} {:>9} {:>6}  {}"
    heads = "scene|method|grid|queries|seconds|cpu s|field s|peak MiB|extra MiB|faces|bodies|watertight".split("|")
    print(line.format(*heads), flush=True)
    for scene in SCENES:
        for resolution in arguments.resolutions:
            methods = ["sparse", "sparse, no t"] + ["dense"] * (resolution <= arguments.dense_up_to)
            for method in methods:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    row = pool.apply(measure, (scene, method, resolution, arguments.threads))
                rows.append(row)
                shown = {**row, "queries": f"{row['queries']:,}", "watertight": "yes" if row["watertight"] else "NO"}
                names = (
                    "scene method resolution queries seconds cpu_seconds field_seconds peak_mib extra_mib faces bodies"
                )
                print(line.format(*(shown[name] for name in [*names.split(), "watertight"])), flush=True)
    if arguments.output:
        report = {
            "bounds": BOUNDS,
            "truncation": TRUNCATION,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": arguments.threads,
            "rows": rows,
        }
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
