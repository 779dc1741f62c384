# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Two processes do what one does with the same global batch; they share the rows and none sees one of the other's."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from script_process import TRAINING, launch_fsdp2, run_in_two
from test_train_vilearn import SCRIPT, arguments, losses, same_weights, start, train, weights
from torch.utils.data import BatchSampler

from diffusers_vilearn import ViLearnImageTo3DPipeline
from diffusers_vilearn.files import read_json_lines
from diffusers_vilearn.models import ViLearnTransformer3DModel
from diffusers_vilearn.training.checkpoints import list_checkpoints
from diffusers_vilearn.training.run import keep_inputs_exact
from diffusers_vilearn.training.stream import BatchesOfRank, GroupedStream, ShuffledStream


def train_in_two(work: Path, output_dir: Path, *more) -> None:
    run_in_two(SCRIPT, *arguments(work, output_dir, *more), log_dir=output_dir)


OPTIONS = ("--max_train_steps", 6, "--learning_rate", 1e-3, "--lr_scheduler", "linear", "--checkpointing_steps", 3)


@pytest.fixture(scope="module")
def alone(work) -> Path:
    train(work, work / "alone", *OPTIONS, "--train_batch_size", 4, "--use_ema", "--validation_steps", 3)
    return work / "alone"


def test_two_processes_make_the_losses_of_one(work, alone, tmp_path):
    options = (*OPTIONS, "--train_batch_size", 2, "--use_ema", "--validation_steps", 3, "--num_validation_images", 1)
    train_in_two(work, tmp_path / "two", *options, "--validation_inference_steps", 1, "--validation_resolution", 16)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(alone), atol=1e-5)
    validation = [
        [record["loss"] for record in read_json_lines(folder / "validation_log.jsonl")]
        for folder in (tmp_path / "two", alone)
    ]
    np.testing.assert_allclose(*validation, atol=1e-5)
    two, one = weights(tmp_path / "two" / "transformer"), weights(alone / "transformer")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-3)
    assert [path.name for path in list_checkpoints(tmp_path / "two")] == ["checkpoint-3", "checkpoint-6"]
    assert len(list((tmp_path / "two" / "samples").glob("*.png"))) == 2

    # One process goes on where two were, at the same learning rate.
    shutil.copytree(tmp_path / "two" / "checkpoint-3", tmp_path / "one" / "checkpoint-3")
    train(work, tmp_path / "one", *OPTIONS, "--train_batch_size", 4, "--use_ema", "--resume_from_checkpoint", "latest")
    np.testing.assert_allclose(losses(tmp_path / "one"), losses(alone)[3:], atol=1e-5)
    resumed = weights(tmp_path / "one" / "transformer")
    for name, value in one.items():
        torch.testing.assert_close(resumed[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_fsdp2_makes_the_losses_of_one_process_and_resumes_exactly(work, alone, tmp_path):
    words = arguments(work, tmp_path / "sharded", *OPTIONS, "--train_batch_size", 2)
    launch_fsdp2(SCRIPT, *words)
    np.testing.assert_allclose(losses(tmp_path / "sharded"), losses(alone), atol=1e-5)
    ViLearnImageTo3DPipeline.from_pretrained(tmp_path / "sharded")

    shutil.copytree(tmp_path / "sharded" / "checkpoint-3", tmp_path / "resumed" / "checkpoint-3")
    words = arguments(work, tmp_path / "resumed", *OPTIONS, "--train_batch_size", 2)
    assert "Resumed from" in launch_fsdp2(SCRIPT, *words, "--resume_from_checkpoint", "latest")
    assert losses(tmp_path / "resumed") == losses(tmp_path / "sharded")[3:]
    for folder in ("transformer", "checkpoint-6/transformer"):
        assert same_weights(tmp_path / "resumed" / folder, tmp_path / "sharded" / "transformer")


@pytest.mark.slow
def test_fsdp2_computes_in_bf16_but_rounds_neither_timesteps_nor_angles(tmp_path):
    script = Path(__file__).with_name("fsdp2_inputs.py")
    said = launch_fsdp2(script, tmp_path, mixed_precision="bf16")
    assert "timestep [997.29" in said and "products torch.bfloat16" in said
    assert said.count("angles {torch.float32}") == 1


def test_fsdp1_rounds_neither():
    plugin = FullyShardedDataParallelPlugin(fsdp_version=1, mixed_precision_policy="bf16")
    keep_inputs_exact(plugin)
    policy = plugin.mixed_precision_policy
    assert policy.param_dtype is torch.bfloat16
    assert not policy.cast_forward_inputs and not policy.cast_root_forward_inputs


@pytest.mark.slow
def test_fsdp2_trains_lora_layers(work, alone, tmp_path):
    data = ("--dataset_name", work / "data", "--pretrained_model_name_or_path", alone, "--rank", 2)
    options = (*data, "--max_train_steps", 2, "--checkpointing_steps", 1, "--logging_steps", 1, "--lr_warmup_steps", 0)
    train_alone = start(tmp_path / "one", [*options, "--output_dir", tmp_path / "one", "--train_batch_size", 4])
    assert train_alone.wait() == 0, train_alone.output[-3000:]
    launch_fsdp2(SCRIPT, *options, "--output_dir", tmp_path / "two", "--train_batch_size", 2)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), atol=1e-5)
    for folder in ("", "checkpoint-1"):
        two, one = (
            load_file(tmp_path / name / folder / "pytorch_lora_weights.safetensors") for name in ("two", "one")
        )
        assert two.keys() == one.keys()
        assert all(torch.isfinite(value).all() for value in two.values())
    ViLearnImageTo3DPipeline.from_pretrained(alone).load_lora_weights(tmp_path / "two")


