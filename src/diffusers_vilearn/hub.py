# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Cards of checkpoints and datasets, and the way of a dataset to the Hub."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.dataset as pads
from huggingface_hub import DatasetCard, DatasetCardData, HfApi, ModelCard, ModelCardData

DATASET_TEMPLATE = Path(__file__).parent / "data" / "dataset_card.md"
# Hidden files are unfinished ones.
_HIDDEN = ["**/.*", ".*/**"]


def write_model_card(folder: str | Path, template: str | Path, **facts) -> Path:
    """Render a card template into `README.md` of a checkpoint folder.

    Args:
        folder (`str` or `Path`): the checkpoint.
        template (`str` or `Path`): a Jinja template, such as `model_cards/tiny.md`.
        facts: what the template asks for.
    """
    data = ModelCardData(
        license="apache-2.0",
        library_name="diffusers",
        pipeline_tag="image-to-3d",
        tags=["diffusers-vilearn", "vilearn", "image-to-3d", "mesh"],
    )
    path = Path(folder) / "README.md"
    ModelCard.from_template(data, template_path=str(template), **facts).save(path)
    return path


def write_dataset_card(folder: str | Path) -> Path:
    """Write `README.md` of a prepared dataset: its tables and splits, counts, licences, rejects and options.

    Args:
        folder (`str` or `Path`): written by `prepare shapes`.
    """
    folder = Path(folder)
    tables = {path.name: _splits_of(path) for path in sorted(folder.iterdir()) if any(path.glob("*.parquet"))}
    if "shapes" not in tables:
        raise ValueError(f"{folder} has no table `shapes`; `prepare shapes` writes it.")
    shapes = pads.dataset(folder / "shapes").to_table(["source", "licence", "creator"]).to_pylist()
    creators = defaultdict(set)
    for row in shapes:
        creators[row["licence"]].add(row["creator"])
    data = DatasetCardData(
        license=sorted(licence.lower() for licence in creators),
        task_categories=["image-to-3d"],
        tags=["diffusers-vilearn", "3d", "mesh"],
        configs=[
            {
                "config_name": table,
                "data_files": [{"split": split, "path": f"{table}/{split}-*.parquet"} for split in splits],
            }
            for table, splits in tables.items()
        ],
    )
    rejects = pads.dataset(folder / "rejects").to_table(["source", "reason"]).to_pylist()
    latents = {table: folder / table / "metadata.json" for table in tables}
    path = folder / "README.md"
    DatasetCard.from_template(
        data,
        template_path=str(DATASET_TEMPLATE),
        rows=tables,
        sources=dict(sorted(Counter(row["source"] for row in shapes).items())),
        creators={licence: sorted(names) for licence, names in sorted(creators.items())},
        rejects=sorted(Counter((row["source"], row["reason"]) for row in rejects).items()),
        options=json.loads((folder / "preparation.json").read_text())["options"],
        latents={table: json.loads(file.read_text()) for table, file in latents.items() if file.exists()},
    ).save(path)
    return path


def _splits_of(table: Path) -> dict[str, int]:
    """Split -> number of rows of one table."""
    splits = sorted({file.name.split("-")[0] for file in table.glob("*.parquet")})
    return {split: pads.dataset(sorted(map(str, table.glob(f"{split}-*.parquet")))).count_rows() for split in splits}


def push_dataset(folder: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Upload a prepared dataset with its card; run it again to resume. Returns the address.

    Args:
        folder (`str` or `Path`): of the dataset.
        repo_id (`str`): `user/name`; made if it is not there.
        private (`bool`): of a repository that is made.
    """
    api = HfApi()
    url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    api.upload_large_folder(repo_id, folder, repo_type="dataset", ignore_patterns=_HIDDEN)
    return str(url)
