# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Three plain answers to "which shape is in this picture?", scored by the protocol of `training/evaluate.py`.

    python training/tiny/plain_answers.py --checkpoint checkpoints/vilearn-tiny --train_dataset data/tiny \\
        --dataset_name data/tiny-heldout --output_dir runs/eval

`mean_shape` is the mean occupancy of the training shapes, thresholded where that suits the training shapes best;
`nearest_image` is the shape of the training view whose image tokens are nearest; `regression` is a network that is
trained to answer the field directly from the image tokens.
"""

import argparse
from pathlib import Path

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from diffusers_vilearn import ViLearnImageTo3DPipeline
from diffusers_vilearn.data.evaluation_views import EvaluationViews
from diffusers_vilearn.data.field_samples import cover_cube, draw, move_field
from diffusers_vilearn.data.latents import fingerprint
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.geometry import field_grid
from diffusers_vilearn.metrics.reconstruction import THRESHOLDS, decoded_field, extract_and_score, occupancy_iou
from diffusers_vilearn.metrics.score_files import ScoreFile
from diffusers_vilearn.models import VecSetVAE


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="The pipeline whose VAE and image encoder are used.")
    parser.add_argument("--train_dataset", required=True)
    parser.add_argument("--latents", default="latents", help="Latents table of the training dataset.")
    parser.add_argument("--dataset_name", required=True, help="Prepared dataset with the held-out views.")
    parser.add_argument("--split", default="heldout")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", default=["mean_shape", "nearest_image", "regression"])
    parser.add_argument("--mean_views", type=int, default=400, help="Training views in the mean shape.")
    parser.add_argument("--regression_steps", type=int, default=4000)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def stored_field(vae: VecSetVAE, latents: torch.Tensor):
    """The field of unnormalised latents (1, tokens, channels)."""
    return decoded_field(vae, vae.normalize_latents(latents))


class GridField:
    """Trilinear interpolation of values (r, r, r) given on a grid over the cube of half-side `bounds`."""

    def __init__(self, values: torch.Tensor, bounds: float):
        self.values = values.permute(2, 1, 0)[None, None]
        self.bounds = bounds

    def __call__(self, xyz: torch.Tensor) -> torch.Tensor:
        points = (xyz / self.bounds)[None, None, None]
        return F.grid_sample(self.values, points, align_corners=True)[0, 0, 0, 0]


@torch.no_grad()
def mean_shape(pipeline, latents, args) -> GridField:
    """Mean occupancy of training shapes minus the threshold with the best mean IoU on them."""
    vae, resolution = pipeline.vae, 48
    rows = np.random.default_rng(args.seed).permutation(len(latents))[: args.mean_views]
    occupancies = []
    for row in tqdm(latents.select(rows).with_format("torch", ["moments"]), desc="mean shape"):
        field = stored_field(vae, row["moments"].float().chunk(2, dim=-1)[0][None])
        occupancies.append(field_grid(field, bounds=vae.config.bounds, resolution=resolution) > 0)
    occupancies = torch.stack(occupancies).flatten(1)
    mean = occupancies.float().mean(dim=0)
    thresholds = torch.linspace(0.02, 0.6, 30)
    ious = [occupancy_iou((mean > threshold).expand_as(occupancies), occupancies).mean() for threshold in thresholds]
    best = thresholds[int(torch.stack(ious).argmax())]
    return GridField((mean - best).view(*[resolution + 1] * 3), vae.config.bounds)


class ImageToField(nn.Module):
    """Image tokens -> learned tokens that read them (a transformer decoder) -> a `VecSetVAE` decoder -> field."""

    def __init__(self, vae_config: dict, image_channels: int, num_patches: int, width: int = 128):
        super().__init__()
        self.embed_image = nn.Linear(image_channels, width)
        self.patch_position = nn.Parameter(0.02 * torch.randn(1, num_patches, width))
        self.tokens = nn.Parameter(torch.randn(1, vae_config["num_tokens"], width))
        layer = nn.TransformerDecoderLayer(width, 2, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.reader = nn.TransformerDecoder(layer, num_layers=4)
        self.to_latents = nn.Linear(width, vae_config["latent_channels"])
        self.vae = VecSetVAE(**vae_config)

    def decode(self, image_embeds: torch.Tensor) -> torch.Tensor:
        """Image tokens (batch, patches, channels) -> unnormalised latents (batch, tokens, latent channels)."""
        memory = self.embed_image(image_embeds) + self.patch_position
        return self.to_latents(self.reader(self.tokens.expand(len(memory), -1, -1), memory))


def regression_batch(latents, shapes, row_of, rows, vae_config, rng, num_queries=1024) -> dict[str, torch.Tensor]:
    """Image tokens, query points and their true field of some training views."""
    embeds, points, fields = [], [], []
    for index in rows:
        row = latents[int(index)]
        shape = shapes[row_of[row["uid"]]]
        near = move_field(row["frame"], draw(shape["field_near"], num_queries // 2, rng))
        volume = move_field(row["frame"], draw(shape["field_volume"], num_queries // 2, rng))
        volume = cover_cube(row["frame"], shape["field_box"], volume, vae_config.bounds, rng)
        samples = torch.from_numpy(np.concatenate([near, volume]))
        embeds.append(torch.from_numpy(row["image_embeds"]))
        points.append(samples[:, :3])
        fields.append((samples[:, 3:] / vae_config.truncation).clamp(-1, 1))
    columns = {"embeds": embeds, "xyz": points, "field": fields}
    return {name: torch.stack(rows).float() for name, rows in columns.items()}


def train_regression(pipeline, latents, args, batch_size: int = 16) -> ImageToField:
    """Train `ImageToField` on the training views with the VAE's own field loss."""
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    config = pipeline.vae.config
    vae_config = {name: value for name, value in config.items() if not name.startswith("_")}
    latents = latents.with_format("numpy", ["uid", "frame", "image_embeds"])
    shapes = load_table(args.train_dataset, "shapes", "train")
    row_of = {uid: row for row, uid in enumerate(shapes["uid"])}
    shapes = shapes.with_format("numpy", ["field_near", "field_volume", "field_box"])
    num_patches, channels = latents[0]["image_embeds"].shape
    model = ImageToField(vae_config, channels, num_patches).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=args.regression_steps, pct_start=0.05)
    progress = tqdm(range(args.regression_steps), desc="regression")
    for _ in progress:
        batch = regression_batch(latents, shapes, row_of, rng.integers(len(latents), size=batch_size), config, rng)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.vae.decode(model.decode(batch["embeds"]))
            field = model.vae.query(batch["xyz"], hidden).float()
        loss = F.l1_loss(field, batch["field"]) + F.mse_loss(field, batch["field"])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


