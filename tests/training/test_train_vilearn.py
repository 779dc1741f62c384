# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What the transformer's training script promises, on a dataset of four objects."""

import importlib.util
import json
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
import yaml
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from script_process import TRAINING, ScriptProcess

from diffusers_vilearn import VecSetVAE, ViLearnImageTo3DPipeline, ViLearnTransformer3DModel
from diffusers_vilearn.data.loading import load_table
from diffusers_vilearn.data.shards import to_parquet
from diffusers_vilearn.files import read_json_lines
from diffusers_vilearn.training.components import adopt_schedule
from diffusers_vilearn.training.publishing import left_out
from diffusers_vilearn.training.schedule import parse_schedule

SCRIPT = "train_vilearn.py"


def arguments(work: Path, output_dir: Path, *more) -> list:
    return [
        *("--dataset_name", work / "data", "--vae", work / "vae", "--image_encoder", work / "encoder"),
        *("--transformer_config", work / "transformer.json", "--output_dir", output_dir, "--train_batch_size", 2),
        *("--lr_warmup_steps", 0, "--logging_steps", 1, *more),
    ]


def start(output_dir: Path, words: list, **options) -> ScriptProcess:
    return ScriptProcess(SCRIPT, *words, log=output_dir.with_suffix(".log"), **options)


def train(work: Path, output_dir: Path, *more) -> str:
    process = start(output_dir, arguments(work, output_dir, *more))
    assert process.wait() == 0, process.output[-3000:]
    return process.output


def refuse(work: Path, output_dir: Path, *more) -> str:
    process = start(output_dir, arguments(work, output_dir, "--max_train_steps", 2, *more))
    assert process.wait() != 0
    assert not (output_dir / "train_log.jsonl").exists() and not list(output_dir.glob("checkpoint-*"))
    return process.output


def losses(output_dir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (output_dir / "train_log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


STAGES = [{"tokens": 4, "steps": 5, "batch_size": 4}, {"tokens": 8, "steps": 4, "batch_size": 2}]


@pytest.fixture(scope="module")
def staged(work) -> tuple[Path, Path]:
    """A run of two stages, described by a file, with everything on: the file, and its output folder."""
    config = work / "staged.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "transformer": json.loads((work / "transformer.json").read_text()),
                "stages": STAGES,
                "use_ema": True,
                "ema_decay": 0.5,
                "learning_rate": 1e-3,
                "mask_dropout": 0.3,
                "checkpointing_steps": 2,
                "timestep_shift": 2.0,
                "stochastic_sampling": True,
            }
        )
    )
    output_dir = work / "staged"
    validation = ("--num_validation_images", 1, "--validation_inference_steps", 2, "--validation_resolution", 16)
    more = ("--config", config, "--validation_steps", 6, "--report_to", "tensorboard")
    train(work, output_dir, *more, *validation)
    return config, output_dir


def test_stages_change_tokens_batch_and_shift_and_the_scheduler_keeps_the_options(staged):
    _, output_dir = staged
    pipeline = ViLearnImageTo3DPipeline.from_pretrained(output_dir)
    assert pipeline.vae.config.num_tokens == 8
    assert pipeline.scheduler.config.shift == pytest.approx(2.0 * 2**0.5)
    assert pipeline.scheduler.config.stochastic_sampling
    progress = json.loads((output_dir / "checkpoint-8" / "progress.json").read_text())
    assert progress == {"step": 8, "position": 5 * 4 + 3 * 2, "num_processes": 1, "num_rows": 12}
    card = (output_dir / "README.md").read_text()
    assert "| 4 | 5 | 4 | 28 | 2.000 |" in card and "| 8 | 4 | 2 | 28 | 2.828 |" in card and "{{" not in card


@pytest.mark.parametrize("step", [2, 6])
def test_a_run_resumed_before_or_after_a_change_of_stage_is_the_same(work, staged, tmp_path, step):
    config, whole = staged
    output_dir = tmp_path / "resumed"
    output_dir.mkdir()
    shutil.copytree(whole / f"checkpoint-{step}", output_dir / f"checkpoint-{step}")
    train(work, output_dir, "--config", config, "--resume_from_checkpoint", "latest")
    assert same_weights(output_dir / "transformer", whole / "transformer")
    assert losses(output_dir) == losses(whole)[step:]


