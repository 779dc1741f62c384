# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that somebody made to hurt: each ends in an error that says what is wrong, in no memory to speak of.

Where diffusers, transformers, safetensors or torch refuse by themselves, the test pins that they do.
"""

import json
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from pickle import UnpicklingError

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from diffusers_vilearn import VecSetVAE, ViLearnImageTo3DPipeline, ViLearnTransformer3DModel

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "vilearn-tiny"
WEIGHTS = "diffusion_pytorch_model.safetensors"
# Above what importing takes. diffusers makes every layer, untouched, before it drops its memory; the widest that the
# limits allow is 1 GiB. What the cases ask for is many times as large.
HEADROOM = 4 << 30


class Payload:
    """What a pickle would run."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def configuration(name: str, **entries):
    def change(folder: Path):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return change


def text(name: str, content: str):
    return lambda folder: (folder / name).write_text(content)


def sharded(index: str, weights: str = f"vae/{WEIGHTS}"):
    """Weights by way of an index."""

    def change(folder: Path):
        (folder / weights).rename((folder / weights).with_name("whole.safetensors"))
        (folder / f"{weights}.index.json").write_text(index)

    return change


def shards(weight_map, **kwargs):
    return sharded(json.dumps({"metadata": {}, "weight_map": weight_map}), **kwargs)


def content(change_bytes):
    """The weights of the VAE, other bytes."""

    def change(folder: Path):
        path = folder / "vae" / WEIGHTS
        path.write_bytes(change_bytes(path.read_bytes()))

    return change


def header(change_header):
    """The weights of the VAE under another header."""

    def change_bytes(data: bytes) -> bytes:
        (size,) = struct.unpack("<Q", data[:8])
        entries = json.loads(data[8 : 8 + size])
        change_header(entries)
        encoded = json.dumps(entries).encode()
        return struct.pack("<Q", len(encoded)) + encoded + data[8 + size :]

    return content(change_bytes)


def tensor(**entries):
    return header(lambda tensors: tensors["post_quant.weight"].update(entries))


def overlap(tensors):
    first, second = [name for name in tensors if name != "__metadata__"][:2]
    tensors[second] = dict(tensors[first])


def rename(tensors):
    tensors["another.weight"] = tensors.pop("post_quant.weight")


def encoder(change_state):
    """Other weights of the image encoder."""

    def change(folder: Path):
        path = folder / ENCODER_WEIGHTS
        save_file(change_state(load_file(path)), path, {"format": "pt"})

    return change


def without_attention(state):
    return {name: value for name, value in state.items() if not re.search(r"layer\.3\.attention.*\.weight", name)}


def integers(state):
    return {name: (100 * value).to(torch.int32) for name, value in state.items()}


def in_torch_file(load, weights: str, save_as: str):
    """The weights as a torch file."""

    def change(folder: Path):
        state = load(load_file(folder / weights))
        (folder / weights).unlink()
        torch.save(state, (folder / weights).with_name(save_as))

    return change


def pickled(folder: Path):
    (folder / "vae" / WEIGHTS).unlink()
    torch.save({"post_quant.weight": Payload()}, folder / "vae" / "diffusion_pytorch_model.bin")


def pickled_encoder(folder: Path):
    (folder / "image_encoder" / "model.safetensors").unlink()
    torch.save({"layernorm.weight": Payload()}, folder / "image_encoder" / "pytorch_model.bin")


def vae(folder):
    return VecSetVAE.from_pretrained(folder / "vae")


def transformer(folder):
    return ViLearnTransformer3DModel.from_pretrained(folder / "transformer")


def pipeline(folder):
    return ViLearnImageTo3DPipeline.from_pretrained(folder)


def any_pipeline(folder):
    return DiffusionPipeline.from_pretrained(folder)


