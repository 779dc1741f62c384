# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Validation loss by noise level: a diagnostic. The mask that a loss is computed with is information about the shape,
which makes the loss smaller whether or not the model learned more; it says nothing of samples."""

import numpy as np
import torch

from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.training.flow_matching import flow_matching_loss
from diffusers_vilearn.training.samples import LatentSamples, SampleOptions, without_chance
from diffusers_vilearn.training.stream import whole_batches
from diffusers_vilearn.training.tables import split_by_object


class LossByNoise:
    """The loss on the validation rows of a run's own table, always at the same noise.

    Args:
        run (`Run`): whose table and settings are taken.
        num_tokens (`int`): of that table.
        device (`torch.device`): of the models.
    """

    def __init__(self, run, num_tokens: int, device: torch.device):
        settings, scoring = run.settings, run.settings.scoring
        rows = load_table(settings.dataset_name, run.table, "train")
        trained, validation = split_by_object(rows, settings.train.get("validation_fraction", 0.03))
        rows = validation if len(validation) else trained
        picked = np.linspace(0, len(rows) - 1, min(scoring.loss_rows, len(rows))).round().astype(int)
        self.samples = LatentSamples(rows.select(picked), num_tokens, without_chance(SampleOptions()))
        self.batch_size, self.device = scoring.batch_size, device
        edges = np.linspace(0, 1, scoring.noise_levels + 1)
        self.bins = list(zip(edges[:-1].tolist(), edges[1:].tolist()))

    @torch.no_grad()
    def measure(self, transformer, vae) -> list[dict[str, float]]:
        """Mean squared error of the velocity in each bin of sigma, `low` to `high`, logit-normal within it."""
        results = []
        for low, high in self.bins:
            losses = []
            for batch in whole_batches(self.samples, self.batch_size, self.device):
                batch["density"] = low + (high - low) * batch["density"]
                losses.append(flow_matching_loss(transformer, vae, batch, shift=1.0, weighting_scheme="none"))
            results.append({"low": low, "high": high, "loss": torch.cat(losses).mean().item()})
        return results
