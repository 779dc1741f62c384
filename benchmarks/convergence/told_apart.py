# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""How much an encoding tells of a token where the noise is highest: the share of the variance among an object's tokens
that goes with what the encoding tells them apart by, visibility or position.

    python benchmarks/convergence/told_apart.py --dataset_name data/mine --table latents --vae runs/vae/vae

There a model that does not know which token is which can predict no more than the mean of all tokens of the object.
The share is the part of this error that the encoding takes away: from a model that knows the object, and has learned
by heart where its visible tokens, or its token at each position, lie; and from one that knows the object's mean, and
of its tokens only what the mean of other objects says. It bounds neither what the classes do at lower noise, where
tokens tell themselves apart, nor how fast a model learns.
"""

import argparse
import json
from pathlib import Path

import datasets
import numpy as np
import torch
from masks import check_vae, shuffled_tokens
from tqdm.auto import tqdm

from diffusers_vilearn import VecSetVAE
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.training.tables import read_metadata


def centred(tokens: np.ndarray) -> np.ndarray:
    """Tokens (views, tokens, channels) less the mean of each view's."""
    return tokens - tokens.mean(axis=1, keepdims=True)


def label_sums(tokens: np.ndarray, labels: np.ndarray, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums (views, labels, channels) and counts (views, labels, 1) of the tokens of each label."""
    shape = (len(tokens), num_labels)
    sums, counts = np.zeros((*shape, tokens.shape[-1]), tokens.dtype), np.zeros((*shape, 1), tokens.dtype)
    index = np.arange(len(tokens))[:, None], labels
    np.add.at(sums, index, tokens)
    np.add.at(counts, index, 1)
    return sums, counts


def share_if_known(tokens: np.ndarray, labels: np.ndarray) -> float:
    """Of the variance within a view, what is between the means of its own labels.

    Args:
        tokens (`np.ndarray`): (views, tokens, channels).
        labels (`np.ndarray`): (views, tokens) int from 0, what tells tokens apart.
    """
    tokens = centred(tokens)
    sums, counts = label_sums(tokens, labels, labels.max() + 1)
    return float((sums**2 / np.maximum(counts, 1)).sum() / (tokens**2).sum())


def share_if_unknown(
    others: np.ndarray, labels_of_others: np.ndarray, tokens: np.ndarray, labels: np.ndarray
) -> float:
    """Of the variance within a view, what the means of the labels over other objects explain; below 0 where these are
    worse than no mean at all. Arguments as of `share_if_known`."""
    tokens = centred(tokens)
    num_labels = 1 + max(labels.max(), labels_of_others.max())
    sums, counts = label_sums(centred(others), labels_of_others, num_labels)
    means = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    return float(1 - ((tokens - means[labels]) ** 2).sum() / (tokens**2).sum())


def places_visible_first(visible: np.ndarray) -> np.ndarray:
    """(views, tokens): positions of sequence RoPE over grouped tokens."""
    order = np.argsort(~visible, axis=1, kind="stable")
    return np.argsort(order, axis=1)


def load_tokens(dataset: str, table: str, split: str, vae: VecSetVAE) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Normalised posterior means (views, tokens, channels), and for each encoding the labels (views, tokens)."""
    columns = ["uid", "view", "mirrored", "moments", "visible_tokens"]
    rows = load_table(dataset, table, split).with_format("numpy", columns)
    means, visible, drawn = [], [], []
    for row in tqdm(rows, desc=split):
        means.append(np.split(row["moments"].astype(np.float32), 2, axis=-1)[0])
        index = np.arange(len(means[-1]))
        visible.append(np.isin(index, row["visible_tokens"]))
        drawn.append(np.isin(index, shuffled_tokens(row, len(index))))
    visible, drawn = np.stack(visible), np.stack(drawn)
    return vae.normalize_latents(torch.from_numpy(np.stack(means))).numpy(), {
        "visible or not": visible.astype(int),
        "a random set of the same size": drawn.astype(int),
        "position, visible tokens first": places_visible_first(visible),
        "position, in the order of farthest points": np.broadcast_to(np.arange(visible.shape[1]), visible.shape),
    }


def measure(dataset: str, table: str, vae: VecSetVAE) -> dict[str, dict[str, float]]:
    """By encoding: `known`, `unknown`, the shares on held-out objects.

    Raises:
        ValueError: the table was made by another VAE.
    """
    check_vae(vae, read_metadata(dataset, table), f"{table} of {dataset}")
    others, labels_of_others = load_tokens(dataset, table, "train", vae)
    tokens, labels = load_tokens(dataset, table, "heldout", vae)
    return {
        name: {
            "known": share_if_known(tokens, labels[name]),
            "unknown": share_if_unknown(others, labels_of_others[name], tokens, labels[name]),
        }
        for name in labels
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", required=True, help="Prepared dataset with the splits train and heldout.")
    parser.add_argument("--table", default="latents")
    parser.add_argument("--vae", required=True, help="That made the table.")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    found = measure(args.dataset_name, args.table, VecSetVAE.from_pretrained(args.vae))
    print("| what a token is told | share if the object is known | if not |\n| --- | ---: | ---: |")
    for name, one in found.items():
        print(f"| {name} | {100 * one['known']:.1f}% | {100 * one['unknown']:.1f}% |")
    if args.output:
        args.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main()
