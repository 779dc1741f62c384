# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or absent, whatever kills the run and whenever.

A folder `checkpoint-<step>` has that name only while it is whole: it is written under another name, brought to the
device and then renamed; before it is deleted it is renamed again.
"""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, init_empty_weights
from accelerate.utils import DistributedType
from diffusers import ModelMixin
from diffusers.training_utils import EMAModel
from peft import get_peft_model_state_dict, set_peft_model_state_dict

from ..files import sync_folder
from ..pipelines.pipeline_vilearn import ViLearnImageTo3DPipeline

PROGRESS_FILE = "progress.json"
# Of the configuration, what is measured on the data: another device may see it otherwise by a token.
MEASURED = {"visible_fraction"}
_PARTIAL, _OUTDATED, _REPLACED = ".partial-", ".outdated-", ".replaced-"


@dataclass
class Progress:
    """How far a run is.

    Args:
        step (`int`): optimiser steps done.
        position (`int`): samples that all processes have taken from the stream.
        num_processes (`int`, *optional*): how many took the last step; `None` before the first one.
        num_rows (`int`, *optional*): of the data that they took it from.
    """

    step: int = 0
    position: int = 0
    num_processes: int | None = None
    num_rows: int | None = None


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; the ones before it are whole."""


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Whole checkpoints of a run, by their steps; what a user calls `checkpoint-best` is none."""
    return sorted(filter(_is_checkpoint, Path(output_dir).glob("checkpoint-*")), key=step_of)


def _is_checkpoint(path: Path) -> bool:
    return re.fullmatch(r"checkpoint-\d+", path.name) is not None and path.is_dir()


def step_of(checkpoint: Path) -> int:
    """The optimiser steps done, of a folder `checkpoint-<step>`."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def tidy_checkpoints(output_dir: str | Path) -> None:
    """Remove what a killed run left half-written or half-deleted."""
    output_dir = Path(output_dir)
    for prefix in (_PARTIAL, _OUTDATED):
        for folder in output_dir.glob(f"{prefix}checkpoint-*"):
            shutil.rmtree(folder)
    for folder in output_dir.glob(f"{_REPLACED}checkpoint-*"):
        # Killed between the two renames of `_put_in_place`: the old one is still the good one.
        checkpoint = folder.with_name(folder.name.removeprefix(_REPLACED))
        if checkpoint.exists():
            shutil.rmtree(folder)
        else:
            os.replace(folder, checkpoint)


def save_checkpoint(accelerator: Accelerator, output_dir: str, progress: Progress, total_limit: int | None) -> None:
    """Write `checkpoint-<step>` of all processes, then delete the oldest beyond `total_limit`.

    Raises:
        CheckpointError: the disk is full or fails; nothing half-written remains, and older checkpoints are there.
    """
    folder = Path(output_dir) / f"checkpoint-{progress.step}"
    partial = folder.with_name(_PARTIAL + folder.name)
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            (partial / PROGRESS_FILE).write_text(json.dumps(asdict(progress)))
            sync_folder(partial)
    except Exception as error:
        # Full disks come as OSError, as RuntimeError of torch.save and as SafetensorError.
        shutil.rmtree(partial, ignore_errors=True)
        whole = list_checkpoints(output_dir)
        free = shutil.disk_usage(output_dir).free / 2**30
        raise CheckpointError(
            f"{folder} could not be written ({type(error).__name__}: {error}); {free:.2f} GiB are free there. "
            + (f"The last whole checkpoint is {whole[-1]}." if whole else "There is no checkpoint yet.")
        ) from error
    if accelerator.is_main_process:
        _put_in_place(partial, folder)
        if total_limit is not None:
            for outdated in list_checkpoints(output_dir)[:-total_limit]:
                delete_checkpoint(outdated)
    accelerator.wait_for_everyone()


