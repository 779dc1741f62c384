# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Latents tables that differ from another one in which tokens are called visible, and in nothing else.

    python benchmarks/convergence/masks.py --dataset_name data/mine --table latents --masks shuffled

writes `latents-shuffled`: the same rows in the same order. May be interrupted and run again.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import torch
from arms import MASKS, masked_table

from diffusers_vilearn import VecSetVAE
from diffusers_vilearn.data.latents import ViewPreparation, anchors_in_view, fingerprint
from diffusers_vilearn.data.preparation import object_rng
from diffusers_vilearn.data.shards import load_shard, read_parquet, shard_path, write_table
from diffusers_vilearn.files import LATENTS_FILE, write_atomically


def shuffled_tokens(row: dict, num_tokens: int) -> np.ndarray:
    """As many tokens as the view's visible ones, drawn, always the same for one view."""
    rng = object_rng(row["uid"], f"shuffled/{row['view']}/{row['mirrored']}")
    return np.sort(rng.permutation(num_tokens)[: len(row["visible_tokens"])])


class OracleMasks:
    """Which tokens were queried from a surface point that the camera sees.

    Tables hold no such points, so they are found again, as when the table was made.

    Args:
        dataset (`Path`): with the tables `shapes` and `views`.
        vae (`VecSetVAE`): that made the latents.
    """

    def __init__(self, dataset: Path, vae: VecSetVAE):
        self.dataset, self.vae = dataset, vae.eval()
        self.prepare_view = ViewPreparation(vae.config)

    def masks(self, shard: str, rows: list[dict], num_tokens: int) -> Iterator[np.ndarray]:
        """One (tokens,) bool for each row of a shard.

        Raises:
            ValueError: a point found again does not agree with its table.
        """
        columns = ["uid", "surface", "sharp_edges"]
        clouds = {row["uid"]: row for row in load_shard(self.dataset, "shapes", shard, columns).with_format("numpy")}
        columns = ["uid", "view", "azimuth", "visible_points"]
        stored = load_shard(self.dataset, "views", shard, columns).with_format("numpy")
        views = {(row["uid"], row["view"]): row for row in stored}
        for row in rows:
            mask = self._mask(views[row["uid"], row["view"]], clouds[row["uid"]], row["mirrored"], num_tokens)
            visible = np.isin(np.arange(num_tokens), row["visible_tokens"])
            if abs(float((mask == visible).mean()) - row["anchor_agreement"]) > 1e-6:
                raise ValueError(
                    f"The surface points of {row['uid']}, view {row['view']}, are not those that the table of latents"
                    " was made with: `shapes` or `views` have changed since, or it was made by another version."
                )
            yield mask

    @torch.no_grad()
    def _mask(self, view: dict, cloud: dict, mirrored: bool, num_tokens: int) -> np.ndarray:
        rng = object_rng(view["uid"], f"latents/{view['view']}")
        surface, sharp_edges = (np.asarray(cloud[name]) for name in ("surface", "sharp_edges"))
        inputs = self.prepare_view(view, surface, sharp_edges.reshape(-1, 6), rng, mirrored)
        sharp_points = torch.from_numpy(inputs["sharp_points"])[None] if "sharp_points" in inputs else None
        points = torch.from_numpy(inputs["points"])[None]
        _, anchors = self.vae.encode_with_anchors(points, sharp_points, num_tokens=num_tokens)
        return anchors_in_view(anchors[0].float().numpy(), inputs["visible_points"])


def derive_table(dataset: Path, table: str, masks: str, vae: str | None = None) -> None:
    """Write the training rows of `masked_table(table, masks)`.

    Args:
        dataset (`Path`): folder of a prepared dataset.
        table (`str`): a whole latents table.
        masks (`str`): of `MASKS`.
        vae (`str`, *optional*): folder or Hub id of the `VecSetVAE` that made it, for `oracle`.

    Raises:
        ValueError: there are rows of another table, or the VAE did not make this one.
    """
    name = masked_table(table, masks)
    metadata = json.loads((dataset / table / LATENTS_FILE).read_text())
    oracle = _start_oracle(dataset, table, vae, metadata) if masks == "oracle" else None
    check_derived(dataset, table, masks)
    for path in sorted((dataset / table).glob("train-*.parquet")):
        if shard_path(dataset, name, path.stem).exists():
            continue
        shard = read_parquet(path)
        columns = ["uid", "view", "mirrored", "visible_tokens", "anchor_agreement"]
        rows, num_tokens = shard.select(columns).to_pylist(), metadata["num_tokens"]
        if masks == "oracle":
            visible = [np.flatnonzero(mask) for mask in oracle.masks(path.stem, rows, num_tokens)]
        elif masks == "shuffled":
            visible = [shuffled_tokens(row, num_tokens) for row in rows]
        else:
            visible = [np.zeros(0, int)] * len(rows)
        # Only what the oracle says is known to agree with it.
        agreement = 1.0 if masks == "oracle" else float("nan")
        shard = _replace(shard, "visible_tokens", [tokens.tolist() for tokens in visible])
        shard = _replace(shard, "visible_share", [len(tokens) / num_tokens for tokens in visible])
        shard = _replace(shard, "anchor_agreement", [agreement] * len(rows))
        write_table(dataset, name, path.stem, shard)


def check_derived(dataset: Path, table: str, masks: str) -> None:
    """Record what `masked_table(table, masks)` is made of.

    Raises:
        ValueError: it was made of another table, or of what this one was before it was made anew.
    """
    base, derived = dataset / table, dataset / masked_table(table, masks)
    made_of = {**json.loads((base / LATENTS_FILE).read_text()), "masks": masks}
    path = derived / LATENTS_FILE
    if not path.exists():
        derived.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(made_of, indent=1).encode())
    elif json.loads(path.read_text()) != made_of or any(
        _rows(shard) != _rows(base / shard.name) for shard in derived.glob("train-*.parquet")
    ):
        raise ValueError(f"{derived} was made of another table than {base} is now; delete it.")


def _rows(shard: Path) -> list[dict] | None:
    """What tells the rows of a shard from others, in order; `None` if there is no such shard."""
    return read_parquet(shard, ["uid", "view", "mirrored"]).to_pylist() if shard.exists() else None


def check_vae(vae: VecSetVAE, metadata: dict, where: str) -> None:
    """Raise `ValueError` if the latents `where`, of a table with this `metadata`, were made by another VAE."""
    if fingerprint(vae) != metadata["vae"]:
        raise ValueError(f"The latents {where} were not made by this VAE.")


def _start_oracle(dataset: Path, table: str, vae: str | None, metadata: dict) -> OracleMasks:
    if vae is None:
        raise ValueError("Oracle masks need `vae`, the one that made the latents.")
    model = VecSetVAE.from_pretrained(vae)
    check_vae(model, metadata, f"{table} of {dataset}")
    return OracleMasks(dataset, model)


def _replace(shard: pa.Table, name: str, values: list) -> pa.Table:
    index = shard.schema.get_field_index(name)
    return shard.set_column(index, shard.schema.field(index), pa.array(values, shard.schema.field(index).type))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", type=Path, required=True, help="Folder of a prepared dataset.")
    parser.add_argument("--table", default="latents", help="Latents table to take the rows from.")
    parser.add_argument("--masks", choices=MASKS[1:], required=True)
    parser.add_argument("--vae", help="That made the table; for oracle masks.")
    return parser.parse_args()


if __name__ == "__main__":
    datasets.disable_progress_bars()
    args = parse_args()
    derive_table(args.dataset_name, args.table, args.masks, args.vae)