def test_a_validation_shape_without_a_surface_does_not_end_the_run(work, tmp_path):
    vae = VecSetVAE.from_pretrained(work / "vae")
    torch.nn.init.constant_(vae.geometry.proj_out.bias, -9)
    vae.save_pretrained(tmp_path / "vae")
    sample = ("--num_validation_images", 1, "--validation_inference_steps", 1, "--validation_resolution", 16)
    train(work, tmp_path / "run", "--vae", tmp_path / "vae", "--online_encoding", "--max_train_steps", 1, *sample)
    (row,) = read_json_lines(tmp_path / "run" / "samples" / "scores.jsonl")
    assert row["failed"] == 1 and "floaters" not in row
    assert (tmp_path / "run" / "samples" / "step-00000001.png").exists()


def test_a_run_says_which_options_it_goes_on_with(work, staged, tmp_path):
    config, whole = staged
    (began,) = read_json_lines(whole / "options.jsonl")
    assert (began["step"], began["seed"], began["use_ema"]) == (0, 0, True) and "hub_token" not in began
    shutil.copytree(whole / "checkpoint-6", tmp_path / "run" / "checkpoint-6")
    shutil.copy(whole / "options.jsonl", tmp_path / "run")
    more = ("--config", config, "--resume_from_checkpoint", "latest", "--max_train_steps", 7)
    more += ("--condition_dropout", 0.9, "--ema_decay", 0.75, "--checkpointing_steps", 1, "--validation_fraction", 0.5)
    process = start(tmp_path / "run", arguments(work, tmp_path / "run", *more))
    assert process.wait() == 0, process.output[-3000:]
    changes = "`--max_train_steps 7`, was None; `--condition_dropout 0.9`, was 0.1"
    for change in changes.split("; "):
        assert change in process.output
    assert "goes on with 8 rows of data, not 12: in this epoch, some come twice" in process.output
    assert f"The pipeline is in {tmp_path / 'run'}." in process.output
    _, goes_on = read_json_lines(tmp_path / "run" / "options.jsonl")
    assert (goes_on["step"], goes_on["condition_dropout"]) == (6, 0.9)
    average = tmp_path / "run" / "checkpoint-7" / "transformer_ema" / "config.json"
    assert json.loads(average.read_text())["decay"] == 0.75


def test_an_average_that_a_checkpoint_lacks_is_named(work, staged, tmp_path):
    config, whole = staged
    shutil.copytree(whole / "checkpoint-6", tmp_path / "run" / "checkpoint-6")
    shutil.rmtree(tmp_path / "run" / "checkpoint-6" / "transformer_ema")
    words = arguments(work, tmp_path / "run", "--config", config, "--resume_from_checkpoint", "latest")
    process = start(tmp_path / "run", words)
    assert process.wait() == 1 and "Traceback" not in process.output
    assert "holds no average of the weights: it was made without `--use_ema`" in process.output


def test_a_run_that_is_to_end_before_its_checkpoint_is_refused(work, staged, tmp_path):
    config, whole = staged
    shutil.copytree(whole / "checkpoint-6", tmp_path / "run" / "checkpoint-6")
    more = ("--config", config, "--max_train_steps", 4, "--resume_from_checkpoint", "latest")
    process = start(tmp_path / "run", arguments(work, tmp_path / "run", *more))
    assert process.wait() == 1 and not (tmp_path / "run" / "transformer").exists()
    assert "is to end after 4 steps, but the checkpoint has 6" in process.output


