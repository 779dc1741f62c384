# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Where the samples of a stage come from: tables of latents, or shapes and views that are encoded while training."""

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from ..data.latents import LatentEncoder
from ..data.loading import load_table
from ..data.streaming import StreamedTable
from .components import FrozenModels
from .online import OnlineEncoder, OnlineSamples
from .samples import LatentSamples, SampleOptions, without_chance
from .schedule import Schedule, Stage, parse_schedule
from .stream import ReadableSamples, collate
from .tables import check_complete, check_metadata, read_metadata, split_by_object

# Views from which the visible fraction is estimated where not all rows are at hand.
NUM_ESTIMATED = 64


@dataclass
class StageSamples:
    """Samples to train on, and those of objects that are never trained on (`None` without validation)."""

    train: Dataset
    validation: Dataset | None


class CachedLatents:
    """Samples out of latents tables, which are checked before anything is trained.

    Args:
        args: of `train_vilearn.py`.
        models (`FrozenModels`): that the tables must have been made by.

    Attributes:
        schedule (`Schedule`): of the run.
        frame (`str`), visible_fraction (`float`): of the latents, for the transformer's configuration.
    """

    def __init__(self, args: argparse.Namespace, models: FrozenModels):
        self.args = args
        self.schedule = self._plan(models)
        for stage in self.schedule.stages:
            metadata = read_metadata(args.dataset_name, stage.table, args.cache_dir)
            check_complete(args.dataset_name, stage.table, "train")
            check_metadata(
                metadata,
                f"{args.dataset_name}/{stage.table}",
                vae=models.vae,
                image_encoder=models.image_encoder,
                num_tokens=stage.num_tokens,
                image_size=stage.image_size,
            )
        self.frame = metadata["frame"]
        open_rows = self._stream if args.streaming else self._load
        self.rows = {table: open_rows(table) for table in dict.fromkeys(stage.table for stage in self.schedule.stages)}
        self._check_rows()
        shares = self._visible_shares(self.rows[self.schedule.last.table][0])
        self.visible_fraction = float(np.mean(shares))
        self.num_rows = len(self.rows[self.schedule.stages[0].table][0])

    def _plan(self, models: FrozenModels) -> Schedule:
        args = self.args
        if args.stages is not None:
            return plan_stages(args, models)
        num_tokens = args.num_tokens or read_metadata(args.dataset_name, args.latents, args.cache_dir)["num_tokens"]
        return plan_one_stage(args, models, num_tokens)

    def _load(self, table: str) -> tuple:
        rows = load_table(self.args.dataset_name, table, "train", self.args.cache_dir)
        return split_by_object(rows, self.args.validation_fraction)

    def _stream(self, table: str) -> tuple:
        if self.args.validation_fraction:
            raise ValueError(
                "`--streaming` reads no row twice, so it cannot keep objects for validation; pass"
                " `--validation_fraction 0` and give `--validation_split` another split than train."
            )
        return StreamedTable.open(self.args.dataset_name, table, "train"), None

    def _check_rows(self) -> None:
        """Positions in the stream go on from table to table, so all must hold the same views in the same order."""
        (first, (rows, _)), *others = self.rows.items()
        for table, (other, _) in others:
            if self.args.streaming:
                same = np.array_equal(rows.row_groups, other.row_groups)
            else:
                same = all(rows[name][:] == other[name][:] for name in ("uid", "view", "mirrored"))
            if not same:
                raise ValueError(
                    f"The latents tables {first} and {table} do not hold the same views; a schedule needs tables that"
                    " were encoded from one dataset, all with or without `--mirror`."
                )

    def _visible_shares(self, rows) -> np.ndarray:
        if not self.args.streaming:
            return np.array(rows["visible_share"])
        column = rows.select_columns(["visible_share"])
        picked = np.linspace(0, len(column) - 1, min(NUM_ESTIMATED, len(column))).astype(int)
        return np.array([column[int(index)]["visible_share"] for index in picked])

    def samples(self, stage: Stage, visible_fraction: float) -> StageSamples:
        """Those of one stage; `visible_fraction` is what the transformer has tokens declared visible by."""
        options = sample_options(self.args, visible_fraction)
        train, validation = self.rows[stage.table]
        return StageSamples(
            train=LatentSamples(train, stage.num_tokens, options),
            validation=LatentSamples(validation, stage.num_tokens, without_chance(options)) if validation else None,
        )

    def encode(self, batch: dict, stage: Stage) -> dict:
        """The batch as it is."""
        return batch


