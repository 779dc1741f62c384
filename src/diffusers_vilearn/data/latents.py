# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Shapes and views -> latents, visible tokens and image tokens."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from itertools import chain
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import ImageOps
from scipy.spatial import cKDTree
from tqdm.auto import tqdm
from transformers import AutoImageProcessor

from ..errors import named_if_absent
from ..files import LATENTS_FILE, PREPARATION_FILE, locked, remove_temporaries, what_lies_in, write_atomically
from ..models import VecSetVAE
from ..models.autoencoder_vecset import DiagonalGaussianDistribution
from ..visibility import check_min_votes, group_visible_tokens
from .clouds import sharp_cloud, surface_cloud, takes_sharp_points
from .features import latent_features
from .frames import object_to_frame, transform_points
from .image_encoders import load_image_encoder
from .images import patch_tokens, pixel_values, prepare_condition_image
from .loading import no_objects
from .preparation import object_rng
from .shapes import TABLES
from .shards import load_shard, open_shard, read_parquet, rows_by_split, shard_path

MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


def fingerprint(model: torch.nn.Module) -> str:
    """SHA-256 of a model's weights; latents are only valid for the VAE that made them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class ViewPreparation:
    """A view and its object -> what one VAE encodes: clouds and visible points in the frame of the latents.

    Args:
        vae_config: of the `VecSetVAE`; its `frame` decides the frame of the latents.
        num_points (`int`): points of each cloud given to the encoder: the surface, and for a VAE that takes them the
            sharp edges (surface points in their place where an object has none).
    """

    def __init__(self, vae_config, num_points: int = 4096):
        if num_points < 1:
            raise ValueError(f"`num_points` is {num_points}; it must be at least 1.")
        self.frame, self.sharp_flag, self.num_points = vae_config.frame, vae_config.sharp_flag, num_points
        self.takes_sharp_points = takes_sharp_points(vae_config)

    def __call__(
        self,
        view: dict,
        surface: np.ndarray,
        sharp_edges: np.ndarray,
        rng: np.random.Generator,
        mirrored: bool = False,
    ) -> dict[str, np.ndarray]:
        """
        Args:
            view (`dict`): row of `VIEW_FEATURES`.
            surface, sharp_edges (`np.ndarray`): of the object, (n, 6) and (m, 6).
            rng (`np.random.Generator`): picks the points.
            mirrored (`bool`): reflect the object left to right, as the camera sees it.

        Returns:
            `dict`: `frame` (4, 4), object frame -> frame of the latents; `points`, and `sharp_points` for a VAE that
            takes them (`num_points` at most, point channels); `visible_points` (k, 3).
        """
        similarity = object_to_frame(self.frame, surface[:, :3], view["azimuth"])
        if mirrored:
            similarity = MIRROR @ similarity
        inputs = {
            "frame": similarity,
            "points": surface_cloud(similarity, surface, self.num_points, rng, flagged=self.sharp_flag),
            "visible_points": transform_points(similarity, np.asarray(view["visible_points"], np.float32)),
        }
        if self.takes_sharp_points:
            inputs["sharp_points"] = sharp_cloud(
                similarity, sharp_edges, surface, self.num_points, rng, flagged=self.sharp_flag
            )
        return inputs


def at_image_size(image_processor, image_size: int):
    """The image processor for condition images of `image_size` pixels."""
    sizes = {"crop_size": {"height": image_size, "width": image_size}, "size": {"shortest_edge": image_size}}
    return type(image_processor)(**{**image_processor.to_dict(), **sizes})


def check_image_size(image_size: int, image_encoder) -> None:
    """Raise `ValueError` unless a condition image of `image_size` pixels has a patch of the image encoder."""
    patch_size = image_encoder.config.patch_size
    if image_size < patch_size:
        raise ValueError(
            f"`image_size` is {image_size}; it must be at least the patch size of the image encoder, {patch_size}. A"
            f" multiple of it, such as {16 * patch_size}, is seen whole."
        )


def load_vae(name: str, *, subfolder: str | None = None, **options) -> VecSetVAE:
    """The `VecSetVAE` of a folder or Hub id.

    Args:
        name (`str`): folder or Hub id.
        subfolder (`str`, *optional*): of it.
        options: `revision`, `variant`, `cache_dir`.

    Raises:
        ValueError: there is none; of a folder that holds none it names the sub-folders that do.
    """
    folder = Path(name, subfolder or "")
    if Path(name).is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"`vae` must be a VecSetVAE, but {what_lies_in(folder, ('config.json',), 'VecSetVAE')}")
    with named_if_absent("VAE", name):
        return VecSetVAE.from_pretrained(name, subfolder=subfolder, **options)


def preprocess_images(image_processor, images) -> torch.Tensor:
    """Pixel values (images, 3, size, size) of RGBA images, the object at its share of a white square."""
    size = image_processor.crop_size["height"]
    return pixel_values(image_processor, [prepare_condition_image(image, size) for image in images])


class LatentEncoder:
    """Encodes the views of a prepared dataset with one VAE and one image encoder.

    Args:
        vae (`VecSetVAE`): frozen; its `frame` decides the frame of the latents.
        image_encoder (`Dinov2Model`): frozen.
        image_processor: of the image encoder; its crop size is the size of the condition image.
        min_votes (`int` or `"balanced"`): see `group_visible_tokens`.
        num_points (`int`): see `ViewPreparation`.
        mirror (`bool`): also make a mirror image of every view; needs the view frame, where left is the image's left.
    """

    def __init__(
        self,
        vae,
        image_encoder,
        image_processor,
        min_votes="balanced",
        num_points=4096,
        mirror=False,
    ):
        if mirror and vae.config.frame != "view":
            raise ValueError(f"`mirror` needs a VAE of the view frame, but this one's is {vae.config.frame!r}.")
        check_min_votes(min_votes)
        check_image_size(image_processor.crop_size["height"], image_encoder)
        self.mirror = mirror
        self.vae = vae.eval()
        self.image_encoder = image_encoder.eval()
        self.image_processor = image_processor
        self.min_votes = min_votes
        self.prepare_view = ViewPreparation(vae.config, num_points)

    @classmethod
    def from_pretrained(
        cls, vae: str, image_encoder: str, *, device, image_size: int | None = None, **options
    ) -> "LatentEncoder":
        """Load both models from folders or Hub ids; `image_size` is the image processor's by default."""
        encoder = load_image_encoder(image_encoder)
        processor = AutoImageProcessor.from_pretrained(image_encoder)
        if image_size is not None:
            processor = at_image_size(processor, image_size)
        return cls(load_vae(vae).to(device), encoder.to(device), processor, **options)

    @property
    def features(self) -> datasets.Features:
        return latent_features(self.vae.config.latent_channels, self.image_encoder.config.hidden_size)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of both models, which are read through once for all tables."""
        return {"vae": fingerprint(self.vae), "image_encoder": fingerprint(self.image_encoder)}

    def metadata(self, num_tokens: int) -> dict:
        """What a table of latents must agree on with whoever trains on it."""
        return {
            **self.fingerprints,
            "frame": self.vae.config.frame,
            "num_tokens": num_tokens,
            "num_points": self.prepare_view.num_points,
            "min_votes": self.min_votes,
            "mirror": self.mirror,
            "image_size": self.image_processor.crop_size["height"],
        }

    def check_table(self, dataset: Path, table: str, num_tokens: int) -> None:
        """Record what a table is made with and of; refuse to go on with one made otherwise."""
        folder = dataset / table
        path = folder / LATENTS_FILE
        metadata = self.metadata(num_tokens) | {"preparation": preparation_digest(dataset)}
        # A table without a shard may be made anew in any way.
        if not path.exists() or not any(folder.glob("*.parquet")):
            write_atomically(path, json.dumps(metadata, indent=1).encode())
            return
        known = json.loads(path.read_text())
        if changed := [name for name, value in metadata.items() if known.get(name) != value]:
            raise ValueError(f"{folder} holds latents made with another {', '.join(changed)}; choose another name.")

    def encode_shard(
        self, dataset: Path, shard: str, batch_size: int, lengths: list[int]
    ) -> Iterator[dict[int, list[dict]]]:
        """Batch by batch, for each number of tokens, rows of `latent_features`: the views of one shard, each with its
        mirror image after it if `mirror` is set."""
        shapes = load_shard(dataset, "shapes", shard, ["uid", "surface", "sharp_edges"]).with_format("numpy")
        clouds = {row["uid"]: (row["surface"], row["sharp_edges"]) for row in shapes}
        views = load_shard(dataset, "views", shard)
        for start in range(0, len(views), batch_size):
            batch = list(views.select(range(start, min(start + batch_size, len(views)))))
            sides = [
                self.encode_views(batch, clouds, lengths, mirrored)
                for mirrored in ((False, True) if self.mirror else (False,))
            ]
            yield {length: list(chain(*zip(*(side[length] for side in sides)))) for length in lengths}

    @torch.no_grad()
    def encode_views(
        self,
        views: list[dict],
        clouds: dict[str, tuple[np.ndarray, np.ndarray]],
        lengths: list[int],
        mirrored: bool = False,
    ) -> dict[int, list[dict]]:
        """Latents, visible tokens and image tokens of some views, by the number of tokens.

        Args:
            views (`list[dict]`): rows of `VIEW_FEATURES`.
            clouds: uid -> surface and sharp-edge points of the object, (n, 6) and (m, 6).
            lengths (`list[int]`): numbers of tokens a shape; the image tokens are the same for all.
            mirrored (`bool`): reflect the object and its image left to right, as the camera sees it.
        """
        prepared = []
        for view in views:
            rng = object_rng(view["uid"], f"latents/{view['view']}")
            prepared.append(self.prepare_view(view, *clouds[view["uid"]], rng, mirrored))
        stacked = {
            name: torch.from_numpy(np.stack([inputs[name] for inputs in prepared]))
            for name in ("points", "sharp_points")
            if name in prepared[0]
        }
        visible = [inputs["visible_points"] for inputs in prepared]
        images = [ImageOps.mirror(view["image"]) if mirrored else view["image"] for view in views]
        image_embeds = self.encode_images(images).cpu().numpy().astype(np.float16)
        rows = {}
        for num_tokens in lengths:
            posterior, masks, anchors = self.encode_clouds(
                stacked["points"], stacked.get("sharp_points"), visible, num_tokens
            )
            moments = torch.cat([posterior.mean, posterior.logvar], dim=-1).cpu().numpy().astype(np.float16)
            masks, anchors = masks.cpu().numpy(), anchors.float().cpu().numpy()
            rows[num_tokens] = [
                {
                    "uid": view["uid"],
                    "view": view["view"],
                    "mirrored": mirrored,
                    "frame": prepared[i]["frame"].astype(np.float32),
                    "moments": moments[i],
                    "visible_tokens": np.flatnonzero(masks[i]).tolist(),
                    "visible_share": float(masks[i].mean()),
                    "anchor_agreement": float((masks[i] == anchors_in_view(anchors[i], visible[i])).mean()),
                    "image_embeds": image_embeds[i],
                }
                for i, view in enumerate(views)
            ]
        return rows

    @torch.no_grad()
    def encode_clouds(
        self,
        points: torch.Tensor,
        sharp_points: torch.Tensor | None,
        visible_points: list[np.ndarray],
        num_tokens: int,
    ) -> tuple[DiagonalGaussianDistribution, torch.Tensor, torch.Tensor]:
        """Posterior of the latents, visible tokens (batch, tokens) bool, and the tokens' surface points.

        Args:
            points (`torch.Tensor`): (batch, points, point channels).
            sharp_points (`torch.Tensor`, *optional*): likewise, for a VAE that takes them.
            visible_points (`list[np.ndarray]`): (k_i, 3) of each sample.
            num_tokens (`int`): tokens a shape.
        """
        device = self.vae.device
        moments, anchors = self.vae.encode_with_anchors(
            points.to(device),
            sharp_points.to(device) if sharp_points is not None else None,
            num_tokens=num_tokens,
        )
        posterior = DiagonalGaussianDistribution(moments)
        queries = [torch.from_numpy(cloud) for cloud in visible_points]
        return posterior, group_visible_tokens(self.vae, posterior.mode(), queries, self.min_votes), anchors

    def encode_images(self, images) -> torch.Tensor:
        """Patch tokens (images, patches, channels) of RGBA images."""
        return self.encode_pixels(preprocess_images(self.image_processor, images))

    def encode_pixels(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Patch tokens (images, patches, channels) of preprocessed images."""
        return patch_tokens(self.image_encoder, pixel_values.to(self.image_encoder.device))