@torch.no_grad()
def nearest_images(pipeline, latents, views) -> dict[tuple[str, int], int]:
    """For each view the row whose image tokens are the most similar, by their cosine."""
    wanted = [pipeline.encode_image(views[index].image)[0].flatten() for index in range(len(views))]
    wanted = F.normalize(torch.stack(wanted), dim=1)
    best, row = torch.full((len(wanted),), -torch.inf), torch.zeros(len(wanted), dtype=torch.long)
    known = latents.with_format("torch", ["image_embeds"])
    for start in tqdm(range(0, len(known), 512), desc="nearest image"):
        block = F.normalize(known[start : start + 512]["image_embeds"].float().flatten(1), dim=1)
        similarity, index = (block @ wanted.T).max(dim=0)
        row = torch.where(similarity > best, start + index, row)
        best = torch.maximum(similarity, best)
    return dict(zip(views.keys, row.tolist(), strict=True))


def fields_of(method: str, pipeline, latents, views, args):
    """The function (view -> field) of a method."""
    if method == "mean_shape":
        field = mean_shape(pipeline, latents, args)
        return lambda view: field
    if method == "nearest_image":
        row_of = nearest_images(pipeline, latents, views)

        def nearest(view):
            row = latents.with_format("torch", ["moments"])[row_of[view.uid, view.view]]
            return stored_field(pipeline.vae, row["moments"].float().chunk(2, dim=-1)[0][None])

        return nearest
    model = train_regression(pipeline, latents, args)

    def regressed(view):
        return stored_field(model.vae, model.decode(pipeline.encode_image(view.image)))

    return regressed


def main(args):
    args.output_dir.mkdir(parents=True, exist_ok=True)
    pipeline = ViLearnImageTo3DPipeline.from_pretrained(args.checkpoint)
    config = pipeline.vae.config
    latents = load_table(args.train_dataset, args.latents, "train")
    views = EvaluationViews(args.dataset_name, args.split, frame=config.frame, bounds=config.bounds)
    left_out = ("checkpoint", "output_dir", "methods")
    settings = {name: value for name, value in vars(args).items() if name not in left_out}
    settings["f_score_thresholds"] = list(THRESHOLDS)
    settings |= {"dataset": views.digest, "frame": views.frame, "bounds": views.bounds}
    settings |= {name: fingerprint(getattr(pipeline, name)) for name in ("vae", "image_encoder")}
    for method in args.methods:
        file = ScoreFile(args.output_dir, method)
        file.check_settings(settings)
        done = file.read()
        if len(done) == len(views):
            continue
        field_of = fields_of(method, pipeline, latents, views, args)
        for index in tqdm(range(len(views)), desc=method):
            if views.keys[index] in done:
                continue
            view = views[index]
            with torch.no_grad():
                _, scores = extract_and_score(field_of(view), view, config, args.resolution)
            file.append(view.uid, view.view, scores)


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(parse_args())
