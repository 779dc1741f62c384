# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of a latents table -> training samples of the transformer, noise and all."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling
from torch.utils.data import Dataset

from ..data.records import uid_key
from ..visibility import inference_visible_mask

WEIGHTING_SCHEMES = ("logit_normal", "mode", "sigma_sqrt", "cosmap", "none")


@dataclass(frozen=True)
class SampleOptions:
    """How samples are drawn.

    Args:
        condition_dropout (`float`): probability that the image tokens are zeroed (classifier-free guidance).
        mask_dropout (`float`): probability that the visible tokens are those of a fixed split, as at inference.
        visible_fraction (`float`): of that split.
        weighting_scheme (`str`): of `compute_density_for_timestep_sampling`.
        logit_mean, logit_std, mode_scale (`float`): of the density of timesteps.
        seed (`int`): of all randomness.
    """

    condition_dropout: float = 0.1
    mask_dropout: float = 0.0
    visible_fraction: float = 1 / 3
    weighting_scheme: str = "logit_normal"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    mode_scale: float = 1.29
    seed: int = 0


def without_chance(options: SampleOptions) -> SampleOptions:
    """The options of validation: nothing dropped, and the same noise in every run."""
    return replace(options, condition_dropout=0.0, mask_dropout=0.0, seed=0)


def sample_key(row: dict) -> int:
    """64 bits that name what a row shows: uid, view, and whether it is mirrored."""
    return uid_key(f"{row['uid']}/{int(row['view'])}/{int(row.get('mirrored', False))}")


class SampleRandomness:
    """All random numbers of one sample in one epoch, a pure function of the seed, the row's key and the epoch.

    They are drawn in a fixed order and all of them always, so that runs which differ in the model, in a probability or
    in where the latents come from, see the same noise, timesteps and dropped conditions.
    """

    def __init__(self, options: SampleOptions, row: dict, epoch: int):
        self.options = options
        self.rng = np.random.default_rng((options.seed, epoch, sample_key(row)))

    def draw(self, num_tokens: int, channels: int) -> dict[str, torch.Tensor]:
        """Noise of the posterior and of the flow, (tokens, channels); `density` of the timestep in [0, 1];
        `keeps_condition`, bool; `keeps_mask`, bool; and the split that replaces the mask, `drawn_mask` (tokens,)."""
        options, rng = self.options, self.rng
        posterior_noise = rng.standard_normal((num_tokens, channels), np.float32)
        noise = rng.standard_normal((num_tokens, channels), np.float32)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        density = compute_density_for_timestep_sampling(
            options.weighting_scheme,
            batch_size=1,
            logit_mean=options.logit_mean,
            logit_std=options.logit_std,
            mode_scale=options.mode_scale,
            generator=generator,
        )[0]
        keeps_condition = bool(rng.random() >= options.condition_dropout)
        keeps_mask = bool(rng.random() >= options.mask_dropout)
        # Noise tokens are exchangeable, stored tokens are not (they come in the order of farthest points): the split
        # of inference falls on them in a random order.
        order = torch.from_numpy(rng.permutation(num_tokens))
        return {
            "posterior_noise": torch.from_numpy(posterior_noise),
            "noise": torch.from_numpy(noise),
            "density": density,
            "keeps_condition": torch.tensor(keeps_condition),
            "keeps_mask": torch.tensor(keeps_mask),
            "drawn_mask": inference_visible_mask(num_tokens, options.visible_fraction)[order],
        }


class LatentSamples(Dataset):
    """Training samples out of a latents table; indexed by `(epoch, index)`, the same for the same seed and key.

    Args:
        latents (`datasets.Dataset` or `StreamedTable`): rows of `latent_features`.
        num_tokens (`int`): that every row has.
        options (`SampleOptions`): of the randomness.
    """

    def __init__(self, latents, num_tokens: int, options: SampleOptions):
        columns = ["uid", "view", "mirrored", "moments", "visible_tokens", "image_embeds"]
        self.names = latents.select_columns(["uid", "view", "mirrored"])
        self.latents = latents.with_format("numpy", columns)
        self.row_groups = getattr(latents, "row_groups", None)
        self.num_tokens = num_tokens
        self.options = options

    def __len__(self):
        return len(self.latents)

    def uid_of(self, index: int) -> str:
        return row_name(self.names[index])

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        row = self.latents[index]
        mean, logvar = np.split(row["moments"].astype(np.float32), 2, axis=-1)
        if len(mean) != self.num_tokens:
            raise ValueError(f"the row has {len(mean)} tokens, but the table should have {self.num_tokens}")
        drawn = SampleRandomness(self.options, row, epoch).draw(*mean.shape)
        visible_tokens = torch.from_numpy(row["visible_tokens"].astype(np.int64))
        if len(visible_tokens) and not 0 <= visible_tokens.min() <= visible_tokens.max() < self.num_tokens:
            raise ValueError(f"the row's visible tokens are not all below {self.num_tokens}")
        visible = torch.zeros(self.num_tokens, dtype=torch.bool)
        visible[visible_tokens] = True
        latents = torch.from_numpy(mean) + torch.from_numpy(np.exp(logvar / 2)) * drawn["posterior_noise"]
        # In half precision, as stored: most of what the workers pass on are these.
        image_embeds = torch.from_numpy(row["image_embeds"])
        if not (latents.isfinite().all() and image_embeds.isfinite().all()):
            raise ValueError("the row holds numbers that are not finite")
        return {
            "uid": row_name(row),
            "latents": latents,
            "noise": drawn["noise"],
            "density": drawn["density"],
            "visible_mask": torch.where(drawn["keeps_mask"], visible, drawn["drawn_mask"]),
            "image_embeds": image_embeds * drawn["keeps_condition"],
        }


def row_name(row: dict) -> str:
    """The uid of a view's row for people: `<uid>, view 3`, `mirrored` where it is."""
    return f"{row['uid']}, view {int(row['view'])}" + (", mirrored" if row.get("mirrored") else "")
