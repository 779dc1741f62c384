# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Sampled shapes of views whose truth is known, and how good they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from diffusers import FlowMatchEulerDiscreteScheduler
from grid import Settings

from diffusers_vilearn import VecSetVAE, ViLearnImageTo3DPipeline, ViLearnTransformer3DModel
from diffusers_vilearn.data.evaluation_views import EvaluationView, EvaluationViews
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.data.records import uid_key
from diffusers_vilearn.metrics.detail import detail_behind
from diffusers_vilearn.metrics.reconstruction import decoded_field, extract_and_score
from diffusers_vilearn.training.tables import split_by_object


@dataclass
class Truth:
    """What a sampled shape is measured against, and sampled from.

    Args:
        view (`EvaluationView`): image and shape, in the frame of the model.
        image_embeds (`torch.Tensor`): (patches, channels).
    """

    view: EvaluationView
    image_embeds: torch.Tensor

    @property
    def noise_seed(self) -> int:
        """Of the noise that its samples start from, the same in all runs and at all steps."""
        return uid_key(f"{self.view.uid}/{self.view.view}") % 2**63


class Truths(Sequence):
    """Views spread evenly over a split: `heldout`; `validation`, the objects of the training split that no run trains
    on; or `train`, those that all runs do.

    Args:
        settings (`Settings`): of the runs.
        vae_config: `frame` and `bounds` of the model.
        split (`str`): see above.
        num_objects (`int`, *optional*): that views are taken from; all by default.
        views_per_object (`int`): the first ones of each.
        count (`int`, *optional*): how many of these views; all by default.

    Attributes:
        keys (`list`): (uid, view) of each.

    Raises:
        ValueError: there are fewer objects or views.
    """

    def __init__(
        self,
        settings: Settings,
        vae_config,
        split: str,
        *,
        num_objects: int | None = None,
        views_per_object: int = 1,
        count: int | None = None,
    ):
        stored = "heldout" if split == "heldout" else "train"
        self.frame = vae_config.frame
        self.views = EvaluationViews(
            settings.dataset_name,
            stored,
            frame=vae_config.frame,
            bounds=vae_config.bounds,
            views_per_object=views_per_object,
        )
        latents = load_table(settings.dataset_name, settings.latents.table, stored)
        names = zip(latents["uid"], latents["view"], latents["mirrored"])
        self.row_of = {(uid, view): row for row, (uid, view, mirrored) in enumerate(names) if not mirrored}
        self.embeds = latents.with_format("torch", ["image_embeds"])
        uids = np.array([uid for uid, _ in self.views.keys])
        objects = list(dict.fromkeys(uids))
        if stored == "train":
            fraction = settings.train.get("validation_fraction", 0.03)
            validation = set(split_by_object(latents.select_columns(["uid"]), fraction)[1]["uid"])
            objects = [uid for uid in objects if (uid in validation) == (split == "validation")]
        objects = _spread(objects, num_objects, f"objects of the {split} split")
        rows = np.flatnonzero(np.isin(uids, objects)).tolist()
        self.rows = _spread(rows, count, f"views of the {split} split")
        self.keys = [self.views.keys[row] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Truth:
        view = self.views[self.rows[index]]
        return Truth(view=view, image_embeds=self.embeds[self.row_of[view.key]]["image_embeds"].float())


def _spread(items: list, count: int | None, what: str) -> list:
    if count is None:
        return items
    if count > len(items):
        raise ValueError(f"The grid asks for {count} {what}, but there are {len(items)}.")
    return [items[index] for index in np.linspace(0, len(items) - 1, count).round().astype(int)]


class Sampler:
    """Samples latents of views with one transformer.

    Args:
        settings (`Settings`): of the run.
        vae (`VecSetVAE`): on the device.
        transformer (`ViLearnTransformer3DModel`): on the device.
        num_tokens (`int`): shape tokens.
    """

    def __init__(self, settings: Settings, vae: VecSetVAE, transformer: ViLearnTransformer3DModel, num_tokens: int):
        self.settings, self.num_tokens = settings, num_tokens
        self.pipeline = ViLearnImageTo3DPipeline(
            vae=vae,
            transformer=transformer.eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(
                shift=settings.train.get("timestep_shift", 1.0),
                stochastic_sampling=settings.train.get("stochastic_sampling", False),
            ),
            image_encoder=None,
            feature_extractor=None,
        )
        self.pipeline.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def sample(self, truths: list[Truth], guidance_scale: float, visible_fraction: float | None) -> torch.Tensor:
        """Normalised latents (views, tokens, channels); without a `visible_fraction`, that of the training data."""
        return self.pipeline(
            image_embeds=torch.stack([truth.image_embeds for truth in truths]),
            generator=[torch.Generator().manual_seed(truth.noise_seed) for truth in truths],
            num_tokens=self.num_tokens,
            num_inference_steps=self.settings.scoring.num_inference_steps,
            guidance_scale=guidance_scale,
            visible_fraction=visible_fraction,
            output_type="latent",
        ).meshes


@torch.no_grad()
def decode_and_score(
    vae: VecSetVAE, latents: torch.Tensor, truth: Truth, resolution: int
) -> tuple[trimesh.Trimesh | None, dict[str, float]]:
    """The mesh of one sampled shape (1, tokens, channels), `None` without a surface, and its scores."""
    mesh, scores = extract_and_score(decoded_field(vae, latents), truth.view, vae.config, resolution)
    return mesh, scores | detail_behind(mesh, truth.view.towards_camera)
