# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The way to the Hub: of models and pipelines with a full card, of checkpoint folders, of datasets."""

import json
import tempfile
from pathlib import Path

from diffusers.utils import PushToHubMixin
from huggingface_hub import HfApi

from .cards import (
    leads_inside,
    pictures_in,
    pictures_of,
    readdress_card,
    write_checkpoint_card,
    write_dataset_card,
    write_model_card,
)
from .files import saved_index

__all__ = [
    "ModelCardMixin",
    "publish_checkpoint",
    "push_dataset",
    "write_card_and_example",
    "write_checkpoint_card",
    "write_dataset_card",
    "write_model_card",
]

# Hidden files are unfinished ones.
_HIDDEN = ["**/.*", ".*"]


class ModelCardMixin(PushToHubMixin):
    """`push_to_hub` of diffusers, with a full card where the repository has none yet."""

    def _upload_folder(self, working_dir, repo_id, token=None, commit_message=None, create_pr=False, subfolder=None):
        if not subfolder and not HfApi(token=token).file_exists(repo_id, "README.md"):
            write_card_and_example(working_dir, repo_id=repo_id)
        return super()._upload_folder(
            working_dir,
            repo_id,
            token=token,
            commit_message=commit_message,
            create_pr=create_pr,
            subfolder=subfolder,
        )


def write_card_and_example(folder: str | Path, facts: dict | None = None, **options) -> None:
    """`README.md` of a saved checkpoint; for a pipeline whose `facts` name no example, also `example.png`
    where there is none: one that is drawn.

    Args:
        folder, facts, options: as for `write_checkpoint_card`.
    """
    facts, folder = dict(facts or {}), Path(folder)
    if "example" not in facts and (folder / "model_index.json").is_file():
        from .pipelines.preview import example_picture

        if not (folder / "example.png").exists():
            example_picture().save(folder / "example.png")
        facts["example"] = "example.png"
    write_checkpoint_card(folder, facts, **options)


def publish_checkpoint(
    folder: str | Path,
    repo_id: str,
    facts: dict | None = None,
    *,
    evaluation: str | Path | None = None,
    template: str | None = None,
    self_contained: bool = False,
    private: bool = False,
) -> str:
    """Upload a saved pipeline or model with its card; run it again to resume. Returns the address of the commit.

    Of a folder that a training script wrote, only what `from_pretrained` reads goes up, not checkpoints and logs. A
    `README.md` in it is taken, its code loading `repo_id`, unless `facts`, `evaluation` or `template` ask for a new
    one. The folder itself is not changed.

    Args:
        folder (`str` or `Path`): written by `save_pretrained`.
        repo_id (`str`): `user/name`; made if it is not there.
        facts, evaluation, template: of the card, see `write_checkpoint_card`.
        self_contained (`bool`): put the pipeline's code beside the weights: it then loads without this package, and
            always needs `trust_remote_code=True`.
        private (`bool`): of a repository that is made.
    """
    from .custom_code import add_custom_code

    api = HfApi()
    with tempfile.TemporaryDirectory() as scratch:
        staged = _stage(Path(folder), Path(scratch), facts or {})
        if self_contained:
            add_custom_code(staged)
        if facts or evaluation or template or not (staged / "README.md").is_file():
            write_card_and_example(staged, facts, evaluation=evaluation, template=template, repo_id=repo_id)
        else:
            *_, parent, name = Path(folder).resolve().parts
            # The VAE of a run lies in `vae` in its folder, and has the run's name.
            readdress_card(staged, (f"{parent}/{name}", name, parent), repo_id, has_code=self_contained)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=staged, commit_message="Upload checkpoint"))


def _stage(folder: Path, scratch: Path, facts: dict) -> Path:
    """Links to what belongs to a checkpoint: files beside its index or configuration, components, the pictures of its
    card and of `facts`.

    Logs, which are JSON lines, and hidden files, which are unfinished, do not.
    """
    index = saved_index(folder)
    components = json.loads(index.read_text()) if index.name == "model_index.json" else {}
    paths = {*folder.glob("*"), *(path for name in components for path in (folder / name).glob("*"))}
    pictures = (*pictures_in(folder / "README.md"), *pictures_of(facts))
    paths |= {folder / name for name in pictures if leads_inside(name)}
    for path in paths:
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".jsonl":
            link = scratch / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    return scratch


def push_dataset(folder: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Upload a prepared dataset with its card; run it again to resume. Returns the address.

    Args:
        folder (`str` or `Path`): of the dataset.
        repo_id (`str`): `user/name`; made if it is not there.
        private (`bool`): of a repository that is made.
    """
    write_dataset_card(folder, repo_id)
    api = HfApi()
    url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        repo_type="dataset",
        commit_message="Upload dataset",
        ignore_patterns=list(_HIDDEN),
    )
    return str(url)
