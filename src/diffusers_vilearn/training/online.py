# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Latents made while training: every epoch another cloud of the same shape, another look of the same image."""

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch.utils.data import Dataset

from ..data.latents import LatentEncoder, ViewPreparation, preprocess_images
from .samples import SampleOptions, SampleRandomness, row_name

# Strength of the image augmentation: factors of brightness, contrast and saturation lie within 1 -+ this.
JITTER = 0.3


def jitter_colours(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Other brightness, contrast and saturation, as another light and another camera would give; where the object is
    stays, and its alpha: shape and image still agree."""
    alpha = image.getchannel("A")
    colours = image.convert("RGB")
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        colours = enhance(colours).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
    colours.putalpha(alpha)
    return colours


class OnlineSamples(Dataset):
    """What a frozen VAE and a frozen image encoder make training samples of; indexed by `(epoch, index)`.

    Args:
        views, shapes (`datasets.Dataset`): tables `views` and `shapes`.
        prepare_view (`ViewPreparation`): of the VAE.
        image_processor: of the image encoder, at the image size of the stage.
        num_tokens, channels (`int`): of the latents.
        options (`SampleOptions`): of the randomness.
        mirror (`bool`): reflect half of the samples left to right.
        augment (`bool`): jitter the colours of the images.
    """

    def __init__(
        self,
        views,
        shapes,
        prepare_view: ViewPreparation,
        image_processor,
        num_tokens: int,
        channels: int,
        options: SampleOptions,
        *,
        mirror: bool,
        augment: bool,
    ):
        if mirror and prepare_view.frame != "view":
            raise ValueError(f"Mirroring needs a VAE of the view frame, but this one's is {prepare_view.frame!r}.")
        self.views = views
        self.names = views.select_columns(["uid", "view"])
        self.row_of = {uid: row for row, uid in enumerate(shapes["uid"])}
        self.shapes = shapes.with_format("numpy", ["surface", "sharp_edges"])
        self.prepare_view, self.image_processor = prepare_view, image_processor
        self.num_tokens, self.channels, self.options = num_tokens, channels, options
        self.mirror, self.augment = mirror, augment

    def __len__(self):
        return len(self.views)

    def uid_of(self, index: int) -> str:
        return row_name(self.names[index])

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        view = self.views[index]
        shape = self.shapes[self.row_of[view["uid"]]]
        randomness = SampleRandomness(self.options, view, epoch)
        drawn = randomness.draw(self.num_tokens, self.channels)
        rng = randomness.rng
        mirrored = bool(rng.random() < 0.5) and self.mirror
        inputs = self.prepare_view(view, shape["surface"], shape["sharp_edges"], rng, mirrored)
        image = jitter_colours(view["image"], rng) if self.augment else view["image"]
        image = ImageOps.mirror(image) if mirrored else image
        return {
            "uid": row_name(view),
            **{name: torch.from_numpy(inputs[name]) for name in ("points", "sharp_points") if name in inputs},
            "visible_points": inputs["visible_points"],
            "pixel_values": preprocess_images(self.image_processor, [image])[0],
            **drawn,
        }


class OnlineEncoder:
    """A batch of `OnlineSamples` -> one like those of `LatentSamples`, by the models of a `LatentEncoder`."""

    def __init__(self, encoder: LatentEncoder):
        self.encoder = encoder

    @torch.no_grad()
    def __call__(self, batch: dict, num_tokens: int) -> dict:
        """
        Args:
            batch (`dict`): on the device of the models.
            num_tokens (`int`): tokens a shape.
        """
        # In full precision, as a table is made: the votes for visible tokens are sensitive.
        with torch.autocast(batch["points"].device.type, enabled=False):
            posterior, visible, _ = self.encoder.encode_clouds(
                batch["points"], batch.get("sharp_points"), batch["visible_points"], num_tokens
            )
        image_embeds = self.encoder.encode_pixels(batch["pixel_values"])
        return {
            "uids": batch["uids"],
            "latents": posterior.mean + posterior.std * batch["posterior_noise"],
            "noise": batch["noise"],
            "density": batch["density"],
            "visible_mask": torch.where(batch["keeps_mask"][:, None], visible, batch["drawn_mask"]),
            "image_embeds": image_embeds * batch["keeps_condition"][:, None, None],
        }