class OnlineLatents:
    """Samples encoded on the fly from the tables `shapes` and `views`; arguments and attributes as `CachedLatents`."""

    def __init__(self, args: argparse.Namespace, models: FrozenModels):
        self.args, self.models = args, models
        if args.stages is not None:
            self.schedule = plan_stages(args, models)
        else:
            self.schedule = plan_one_stage(args, models, args.num_tokens or models.vae.config.num_tokens)
        self.frame = models.vae.config.frame
        self.encoder = LatentEncoder(
            models.vae,
            models.image_encoder,
            models.image_processor(self.schedule.stages[0].image_size),
            min_votes=args.min_votes,
            num_points=args.num_points,
        )
        self.shapes = load_table(args.dataset_name, "shapes", "train", args.cache_dir)
        views = load_table(args.dataset_name, "views", "train", args.cache_dir)
        self.views = split_by_object(views, args.validation_fraction)
        self.num_rows = len(self.views[0])
        self.encode_online = OnlineEncoder(self.encoder)
        self.visible_fraction = self._estimate_visible_fraction()

    def _estimate_visible_fraction(self) -> float:
        stage = self.schedule.last
        options = without_chance(sample_options(self.args, 1 / 3))
        samples = ReadableSamples(self._make(self.views[0], stage, options, vary=False))
        shares = []
        for index in np.linspace(0, len(samples) - 1, min(NUM_ESTIMATED, len(samples))).astype(int):
            batch = collate([samples[0, int(index)]])
            if batch["uids"]:
                _, visible, _ = self.encoder.encode_clouds(
                    batch["points"], batch.get("sharp_points"), batch["visible_points"], stage.num_tokens
                )
                shares.append(visible.float().mean().item())
        return float(np.mean(shares))

    def _make(self, views, stage: Stage, options: SampleOptions, vary: bool) -> OnlineSamples:
        return OnlineSamples(
            views,
            self.shapes,
            self.encoder.prepare_view,
            self.models.image_processor(stage.image_size),
            stage.num_tokens,
            self.models.vae.config.latent_channels,
            options,
            mirror=vary and self.args.mirror,
            augment=vary and self.args.image_augmentation,
        )

    def samples(self, stage: Stage, visible_fraction: float) -> StageSamples:
        """Those of one stage; `visible_fraction` is what the transformer has tokens declared visible by."""
        options = sample_options(self.args, visible_fraction)
        train, validation = self.views
        return StageSamples(
            train=self._make(train, stage, options, vary=True),
            validation=self._make(validation, stage, without_chance(options), vary=False) if validation else None,
        )

    def encode(self, batch: dict, stage: Stage) -> dict:
        """Latents, visible tokens and image tokens of a batch."""
        return self.encode_online(batch, stage.num_tokens)


def plan_stages(args: argparse.Namespace, models: FrozenModels) -> Schedule:
    """The schedule of `stages`."""
    return parse_schedule(
        args.stages,
        table=args.latents,
        image_size=args.resolution or models.image_size,
        batch_size=args.train_batch_size,
        timestep_shift=args.timestep_shift,
    )


def plan_one_stage(args: argparse.Namespace, models: FrozenModels, num_tokens: int) -> Schedule:
    """A schedule of one stage, whose end is not known yet."""
    stage = Stage(
        start=0,
        stop=sys.maxsize,
        num_tokens=num_tokens,
        image_size=args.resolution or models.image_size,
        batch_size=args.train_batch_size,
        table=args.latents,
        shift=args.timestep_shift,
    )
    return Schedule([stage])


def sample_options(args: argparse.Namespace, visible_fraction: float) -> SampleOptions:
    """What the arguments say about drawing samples."""
    return SampleOptions(
        condition_dropout=args.condition_dropout,
        mask_dropout=args.mask_dropout,
        visible_fraction=visible_fraction,
        weighting_scheme=args.weighting_scheme,
        logit_mean=args.logit_mean,
        logit_std=args.logit_std,
        mode_scale=args.mode_scale,
        seed=args.seed,
    )