def test_validation_draws_scores_and_logs(staged):
    _, output_dir = staged
    pictures = sorted(path.name for path in (output_dir / "samples").glob("*.png"))
    assert pictures == ["step-00000006.png", "step-00000009.png"]
    scores = [json.loads(line) for line in (output_dir / "samples" / "scores.jsonl").read_text().splitlines()]
    assert [row["step"] for row in scores] == [6, 9] and scores[0]["view"] == "heldout/cone, view 0"
    assert {"iou", "f_score@0.02", "floaters"} <= scores[0].keys()
    log = [json.loads(line) for line in (output_dir / "validation_log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) and row["iou"] == score["iou"] for row, score in zip(log, scores, strict=True))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output_dir / "logs" / "train_vilearn")).Reload()
    assert "samples" in events.Tags()["images"]
    assert {"train/loss", "validation/loss", "samples/iou"} <= set(events.Tags()["scalars"])


@pytest.fixture(scope="module")
def paradigms(work) -> dict[str, Path]:
    """A run of each encoding, with a tiny learning rate: losses differ by the encoding, hardly by what was learned."""
    folders = {}
    for encoding in ("none", "va_lpe", "va_rope"):
        folders[encoding] = work / f"paradigm-{encoding}"
        options = ("--visibility_encoding", encoding, "--learning_rate", 0, "--max_train_steps", 3)
        train(work, folders[encoding], *options, "--condition_dropout", 0.5, "--checkpointing_steps", 3)
    return folders


def test_paradigms_differ_in_the_encoding_only(paradigms):
    transformers = {name: weights(folder / "transformer") for name, folder in paradigms.items()}
    embedding = {"pos_embed.visible_embedding", "pos_embed.invisible_embedding"}
    assert transformers["va_lpe"].keys() - transformers["none"].keys() == embedding
    for encoding in ("va_lpe", "va_rope"):
        same = transformers["none"].items()
        assert all(torch.equal(value, transformers[encoding][name]) for name, value in same)
    configs = [json.loads((folder / "transformer" / "config.json").read_text()) for folder in paradigms.values()]
    for config in configs:
        config.pop("visibility_encoding")
    assert configs[0] == configs[1] == configs[2]
    # The same noise, order and dropped conditions: at step 1 all start from equal weights, so that losses agree
    # as closely as the encodings do, and far more closely than the losses of two batches.
    logs = np.array([losses(folder) for folder in paradigms.values()])
    assert len(set(logs[:, 0])) == 3
    assert np.ptp(logs, axis=0).max() < 0.2 * np.ptp(logs, axis=1).min()


def test_positions_reach_the_model(work, tmp_path):
    train(work, tmp_path / "run", "--visible_position", 5, "--invisible_position", 20, "--max_train_steps", 1)
    config = ViLearnTransformer3DModel.load_config(tmp_path / "run", subfolder="transformer")
    assert (config["visible_position"], config["invisible_position"]) == (5, 20)


def test_what_does_not_fit_is_refused_before_the_first_step(work, tmp_path):
    other = VecSetVAE.from_pretrained(work / "vae")
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained(tmp_path / "whole" / "other-vae")
    assert "another `--vae`" in refuse(work, tmp_path / "vae", "--vae", tmp_path / "whole" / "other-vae")
    assert "did you mean" in refuse(work, tmp_path / "vae", "--vae", tmp_path / "whole")
    assert "have 8 tokens a shape, but the run wants 4" in refuse(work, tmp_path / "tokens", "--num_tokens", 4)
    message = "images of 28 pixels, but the run wants 42"
    assert message in refuse(work, tmp_path / "size", "--resolution", 42)
    shutil.copytree(work / "encoder", tmp_path / "encoder")
    tensors = load_file(tmp_path / "encoder" / "model.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1}, tmp_path / "encoder" / "model.safetensors", {"format": "pt"})
    assert "another `--image_encoder`" in refuse(work, tmp_path / "image", "--image_encoder", tmp_path / "encoder")
    assert "has no latents table 'latents-99'" in refuse(work, tmp_path / "table", "--latents", "latents-99")


def spoil(work: Path, data: Path, uids: set[str]) -> None:
    """A copy of the dataset in which the latents of some objects are not finite."""
    shutil.copytree(work / "data", data)
    (path,) = (data / "latents").glob("train-*.parquet")
    rows = load_table(str(data), "latents", "train")
    spoilt = list(rows.with_format("numpy"))
    for row in spoilt:
        if row["uid"] in uids:
            row["moments"] = np.full_like(row["moments"], np.nan, dtype=np.float16)
    path.write_bytes(to_parquet(spoilt, rows.features))


def test_unreadable_rows_are_named_and_left_out(work, tmp_path):
    spoil(work, tmp_path / "data", {"train/ring"})
    options = ("--dataset_name", tmp_path / "data", "--validation_fraction", 0, "--train_batch_size", 8)
    train(work, tmp_path / "run", *options, "--max_train_steps", 2)
    lines = (tmp_path / "run" / "unreadable_rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 4 and {row["uid"].partition(",")[0] for row in rows} == {"train/ring"}
    assert all("not finite" in row["reason"] for row in rows) and np.isfinite(losses(tmp_path / "run")).all()
    process = start(
        tmp_path / "strict",
        arguments(work, tmp_path / "strict", *options, "--max_train_steps", 2, "--max_unreadable_rows", 3),
    )
    assert process.wait() != 0
    assert "4 rows are unreadable" in process.output and "train/ring, view" in process.output
    # From the beginning, and with the data mended, none counts any more.
    train(work, tmp_path / "strict", "--validation_fraction", 0, "--max_train_steps", 2, "--max_unreadable_rows", 3)
    assert not (tmp_path / "strict" / "unreadable_rows.jsonl").read_text()


def test_a_validation_view_that_is_broken_is_named_before_the_first_step(work, tmp_path):
    shutil.copytree(work / "data", tmp_path / "data")
    (path,) = (tmp_path / "data" / "views").glob("heldout-*.parquet")
    rows = load_table(str(work / "data"), "views", "heldout").cast_column("image", datasets.Image(decode=False))
    cut = [row | {"image": row["image"] | {"bytes": row["image"]["bytes"][:-100]}} for row in rows]
    path.write_bytes(to_parquet(cut, load_table(str(work / "data"), "views", "heldout").features))
    words = ("--dataset_name", tmp_path / "data", "--num_validation_images", 1)
    message = f"View 0 of {cut[0]['uid']}, split heldout of {tmp_path / 'data'}, cannot be read"
    assert message in refuse(work, tmp_path / "run", *words)


def test_an_unreadable_file_is_named(work, tmp_path):
    shutil.copytree(work / "data", tmp_path / "data")
    (path,) = (tmp_path / "data" / "latents").glob("train-*.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    assert f"Not readable as Parquet: {path}" in refuse(work, tmp_path / "run", "--dataset_name", tmp_path / "data")


def test_streaming_resumes_exactly(work, tmp_path):
    stream = ("--streaming", "--validation_fraction", 0, "--checkpointing_steps", 3)
    train(work, tmp_path / "whole", *stream, "--max_train_steps", 7)
    (tmp_path / "resumed").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "resumed" / "checkpoint-3")
    train(work, tmp_path / "resumed", *stream, "--max_train_steps", 7, "--resume_from_checkpoint", "latest")
    assert same_weights(tmp_path / "resumed" / "transformer", tmp_path / "whole" / "transformer")


def test_online_encoding_resumes_exactly(work, tmp_path):
    online = ("--online_encoding", "--mirror", "--image_augmentation", "--checkpointing_steps", 2, "--num_tokens", 4)
    online += ("--num_points", 128)
    train(work, tmp_path / "whole", *online, "--max_train_steps", 4, "--validation_steps", 3)
    (tmp_path / "resumed").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    train(work, tmp_path / "resumed", *online, "--max_train_steps", 4, "--resume_from_checkpoint", "checkpoint-2")
    assert same_weights(tmp_path / "resumed" / "transformer", tmp_path / "whole" / "transformer")


def finetune(work: Path, pretrained: Path, output_dir: Path, *more) -> None:
    words = [
        "--dataset_name",
        work / "data",
        "--pretrained_model_name_or_path",
        pretrained,
        "--output_dir",
        output_dir,
    ]
    more = ("--train_batch_size", 2, "--lr_warmup_steps", 0, "--checkpointing_steps", 2, *more)
    process = start(output_dir, [*words, *more])
    assert process.wait() == 0, process.output[-3000:]


def test_finetuning_starts_from_the_checkpoint(work, staged, tmp_path, monkeypatch):
    _, pretrained = staged
    # A bare name is a folder here, and must not be taken for an id of the Hub.
    monkeypatch.chdir(pretrained.parent)
    finetune(work, Path(pretrained.name), tmp_path / "run", "--learning_rate", 0, "--max_train_steps", 1)
    assert same_weights(tmp_path / "run" / "transformer", pretrained / "transformer")
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"| finetuned from | `{pretrained.name}` |" in card and "base_model" not in card
    assert f"On `{(work / 'data').name}`" in card
    # The schedule of the noise is the pipeline's too, unless another one is given.
    schedulers = [
        ViLearnImageTo3DPipeline.from_pretrained(folder).scheduler for folder in (pretrained, tmp_path / "run")
    ]
    assert schedulers[0].config.shift == schedulers[1].config.shift != 1
    assert schedulers[1].config.stochastic_sampling
    options = ("--timestep_shift", 1, "--no-stochastic_sampling", "--max_train_steps", 1)
    finetune(work, Path(pretrained.name), tmp_path / "other", *options)
    config = ViLearnImageTo3DPipeline.from_pretrained(tmp_path / "other").scheduler.config
    assert config.shift == 1 and not config.stochastic_sampling


def test_a_vae_that_was_normalised_anew_is_refused_for_finetuning(work, staged, tmp_path):
    _, pretrained = staged
    vae = VecSetVAE.from_pretrained(work / "vae")
    vae.register_to_config(shift_factor=0.5)
    vae.save_pretrained(tmp_path / "vae")
    words = ("--dataset_name", work / "data", "--pretrained_model_name_or_path", pretrained, "--max_train_steps", 1)
    process = start(tmp_path / "run", [*words, "--vae", tmp_path / "vae", "--output_dir", tmp_path / "run"])
    assert process.wait() == 1
    assert "has the weights of the VAE of" in process.output and "leave out `--vae`" in process.output


def test_a_schedule_that_no_shift_can_tell_is_not_adopted(tmp_path):
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    for scheduler in (
        UniPCMultistepScheduler(**flow, flow_shift=3.0),
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    ):
        scheduler.save_pretrained(tmp_path / "scheduler")
        args = SimpleNamespace(
            pretrained_model_name_or_path=str(tmp_path),
            revision=None,
            cache_dir=None,
            timestep_shift=None,
            stochastic_sampling=None,
        )
        with pytest.raises(ValueError, match=f"is {type(scheduler).__name__}.*, whose .* Give `--timestep_shift`"):
            adopt_schedule(args)
        args.timestep_shift = 2.0
        adopt_schedule(args)
        assert args.timestep_shift == 2 and args.stochastic_sampling is False


def test_the_transformer_of_the_command_line_wins_over_that_of_the_file(work, staged, tmp_path):
    config = json.loads((work / "transformer.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(config | {"num_single_layers": 3}))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"transformer": config}))
    more = ("--config", tmp_path / "config.yaml", "--transformer_config", tmp_path / "other.json")
    train(work, tmp_path / "run", *more, "--max_train_steps", 1)
    assert ViLearnTransformer3DModel.load_config(tmp_path / "run/transformer")["num_single_layers"] == 3


def test_a_checkpoint_of_another_configuration_is_refused(work, staged, tmp_path):
    _, pretrained = staged
    options = ("--max_train_steps", 2, "--resume_from_checkpoint", "latest")
    finetune(work, pretrained, tmp_path / "run", *options)
    words = ["--dataset_name", work / "data", "--pretrained_model_name_or_path", pretrained, *options]
    words += ["--output_dir", tmp_path / "run", "--visible_position", 7]
    process = start(tmp_path / "run", words)
    assert process.wait() == 1
    assert "cannot be resumed from: its model has `visible_position` 0 and not 7.0" in process.output


def test_lora_layers_are_trained_resumed_and_loaded(work, staged, tmp_path):
    _, pretrained = staged
    options = ("--rank", 2, "--learning_rate", 1e-2, "--max_train_steps", 4)
    finetune(work, pretrained, tmp_path / "run", *options)
    (tmp_path / "resumed").mkdir()
    shutil.copytree(tmp_path / "run" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    finetune(work, pretrained, tmp_path / "resumed", *options, "--resume_from_checkpoint", "latest")
    words = ["--dataset_name", work / "data", "--pretrained_model_name_or_path", pretrained, *options]
    words += ["--output_dir", tmp_path / "resumed", "--resume_from_checkpoint", "latest", "--lora_alpha", 32]
    process = start(tmp_path / "resumed", words)
    assert process.wait() == 1
    assert "cannot be resumed from: its LoRA layers have `lora_alpha` 2 and not 32." in process.output
    layers, resumed = (load_file(tmp_path / name / "pytorch_lora_weights.safetensors") for name in ("run", "resumed"))
    assert layers.keys() == resumed.keys() and all(torch.equal(layers[name], resumed[name]) for name in layers)
    assert (
        not (tmp_path / "run" / "transformer").exists()
        and "load_lora_weights" in (tmp_path / "run" / "README.md").read_text()
    )

    pipeline = ViLearnImageTo3DPipeline.from_pretrained(pretrained)
    pipeline.set_progress_bar_config(disable=True)

    def latents():
        generator = torch.Generator().manual_seed(0)
        options = dict(num_inference_steps=1, output_type="latent", guidance_scale=1.0)
        return pipeline(image_embeds=torch.ones(1, 4, 16), generator=generator, **options).meshes

    plain = latents()
    pipeline.load_lora_weights(tmp_path / "run")
    assert not torch.allclose(latents(), plain)
    pipeline.unload_lora_weights()
    torch.testing.assert_close(latents(), plain)


def test_contradictions_are_refused(work, tmp_path):
    secret = ("--report_to", "wandb", "--hub_token", "secret")
    assert "would publish `--hub_token`" in refuse(work, tmp_path / "wandb", *secret)
    assert "need `--online_encoding`" in refuse(work, tmp_path / "mirror", "--mirror")
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text("learning_rat: 1")
    assert "unknown keys: learning_rat" in refuse(work, tmp_path / "key", "--config", unknown)
    pretrained = ("--rank", 2, "--pretrained_model_name_or_path", tmp_path, "--visibility_encoding", "none")
    assert "`--visibility_encoding` changes the pipeline" in refuse(work, tmp_path / "rank", *pretrained)
    assert "`--condition_dropout` is 1.5" in refuse(work, tmp_path / "dropout", "--condition_dropout", 1.5)
    assert "`--validation_steps` is 0" in refuse(work, tmp_path / "validation", "--validation_steps", 0)
    no_mapping = tmp_path / "mapping.yaml"
    no_mapping.write_text("transformer: t.json")
    assert "must map names to values, not 't.json'" in refuse(work, tmp_path / "mapping", "--config", no_mapping)
    other = ("--transformer_config", work / "vae" / "config.json")
    assert "is not one of a ViLearnTransformer3DModel" in refuse(work, tmp_path / "other", *other)
    stage = tmp_path / "stage.yaml"
    stage.write_text("stages: [{tokens: 4}]")
    assert "must have `tokens` and `steps`" in refuse(work, tmp_path / "stage", "--config", stage)


LORA = ["--rank", "2", "--pretrained_model_name_or_path", "p"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--max_grad_norm", "-1"], "`--max_grad_norm` is -1.0; it must be above 0"),
        (["--timestep_shift", "nan"], "`--timestep_shift` is nan; it must be above 0"),
        (["--num_tokens", "0"], "`--num_tokens` is 0; it must be at least 1"),
        (["--resolution", "0"], "`--resolution` is 0; it must be at least 1"),
        (["--num_validation_images", "-1"], "`--num_validation_images` is -1; it must be at least 0"),
        (["--validation_resolution", "4"], "`--validation_resolution` is 4; it must be at least 8"),
        (["--validation_inference_steps", "0"], "`--validation_inference_steps` is 0; it must be at least 1"),
        (["--validation_guidance_scale", "-2"], r"`--validation_guidance_scale` is -2.0; it must be at least 0"),
        (["--lora_alpha", "4"], "`--lora_alpha` needs `--rank`"),
        ([*LORA, "--vae", "v"], "`--vae` changes the pipeline that LoRA layers are for"),
        ([*LORA, "--timestep_shift", "1"], "`--timestep_shift` changes the pipeline that LoRA layers are for"),
        ([*LORA, "--no-stochastic_sampling"], "`--stochastic_sampling` changes the pipeline that LoRA layers are for"),
        (["--config", "staged.yaml", "--num_tokens", "4"], "`stages` cannot be combined with `--num_tokens`"),
        (["--config", "staged.yaml", "--scale_lr"], "`stages` cannot be combined with `--scale_lr`"),
    ],
)
def test_arguments_out_of_range_are_refused_at_once(staged, words, message, monkeypatch):
    monkeypatch.chdir(staged[0].parent)
    monkeypatch.setattr(sys, "argv", [SCRIPT, "--dataset_name", "d", "--output_dir", "o", *words])
    script = runpy.run_path(str(TRAINING / SCRIPT))
    with pytest.raises(ValueError, match=message):
        script["parse_args"]()


@pytest.mark.parametrize("name, parameters, stages", [("small", 394.1, 3), ("large", 1130.7, 4)])
def test_the_shipped_schedules_are_the_papers(name, parameters, stages, monkeypatch):
    config = yaml.safe_load((TRAINING / "configs" / f"{name}.yaml").read_text())
    schedule = parse_schedule(
        config["stages"], table="latents", image_size=256, batch_size=1, timestep_shift=config["timestep_shift"]
    )
    assert schedule.num_steps == 110_000 and len(schedule.stages) == stages
    assert [stage.shift for stage in schedule.stages] == [1, 2, 8**0.5, 4][:stages]
    with torch.device("meta"):
        model = ViLearnTransformer3DModel(**config["transformer"])
    assert model.num_parameters() / 1e6 == pytest.approx(parameters, abs=0.1)
    # Every other key is an argument of the script.
    script = runpy.run_path(str(TRAINING / SCRIPT))
    command = ["--config", str(TRAINING / "configs" / f"{name}.yaml"), "--dataset_name", "d", "--output_dir", "o"]
    monkeypatch.setattr(sys, "argv", [SCRIPT, *command])
    args = script["parse_args"]()
    assert args.learning_rate == 1e-4 and args.use_ema and args.visibility_encoding == "va_rope"
    monkeypatch.setattr(sys, "argv", [SCRIPT, *command, "--no-use_ema"])
    assert not script["parse_args"]().use_ema


def test_what_is_not_installed_is_named(work, tmp_path):
    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    assert "`pip install bitsandbytes`" in refuse(work, tmp_path / "run", "--use_8bit_adam")


def test_a_tracker_that_is_not_installed_is_named(work, tmp_path):
    if importlib.util.find_spec("trackio"):
        pytest.skip("trackio is installed")
    assert "`--report_to trackio` needs `pip install trackio`" in refuse(work, tmp_path, "--report_to", "trackio")


def test_only_the_result_is_published(staged):
    _, output_dir = staged
    files = [str(path.relative_to(output_dir)) for path in output_dir.rglob("*") if path.is_file()]
    (output_dir / ".partial-checkpoint-9").mkdir()
    files += [".partial-checkpoint-9/model.safetensors", ".train_log.jsonl.tmp"]
    assert any(name.startswith("logs/") for name in files)
    files.append("tensorboard/events")
    args = (SimpleNamespace(logging_dir=name) for name in ("logs", "tensorboard"))
    patterns = [pattern for one in args for pattern in left_out(one)]
    published = set(filter_repo_objects(files, ignore_patterns=patterns))
    assert {path.partition("/")[0] for path in published} == {
        *("README.md", "model_index.json", "transformer", "vae", "scheduler", "image_encoder", "feature_extractor")
    }


@pytest.mark.slow
def test_compiled_training_makes_the_same_losses(work, tmp_path):
    options = ("--max_train_steps", 3, "--learning_rate", 1e-3)
    train(work, tmp_path / "plain", *options)
    # Compiling in this process: the pool of compilers does not survive the fork.
    words = arguments(work, tmp_path / "compiled", *options, "--torch_compile")
    process = start(tmp_path / "compiled", words, environment={"TORCHINDUCTOR_COMPILE_THREADS": "1"})
    assert process.wait(seconds=580) == 0, process.output[-3000:]
    np.testing.assert_allclose(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), rtol=1e-4)
