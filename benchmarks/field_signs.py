# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""How often two independent methods disagree on inside and outside: pseudonormals, which the datasets use, and winding
numbers, on the watertight meshes of a list of objects.

    python benchmarks/field_signs.py --objects objects.jsonl --output field_signs.json

Points are those that a dataset would hold, near the surface and in the volume; those closer than 1e-3 do not count. Of
the meshes, those count that `solid_surface` returns as they are: watertight single solids that do not cross
themselves.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from diffusers_vilearn.data.preparation import PreparationOptions, object_rng, sample_shape
from diffusers_vilearn.data.records import ObjectRecords
from diffusers_vilearn.geometry import (
    MeshError,
    load_mesh,
    merge_geometry,
    normalize_mesh,
    solid_surface,
    validate_mesh,
    winding_number,
)
from diffusers_vilearn.geometry.field import face_components


def compare(record: dict, root: Path, options: PreparationOptions) -> dict | None:
    """Points that count and disagreements of one object; None if its mesh is not a watertight solid of its own."""
    try:
        mesh = load_mesh(root / record["path"], member=record.get("member"))
        validate_mesh(mesh)
    except MeshError:
        return None
    merged = merge_geometry(normalize_mesh(mesh)[0])
    if not merged.is_watertight or face_components(merged).max() > 0:
        return None
    solid = solid_surface(merged, options.solid_resolution)
    if len(solid.faces) != len(merged.faces):
        return None
    shape = sample_shape(solid, object_rng(record["uid"], "shape"), options)
    samples = np.concatenate([shape["field_near"], shape["field_volume"]]).astype(np.float64)
    samples = samples[np.abs(samples[:, 3]) > 1e-3]
    winding = winding_number(solid, samples[:, :3])
    return {
        "uid": record["uid"],
        "points": len(samples),
        "disagree": int(((samples[:, 3] > 0) != (winding > 0.5)).sum()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--sources", nargs="*")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    records = ObjectRecords(args.objects, args.sources)
    root, options = args.root or args.objects.parent, PreparationOptions()
    rows = [row for record in tqdm(records) if (row := compare(record, root, options)) is not None]
    points, disagree = (sum(row[key] for row in rows) for key in ("points", "disagree"))
    print(f"{len(rows)} meshes: {disagree} of {points} points disagree ({disagree / max(points, 1):.4%})")
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