def _put_in_place(partial: Path, folder: Path) -> None:
    replaced = folder.with_name(_REPLACED + folder.name)
    if folder.exists():
        os.replace(folder, replaced)
    os.replace(partial, folder)
    _sync_names(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def delete_checkpoint(folder: Path) -> None:
    """Delete a checkpoint; one whose deletion is cut short has another name."""
    renamed = folder.with_name(_OUTDATED + folder.name)
    os.replace(folder, renamed)
    shutil.rmtree(renamed)


def _sync_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def resume_from(accelerator: Accelerator, output_dir: str, name: str | None) -> Progress:
    """Load the named checkpoint (or the `latest`); no progress where there is nothing to resume.

    Raises:
        ValueError: there is no such checkpoint, it is of another model, or there are later ones, which the run would
            write its own among.
    """
    last = next(reversed(list_checkpoints(output_dir)), None)
    folder = last if name == "latest" else None
    if name not in (None, "latest"):
        folder = Path(output_dir) / Path(name).name
        if not _is_checkpoint(folder):
            raise ValueError(f"`--resume_from_checkpoint` names {folder}, which is no folder `checkpoint-<step>`.")
    if folder != last and (folder is None or step_of(folder) < step_of(last)):
        raise ValueError(
            f"{output_dir} holds {last.name}, which is further than this run would begin. Go on with"
            " `--resume_from_checkpoint latest`, delete what is later, or choose another `--output_dir`."
        )
    if folder is None:
        accelerator.print(f"{output_dir} has no checkpoint: training starts from the beginning.")
        return Progress()
    accelerator.load_state(str(folder))
    # It counts forward passes, of which a step may have had another number; checkpoints lie between steps.
    accelerator.step = 0
    accelerator.print(f"Resumed from {folder}.")
    return Progress(**json.loads((folder / PROGRESS_FILE).read_text()))


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether a process holds only a part of the weights (FSDP, DeepSpeed ZeRO-3)."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return accelerator.state.deepspeed_plugin.zero_stage == 3
    return accelerator.distributed_type == DistributedType.FSDP


def whole_model(accelerator: Accelerator, model: torch.nn.Module, model_class: type[ModelMixin]) -> ModelMixin:
    """The model without its wrappers; one that is sharded is gathered on the CPU, and all processes must call this."""
    plain = accelerator.unwrap_model(model)
    if not is_sharded(accelerator):
        return plain
    state = accelerator.get_state_dict(model)
    gathered = model_class.from_config(plain.config)
    if accelerator.is_main_process:
        gathered.load_state_dict(state)
    return gathered


def save_models_by_name(
    accelerator: Accelerator, names: dict[type[ModelMixin], str], ema: EMAModel | None = None
) -> None:
    """Let checkpoints hold `<name>`, and `<name>_ema`, as `from_pretrained` loads them, and resume from these.

    Args:
        accelerator: whose `save_state` and `load_state` are extended.
        names (`dict`): class of a prepared model -> name of its folder; other models stay as accelerate saves them.
        ema (`EMAModel`, *optional*): of the model that is named first.
    """
    first_class, first_name = next(iter(names.items()))

    def find_name(model) -> tuple[type[ModelMixin], str] | None:
        plain = accelerator.unwrap_model(model)
        return next(((cls, name) for cls, name in names.items() if isinstance(plain, cls)), None)

    def save(models: list, weights: list, folder: str) -> None:
        for index in reversed(range(len(models))):
            if (found := find_name(models[index])) is None:
                continue
            whole = whole_model(accelerator, models[index], found[0])
            if accelerator.is_main_process:
                whole.save_pretrained(Path(folder) / found[1])
            if weights:
                weights.pop(index)
        if ema is not None and accelerator.is_main_process:
            ema.save_pretrained(Path(folder) / f"{first_name}_ema")

    def load(models: list, folder: str) -> None:
        # All that are prepared: accelerate itself loads those of FSDP and DeepSpeed, and does not name them here.
        for model in accelerator._models:
            if (found := find_name(model)) is not None:
                _check_configuration(found, accelerator.unwrap_model(model), folder)
        for model in list(models):
            if (found := find_name(model)) is not None:
                saved = found[0].from_pretrained(folder, subfolder=found[1])
                accelerator.unwrap_model(model).load_state_dict(saved.state_dict())
                models.remove(model)
        if ema is not None:
            average, device = Path(folder) / f"{first_name}_ema", ema.shadow_params[0].device
            if not average.is_dir():
                raise ValueError(f"{folder} holds no average of the weights: it was made without `--use_ema`.")
            saved = EMAModel.from_pretrained(average, model_cls=first_class)
            ema.load_state_dict(saved.state_dict() | {"decay": ema.decay})
            ema.to(device)

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def _check_configuration(found: tuple[type[ModelMixin], str], model: ModelMixin, folder: str) -> None:
    """Raise `ValueError` where a checkpoint's model is another one: the weights may fit all the same."""
    model_class, name = found
    with init_empty_weights():
        saved = model_class.from_config(model_class.load_config(folder, subfolder=name))
    had, has = (json.loads(one.to_json_string()) for one in (saved, model))
    known = {name: value for name, value in has.items() if not name.startswith("_") and name not in MEASURED}
    _refuse_another(folder, "model has", had, known)


def _refuse_another(folder: str, what: str, had: dict, has: dict) -> None:
    """Raise `ValueError` for a checkpoint that `had` something else than the run `has`, by what that has names of."""
    differing = [
        f"`{name}` {had.get(name)!r} and not {value!r}" for name, value in has.items() if had.get(name) != value
    ]
    if differing:
        raise ValueError(f"{folder} cannot be resumed from: its {what} {', '.join(differing)}.")


def save_lora_by_name(accelerator: Accelerator) -> None:
    """Let checkpoints hold the LoRA layers of the transformer as `load_lora_weights` loads them, and nothing else of
    it, and resume from these."""

    def save(models: list, weights: list, folder: str) -> None:
        for index in reversed(range(len(models))):
            save_lora(accelerator, models[index], folder)
            if weights:
                weights.pop(index)

    def load(models: list, folder: str) -> None:
        prefix = f"{ViLearnImageTo3DPipeline.transformer_name}."
        state, saved = ViLearnImageTo3DPipeline.lora_state_dict(folder, return_lora_metadata=True)
        for model in accelerator._models:
            plain = accelerator.unwrap_model(model)
            _check_lora({name.removeprefix(prefix): value for name, value in saved.items()}, plain, folder)
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        while models:
            set_peft_model_state_dict(accelerator.unwrap_model(models.pop()), state, adapter_name="default")

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def _check_lora(saved: dict, model: torch.nn.Module, folder: str) -> None:
    """Raise `ValueError` where a checkpoint's layers are scaled or placed otherwise: their weights may fit."""
    had, has = (
        {"r": one["r"], "lora_alpha": one["lora_alpha"], "target_modules": sorted(one["target_modules"])}
        for one in (saved, model.peft_config["default"].to_dict())
    )
    _refuse_another(folder, "LoRA layers have", had, has)


def save_lora(accelerator: Accelerator, model: torch.nn.Module, folder: str | Path) -> None:
    """Write the LoRA layers of a prepared transformer as `pytorch_lora_weights.safetensors`; where weights are sharded
    they are gathered on the CPU, and all processes must call this."""
    plain = accelerator.unwrap_model(model)
    state = accelerator.get_state_dict(model) if is_sharded(accelerator) else plain.state_dict()
    if accelerator.is_main_process:
        ViLearnImageTo3DPipeline.save_lora_weights(
            folder,
            transformer_lora_layers=get_peft_model_state_dict(plain, state_dict=state),
            transformer_lora_adapter_metadata=plain.peft_config["default"].to_dict(),
        )