VAE, TRANSFORMER, INDEX = "vae/config.json", "transformer/config.json", "model_index.json"
ENCODER, SCHEDULER = "image_encoder/config.json", "scheduler/scheduler_config.json"
PREPROCESSOR = "feature_extractor/preprocessor_config.json"
ENCODER_WEIGHTS = "image_encoder/model.safetensors"
# name -> how the checkpoint is changed, how it is loaded, what the error says
SIZES = {
    "width": (configuration(VAE, decoder_width=10**9), vae, r"`decoder_width` is 1000000000; .* \[1, 8192\]"),
    "vae layers": (configuration(VAE, num_decoder_layers=10**6), vae, "`num_decoder_layers` is 1000000"),
    "frequencies": (configuration(VAE, num_freqs=10**7), vae, "`num_freqs` is 10000000"),
    "mlp": (configuration(VAE, mlp_ratio=1e9), vae, "`mlp_ratio` is 1000000000.0"),
    "heads": (configuration(TRANSFORMER, num_attention_heads=10**8), transformer, "`num_attention_heads` is 1"),
    "layers": (configuration(TRANSFORMER, num_layers=10**6), transformer, "`num_layers` is 1000000"),
    "layers, any pipeline": (configuration(TRANSFORMER, num_layers=10**6), any_pipeline, "`num_layers` is 1000000"),
    "width above the weights'": (configuration(VAE, decoder_width=8192), vae, "expected shape"),
    "layers above the weights'": (configuration(VAE, num_decoder_layers=40), vae, r"lack decoder\.blocks\.\d+"),
    "encoder width": (configuration(ENCODER, hidden_size=10**9), pipeline, f"{ENCODER}: `hidden_size` is 1000000000"),
    "encoder layers": (configuration(ENCODER, num_hidden_layers=10**6), pipeline, "`num_hidden_layers` is 1000000"),
    "image": (configuration(PREPROCESSOR, crop_size={"height": 10**7, "width": 1}), pipeline, "`crop_size` is"),
    "timesteps": (configuration(SCHEDULER, num_train_timesteps=10**10), pipeline, "`num_train_timesteps` is"),
    "header of 2^60 bytes": (content(lambda data: struct.pack("<Q", 1 << 60) + data[8:]), vae, "Unable to load"),
    "shape": (tensor(shape=[10**9, 10**9]), vae, "Unable to load"),
    "shape beyond 64 bits": (tensor(shape=[2**40, 2**40]), vae, "Unable to load"),
    "end beyond the file": (tensor(data_offsets=[0, 1 << 50]), vae, "Unable to load"),
}
OTHERS = {
    "no heads": (configuration(VAE, encoder_heads=0), vae, "`encoder_heads` is 0"),
    "negative": (configuration(VAE, latent_channels=-4), vae, "`latent_channels` is -4"),
    "words": (configuration(VAE, encoder_width="768"), vae, "`encoder_width` is '768'; it must be an integer"),
    "not finite": (configuration(VAE, bounds=[-1, -1, float("nan"), 1, 1, 1]), vae, "`bounds` is nan"),
    "no object": (text(VAE, "[1]"), vae, "must be a JSON object, but is list"),
    "nested": (text(VAE, '{"a":' * 100_000), vae, "nested too deeply"),
    "no JSON": (text(VAE, "{"), vae, "not a valid JSON file"),
    "index of a list": (text(INDEX, "[]"), pipeline, "must be a JSON object, but is list"),
    "index of numbers": (
        configuration(INDEX, vae=3),
        pipeline,
        r"`vae` in model_index.json must be \[library, class\]",
    ),
    "class of a list": (configuration(VAE, _class_name=[]), vae, r"`_class_name` .*/vae' must be a string.* is \[\]"),
    "class of an object": (configuration(TRANSFORMER, _class_name={"a": 1}), transformer, "`_class_name` .* must be"),
    "class in the index": (configuration(INDEX, _class_name=["a"]), pipeline, r"`_class_name` .* but is \['a'\]"),
    "class of the scheduler": (configuration(SCHEDULER, _class_name=[1, 2]), pipeline, r"`_class_name` .*\[1, 2\]"),
    "a function": (configuration(INDEX, vae=["os", "system"]), pipeline, "any of the loading methods"),
    "a process": (configuration(INDEX, vae=["subprocess", "Popen"]), any_pipeline, "any of the loading methods"),
    "a module to import": (configuration(INDEX, vae=["antigravity", "x"]), pipeline, "has not been imported"),
    "a function as pipeline": (configuration(INDEX, _class_name="eval"), any_pipeline, "no attribute eval"),
    "shard elsewhere": (shards({"post_quant.weight": "../../../etc/passwd"}), vae, "contains a path separator"),
    "shard anywhere": (shards({"post_quant.weight": "/etc/passwd"}), vae, "contains a path separator"),
    "shard without a name": (shards({"post_quant.weight": 3}), vae, "without a path separator, but is 3"),
    "shard of shards": (shards({"post_quant.weight": ["a"]}), vae, r"without a path separator, but is \['a'\]"),
    "shards in a list": (shards(["a"]), vae, r"`weight_map` in '.*index.json' must be a JSON object, but is \['a'\]"),
    "shards of nothing": (sharded("{}"), vae, "`metadata` in '.*index.json' must be a JSON object, but is None"),
    "list of shards": (sharded("[]"), vae, "index.json' must be a JSON object, but is list"),
    "list of shards, any pipeline": (sharded("[]"), any_pipeline, "index.json' must be a JSON object, but is list"),
    "shards, no JSON": (sharded("{"), vae, "index.json' is no readable JSON: Expecting"),
    "shards, nested": (sharded('{"a":' * 100_000), vae, "index.json' is no readable JSON: maximum recursion"),
    "shards of the encoder": (
        sharded("[]", ENCODER_WEIGHTS),
        pipeline,
        "index.json' must be a JSON object, but is list",
    ),
    "shard of the encoder elsewhere": (
        shards({"layernorm.weight": "../vae/config.json"}, weights=ENCODER_WEIGHTS),
        pipeline,
        "without a path separator, but is '../vae/config.json'",
    ),
    "shard missing": (shards({"post_quant.weight": "b.safetensors"}), vae, "does not appear to have a file named"),
    "truncated": (content(lambda data: data[: len(data) // 2]), vae, "Unable to load"),
    "empty": (content(lambda data: b""), vae, "Unable to load"),
    "overlap": (header(overlap), vae, "Unable to load"),
    "unknown dtype": (tensor(dtype="X"), vae, "Unable to load"),
    "integers": (tensor(dtype="I16"), vae, "post_quant.weight in .* is of I16; weights must be floating-point"),
    "transposed": (tensor(shape=[16, 128]), vae, "expected shape"),
    "renamed": (header(rename), vae, r"lack post_quant\.weight of VecSetVAE"),
    "encoder without weights": (encoder(without_attention), pipeline, "image_encoder lacks 4 of its [0-9]+ weights"),
    "encoder of integers": (encoder(integers), pipeline, "is of I32; weights must be floating-point"),
    "integers in a torch file": (
        in_torch_file(integers, f"vae/{WEIGHTS}", "diffusion_pytorch_model.bin"),
        vae,
        r"is of torch\.int32; weights must be floating-point",
    ),
    "encoder without weights in a torch file": (
        in_torch_file(without_attention, ENCODER_WEIGHTS, "pytorch_model.bin"),
        pipeline,
        "image_encoder lacks 4 of its [0-9]+ weights",
    ),
    "pickle": (pickled, vae, "Unable to load"),
    "pickle in a pipeline": (pickled, any_pipeline, "Unable to load"),
    "pickle of the encoder": (pickled_encoder, pipeline, "Unable to load"),
}
CASES = SIZES | OTHERS


def load_hostile(name: str, scratch: Path):
    change, load, _ = CASES[name]
    folder = scratch / name.replace(" ", "-")
    shutil.copytree(CHECKPOINT, folder)
    change(folder)
    return load(folder)


@pytest.mark.parametrize("name", OTHERS)
def test_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError, AttributeError, UnpicklingError), match=CASES[name][2]):
        load_hostile(name, tmp_path)
    assert not (tmp_path / "unpickled").exists()


def test_sizes_are_refused_before_memory_is_asked_for(tmp_path):
    """In a process that has little more address space than importing takes."""
    result = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    for name, (_, _, message) in SIZES.items():
        kind, words = said.pop(name)
        assert kind in ("ValueError", "OSError"), (name, kind, words)
        assert re.search(message, words), (name, words)
    assert said.pop("the checkpoint itself")[0] == "ViLearnImageTo3DPipeline"


def _limited(scratch: Path) -> dict[str, tuple[str, str]]:
    """Case -> error and its words, loaded one by one under a limit of the address space."""
    said = {"the checkpoint itself": (type(pipeline(CHECKPOINT)).__name__, "")}
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + HEADROOM,) * 2)
    for name in SIZES:
        try:
            load_hostile(name, scratch)
        except Exception as error:
            said[name] = (type(error).__name__, str(error))
        shutil.rmtree(scratch / name.replace(" ", "-"))
    return said


if __name__ == "__main__":
    print(json.dumps(_limited(Path(sys.argv[1]))))