def anchors_in_view(anchors: np.ndarray, visible_points: np.ndarray) -> np.ndarray:
    """Which anchors (n, 3) lie where the camera sees the surface: closer to a visible point (m, 3) than three times
    the median distance between neighbours among those, (n,) bool."""
    distinct = np.unique(visible_points, axis=0)
    tree = cKDTree(distinct)
    spacing = np.median(tree.query(distinct, k=2)[0][:, 1])
    return tree.query(anchors)[0] < 3 * spacing


def preparation_digest(dataset: Path) -> str | None:
    """SHA-256 of the options that the shapes and views of a dataset were prepared with, if it says so."""
    path = dataset / PREPARATION_FILE
    if not path.exists():
        return None
    options = json.loads(path.read_text())["options"]
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def encode_dataset(
    encoder: LatentEncoder, dataset: Path, tables: dict[str, int], *, splits: list[str], batch_size: int
) -> dict[str, int]:
    """Write the shards of latents tables that are not there yet.

    Args:
        encoder (`LatentEncoder`): makes the rows.
        dataset (`Path`): folder of the tables `shapes` and `views`.
        tables (`dict[str, int]`): name of each table -> its tokens a shape.
        splits (`list[str]`): whose shards.
        batch_size (`int`): views at a time.

    Returns:
        `dict[str, int]`: rows that each table has of these splits.

    Raises:
        ValueError: `batch_size` is below 1, a table has the name of another kind or was made otherwise or of other
            views, there is no such dataset, a split has no shapes, or another process is writing to a table.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` is {batch_size}; it must be at least 1.")
    if wrong := [table for table in tables if table in (*TABLES, "..") or Path(table).name != table]:
        raise ValueError(f"Latents cannot have the name {wrong[0]!r}; choose one that is none of {', '.join(TABLES)}.")
    shards = _shards_of(dataset, splits)
    with ExitStack() as locks:
        for table, num_tokens in tables.items():
            locks.enter_context(locked(dataset / table))
            encoder.check_table(dataset, table, num_tokens)
            remove_temporaries(dataset / table)
        for shard in tqdm(shards, desc=f"Shards of {', '.join(tables)}"):
            there = [name for name in tables if shard_path(dataset, name, shard).exists()]
            if there:
                _check_views(dataset, there, shard)
            if missing := {name: count for name, count in tables.items() if name not in there}:
                _write_latents(encoder, dataset, shard, missing, batch_size)
    rows = {table: rows_by_split(dataset / table) for table in tables}
    return {table: sum(counts[split] for split in set(splits)) for table, counts in rows.items()}


def _shards_of(dataset: Path, splits: list[str]) -> list[str]:
    """The shards of some splits, each of which has shapes."""
    if not dataset.is_dir():
        raise ValueError(f"There is no folder {dataset}; `prepare shapes` writes it.")
    rows = rows_by_split(dataset / "shapes")
    if lacking := [split for split in splits if split not in rows]:
        raise ValueError(f"{dataset} has no shapes of {', '.join(lacking)}; `prepare shapes` writes them.")
    if empty := [split for split in splits if not rows[split]]:
        raise no_objects(dataset, "shapes", empty[0])
    shards = sorted(path.stem for path in (dataset / "shapes").glob("*.parquet"))
    return [shard for shard in shards if shard.split("-")[0] in splits]


def _check_views(dataset: Path, tables: list[str], shard: str) -> None:
    """Raise `ValueError` for latents of other views than the shard has now."""
    views, *made = (shard_path(dataset, name, shard) for name in ("views", *tables))
    wanted = _view_keys(views)
    if other := [path for path in made if _view_keys(path) != wanted]:
        raise ValueError(f"{other[0]} holds latents of other views than {views}; choose another name.")


def _view_keys(path: Path) -> set[tuple[str, int]]:
    return {*zip(*read_parquet(path, ["uid", "view"]).to_pydict().values())}


def _write_latents(encoder: LatentEncoder, dataset: Path, shard: str, tables: dict[str, int], batch_size: int) -> None:
    with ExitStack() as stack:
        writers = {name: stack.enter_context(open_shard(dataset, name, shard, encoder.features)) for name in tables}
        for rows in encoder.encode_shard(dataset, shard, batch_size, sorted(set(tables.values()))):
            for table, num_tokens in tables.items():
                writers[table].write(rows[num_tokens])
