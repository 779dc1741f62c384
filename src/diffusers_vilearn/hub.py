# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The way to the Hub: of models and pipelines with a full card, of checkpoint folders, of datasets."""

import json
import tempfile
from pathlib import Path

from diffusers.utils import PushToHubMixin
from huggingface_hub import HfApi, try_to_load_from_cache

from .cards import (
    checked_facts,
    leads_inside,
    pictures_in,
    pictures_of,
    readdress_card,
    write_checkpoint_card,
    write_dataset_card,
    write_model_card,
)
from .files import PIPELINE_INDEX, holds_lora, saved_index

__all__ = [
    "ModelCardMixin",
    "ensure_card",
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


def folder_of_model(name_or_path: str | Path, subfolder="", cache_dir=None, revision=None, **kwargs) -> Path | None:
    """Where a model's files are: in the folder given, or in the cache of what has been downloaded from the Hub."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path, subfolder or "")
    config = try_to_load_from_cache(
        str(name_or_path), Path(subfolder or "", "config.json").as_posix(), cache_dir=cache_dir, revision=revision
    )
    return Path(config).parent if isinstance(config, str) else None


def write_card_and_example(folder: str | Path, facts: dict | None = None, **options) -> None:
    """`README.md` of a saved checkpoint; for a pipeline that takes images and whose `facts` name no example, also
    `example.png` where there is none: one that is drawn.

    Args:
        folder, facts, options: as for `write_checkpoint_card`.
    """
    facts, folder = checked_facts(facts), Path(folder)
    if "example" not in facts and (folder / PIPELINE_INDEX).is_file() and (folder / "image_encoder").is_dir():
        from .pipelines.preview import example_picture

        if not (folder / "example.png").exists():
            example_picture().save(folder / "example.png")
        facts["example"] = "example.png"
    write_checkpoint_card(folder, facts, **options)


def ensure_card(
    folder: str | Path,
    facts: dict | None = None,
    *,
    evaluation: str | Path | None = None,
    template: str | None = None,
    repo_id: str | None = None,
) -> bool:
    """See that a checkpoint has its `README.md`: what is there is kept unless `facts`, `evaluation` or `template` ask
    for a new one. Returns whether one was written.

    Args:
        folder (`str` or `Path`): written by `save_pretrained`, or LoRA layers with the card that their run wrote.
        facts, evaluation, template, repo_id: as for `write_checkpoint_card`.

    Raises:
        ValueError: If the folder holds no checkpoint, or LoRA layers for which a card would have to be made.
    """
    folder = Path(folder)
    asked = bool(facts or evaluation or template)
    has_card = (folder / "README.md").is_file()
    if holds_lora(folder):
        if asked or not has_card:
            raise ValueError(
                "LoRA layers are published with the README.md beside them, which training/train_vilearn.py writes: "
                + ("`facts`, `evaluation` and `template` are not for them." if asked else "there is none.")
            )
        return False
    saved_index(folder)
    if has_card and not asked:
        return False
    write_card_and_example(folder, facts, evaluation=evaluation, template=template, repo_id=repo_id)
    return True


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
    """Upload a saved pipeline, model or LoRA layers with the card; run it again to resume. Returns the address of the
    commit.

    Of a folder that a training script wrote, only what loading reads goes up, not checkpoints and logs. A `README.md`
    that `ensure_card` keeps goes up with its code loading `repo_id`. The folder itself is not changed.

    Args:
        folder (`str` or `Path`): written by `save_pretrained`, or by a training run with `--rank`.
        repo_id (`str`): `user/name`; made if it is not there.
        facts, evaluation, template: of the card, see `write_checkpoint_card`.
        self_contained (`bool`): put the pipeline's code beside the weights: it then loads without this package, and
            always needs `trust_remote_code=True`.
        private (`bool`): of a repository that is made.

    Raises:
        ValueError: If the folder holds nothing to publish, or what is asked for does not fit it.
    """
    from .custom_code import add_custom_code

    api, folder = HfApi(), Path(folder)
    is_lora = holds_lora(folder)
    if is_lora and self_contained:
        raise ValueError("`self_contained` is for pipelines and models; LoRA layers have no code of their own.")
    with tempfile.TemporaryDirectory() as scratch:
        staged = _stage(folder, Path(scratch), checked_facts(facts))
        if self_contained:
            add_custom_code(staged)
        if not ensure_card(staged, facts, evaluation=evaluation, template=template, repo_id=repo_id):
            *_, parent, name = folder.resolve().parts
            # The VAE of a run lies in `vae` in its folder, and has the run's name.
            names = (f"{parent}/{name}", name, parent)
            loader = "load_lora_weights" if is_lora else "from_pretrained"
            readdress_card(staged, names, repo_id, has_code=self_contained, loader=loader)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=staged, commit_message="Upload checkpoint"))


def _stage(folder: Path, scratch: Path, facts: dict) -> Path:
    """Links to what belongs to a checkpoint: files beside its index, configuration or LoRA layers, components, the
    pictures of its card and of `facts`.

    Logs, which are JSON lines, and hidden files, which are unfinished, do not.
    """
    index = None if holds_lora(folder) else saved_index(folder)
    components = json.loads(index.read_text()) if index and index.name == PIPELINE_INDEX else {}
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