def test_accumulated_gradients_make_the_losses_of_one_batch(work, alone, tmp_path):
    words = arguments(work, tmp_path / "accumulated", *OPTIONS, "--gradient_accumulation_steps", 2, "--use_ema")
    # what `accelerate launch` makes of the shipped configurations of DeepSpeed
    process = start(tmp_path / "accumulated", words, environment={"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto"})
    assert process.wait() == 0, process.output[-3000:]
    np.testing.assert_allclose(losses(tmp_path / "accumulated"), losses(alone), atol=1e-5)


def test_processes_share_a_shuffled_epoch():
    stream = ShuffledStream(12, seed=0, start=0, stop=24)
    batches = BatchSampler(stream, 2, drop_last=True)
    ranks = [list(BatchesOfRank(batches, rank, 3)) for rank in range(3)]
    assert [len(of_rank) for of_rank in ranks] == [4, 4, 4] == [len(BatchesOfRank(batches, 0, 3))] * 3
    seen = Counter(key for of_rank in ranks for batch in of_rank for key in batch)
    assert seen == Counter({(epoch, index): 1 for epoch in range(2) for index in range(12)})


def test_processes_share_row_groups_and_resume_in_the_middle():
    sizes = np.array([3, 5, 2, 4, 6, 1, 3])
    length = [0, 0]
    groups = [set(), set()]
    firsts = np.cumsum(sizes) - sizes
    for rank in range(2):
        whole = list(GroupedStream(sizes, 0, rank, 2, 0, 60, window=2))
        for position in (0, 7, 23, 59):
            assert list(GroupedStream(sizes, 0, rank, 2, position, 60, window=2)) == whole[position:]
        first = [index for epoch, index in whole if epoch == 0]
        assert len(first) == len(set(first))
        length[rank] = len(first)
        groups[rank] = {int(np.searchsorted(firsts, index, side="right")) for index in first}
        assert [epoch for epoch, _ in whole] == sorted(epoch for epoch, _ in whole)
    assert sum(length) == sizes.sum() and not groups[0] & groups[1]
    with pytest.raises(ValueError, match="7 row groups, fewer than the 8 processes"):
        GroupedStream(sizes, 0, 0, 8, 0, 1)


@pytest.mark.parametrize("path", sorted((TRAINING / "accelerate_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_understands_the_shipped_configurations(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 32 and config.num_machines == 4 and config.mixed_precision == "bf16"
    if path.stem == "fsdp2":
        wrapped = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
        assert wrapped == ViLearnTransformer3DModel._no_split_modules
