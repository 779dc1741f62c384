# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""To the Hub and back over HTTP, each way in a process of its own, through `huggingface_hub` itself."""

import hashlib
import json
import shutil
import textwrap
from pathlib import Path

import datasets
import pytest
import yaml
from environments import CHECKPOINT, PICTURE, run_python
from PIL import Image
from server import HubServer

from diffusers_vilearn.cards import write_model_card
from diffusers_vilearn.data.features import REJECT_FEATURES, latent_features
from diffusers_vilearn.data.shards import write_shard
from diffusers_vilearn.files import LORA_WEIGHTS

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
ENCODER = "image_encoder/model.safetensors"


@pytest.fixture
def hub():
    with HubServer() as hub:
        yield hub


def run(hub, home, code, token=HubServer.token, **kwargs):
    credentials = {} if token is None else {"HF_TOKEN": token}
    return run_python(code, home, HF_ENDPOINT=hub.url, **credentials, **kwargs)


def succeed(*args, **kwargs):
    result = run(*args, **kwargs)
    assert result.returncode == 0, result.stderr
    return result.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_pipeline_and_a_model_go_up_with_cards_and_come_back(hub, tmp_path):
    hub.cut("PUT", "/lfs/", after=500_000)
    push = f"""
        from diffusers_vilearn import ViLearnImageTo3DPipeline
        pipe = ViLearnImageTo3DPipeline.from_pretrained({str(CHECKPOINT)!r})
        pipe.push_to_hub("user/pipeline")
        pipe.vae.push_to_hub("user/vae", private=True)
        pipe.vae.save_pretrained("vae", push_to_hub=True, repo_id="user/vae-saved")
        pipe.transformer.push_to_hub("user/pipeline", subfolder="other")
    """
    succeed(hub, tmp_path, push)
    assert not hub.cuts, "the upload was not cut"
    passed = [entry[2] for entry in hub.requests("PUT", "lfs/")]
    assert any(500_000 <= count < 600_000 for count in passed)

    files = hub.files("user/pipeline")
    assert {"model_index.json", "README.md", "example.png", WEIGHTS, "other/config.json"} <= set(files)
    assert not any(name.endswith((".bin", ".pt", ".ckpt", ".py")) for name in files)
    card = front_matter(files["README.md"].decode())
    assert (card["library_name"], card["pipeline_tag"]) == ("diffusers", "image-to-3d")
    assert card["widget"][0]["src"] == "example.png" and "diffusers-vilearn" in card["tags"]
    assert b'from_pretrained("user/pipeline")' in files["README.md"]
    for name in ("user/vae", "user/vae-saved"):
        assert b"VecSetVAE.from_pretrained(" in hub.files(name)["README.md"]
    assert hub.repositories["models", "user/vae"].private

    repository = hub.repositories["models", "user/pipeline"]
    repository.tags["v1"] = repository.branches["main"]
    repository.commit("main", {"README.md": repository.commits[repository.tags["v1"]]["README.md"]}, "Delete")
    stored = hashlib.sha256(files[WEIGHTS]).hexdigest()
    hub.cut("GET", stored, after=1_000_000, reset=True)
    load = f"""
        import torch
        from diffusers import AutoModel, DiffusionPipeline
        from diffusers_vilearn import VecSetVAE, ViLearnImageTo3DPipeline, ViLearnTransformer3DModel
        ours = ViLearnImageTo3DPipeline.from_pretrained({str(CHECKPOINT)!r})

        def check(theirs, mine):
            assert type(theirs) is type(mine)
            theirs, mine = theirs.state_dict(), mine.state_dict()
            assert theirs.keys() == mine.keys()
            assert all(torch.equal(theirs[name], mine[name]) for name in mine)

        try:
            ViLearnImageTo3DPipeline.from_pretrained("user/pipeline", revision="v1")
        except Exception as error:
            print("first:", type(error).__name__)
        for options in ({{}}, {{"local_files_only": True}}):
            for pipeline_class in (ViLearnImageTo3DPipeline, DiffusionPipeline):
                pipe = pipeline_class.from_pretrained("user/pipeline", revision="v1", **options)
                for name in ("vae", "transformer", "image_encoder"):
                    check(getattr(pipe, name), getattr(ours, name))
            for name in ("user/vae", "user/vae-saved"):
                for model_class in (VecSetVAE, AutoModel):
                    check(model_class.from_pretrained(name, **options), ours.vae)
        other = ViLearnTransformer3DModel.from_pretrained("user/pipeline", revision="v1", subfolder="other")
        check(other, ours.transformer)
        for broken in (lambda: DiffusionPipeline.from_pretrained("user/pipeline", revision="main"),
                       lambda: DiffusionPipeline.from_pretrained("user/pipeline", revision="v2"),
                       lambda: DiffusionPipeline.from_pretrained("user/missing")):
            try:
                broken()
            except Exception as error:
                print(type(error).__name__, type(error.__cause__).__name__, str(error).splitlines()[0])
            else:
                raise AssertionError
    """
    said = succeed(hub, tmp_path / "elsewhere", load)
    assert not hub.cuts, "the download was not cut"
    assert "first: ReadError" in said, "a connection that was reset is an error"
    first, second = hub.requests("GET", stored)
    assert 1_000_000 <= first[2] < second[2] == len(files[WEIGHTS]), "the next call loads what is missing"
    for word in ("EntryNotFound", "RevisionNotFound", "RepositoryNotFound"):
        assert word in said


def test_a_malformed_index_of_shards_is_named(hub, tmp_path):
    folder = tmp_path / "vae"
    shutil.copytree(CHECKPOINT / "vae", folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.rename(folder / "whole.safetensors")
    weights.with_name(f"{weights.name}.index.json").write_text('{"metadata": {}, "weight_map": []}')
    hub.add("user/vae", folder)
    code = """
        from diffusers_vilearn import VecSetVAE
        try:
            VecSetVAE.from_pretrained("user/vae")
        except ValueError as error:
            print(error)
    """
    said = succeed(hub, tmp_path / "home", code)
    assert f"`weight_map` in '{tmp_path / 'home'}" in said
    assert "diffusion_pytorch_model.safetensors.index.json' must be a JSON object, but is []" in said


def test_who_may_not_is_told_so(hub, tmp_path):
    hub.add("user/secret", CHECKPOINT / "vae", private=True)
    hub.add("somebody/else", CHECKPOINT / "vae")
    code = f"""
        from diffusers_vilearn import VecSetVAE
        vae = VecSetVAE.from_pretrained({str(CHECKPOINT / "vae")!r})
        attempts = {{
            "read": lambda: VecSetVAE.from_pretrained("user/secret", token=False),
            "wrong": lambda: vae.push_to_hub("user/new", token="hf_wrong"),
            "anonymous": lambda: vae.push_to_hub("user/new", token=False),
            "foreign": lambda: vae.push_to_hub("somebody/else"),
        }}
        for name, attempt in attempts.items():
            try:
                attempt()
            except OSError as error:
                print(name, type(error).__name__, " ".join(str(error).split()))
    """
    said = dict(line.split(" ", 1) for line in succeed(hub, tmp_path, code).splitlines())
    assert "user/secret" in said["read"] and "private" in said["read"]
    assert "401" in said["wrong"] and "Invalid credentials" in said["wrong"]
    assert "401" in said["anonymous"]
    assert "403" in said["foreign"] and "rights" in said["foreign"]
    assert ("models", "user/new") not in hub.repositories
    assert len(hub.repositories["models", "somebody/else"].commits) == 1


@pytest.fixture
def dataset(tmp_path):
    """Three objects as `prepare` leaves them."""
    folder = tmp_path / "dataset"
    # One that the Hub does not know.
    licences = ("CC0-1.0", "CC0-1.0", "CC-BY-3.0-US")
    common = {"source": "test", "creator": "nobody"}
    shapes = [common | {"uid": f"a{i}", "licence": licence} for i, licence in enumerate(licences)]
    write_shard(folder, "shapes", "train-00000", shapes, datasets.Dataset.from_list(shapes).features)
    write_shard(folder, "rejects", "train-00000", [], REJECT_FEATURES)
    row = {"view": 0, "mirrored": False, "frame": [[1.0] * 4] * 4, "visible_tokens": [0, 2], "visible_share": 0.5}
    row |= {"moments": [[0.5] * 16] * 4, "anchor_agreement": 1.0, "image_embeds": [[0.25] * 8] * 300}
    latents = [row | {"uid": shape["uid"]} for shape in shapes]
    write_shard(folder, "latents", "train-00000", latents, latent_features(8, 8))
    (folder / "preparation.json").write_text(json.dumps({"options": {"num_views": 1}}))
    (folder / "latents" / ".unfinished").touch()
    (folder / ".lock").touch()
    return folder


def test_a_dataset_goes_up_and_streams_back(hub, tmp_path, dataset):
    succeed(hub, tmp_path, f"""
        from diffusers_vilearn.data.command import main
        main(["publish", "--dataset_name", {str(dataset)!r}, "--repo_id", "user/shapes"])
        main(["publish", "--dataset_name", {str(dataset)!r}, "--repo_id", "user/shapes"])
    """)  # fmt: skip
    files = hub.files("user/shapes", "datasets")
    assert {"README.md", "preparation.json", "latents/train-00000.parquet", "shapes/train-00000.parquet"} <= set(files)
    assert not any(".unfinished" in name or ".lock" in name for name in files)
    data = front_matter(files["README.md"].decode())
    assert (data["license"], data["license_name"]) == ("other", "cc-by-3.0-us, cc0-1.0")
    assert b'load_dataset("user/shapes"' in files["README.md"]
    # It has no rows: `load_dataset` would fail on it.
    assert "rejects" not in {config["config_name"] for config in data["configs"]}
    assert len(hub.repositories["datasets", "user/shapes"].commits) == 2, "the second time there was nothing to do"
    code = """
        import datasets, json
        rows = datasets.load_dataset("user/shapes", "latents", split="train", streaming=True)
        print(json.dumps([[row["uid"], row["visible_tokens"], len(row["image_embeds"])] for row in rows]))
    """
    rows = json.loads(succeed(hub, tmp_path / "elsewhere", code))
    assert rows == [[f"a{i}", [0, 2], 300] for i in range(3)]


def test_a_published_folder_carries_its_code_and_facts(hub, tmp_path, bare_python):
    folder = tmp_path / "trained"
    shutil.copytree(CHECKPOINT, folder)
    (folder / "README.md").unlink()
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.bin").touch()
    facts = {"data_sources": ["CC0 chairs"], "command": "accelerate launch train.py", "license": "apache-2.0"}
    facts |= {"example": "pictures/in.png"}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    scores = tmp_path / "scores"
    scores.mkdir()
    (scores / "summary.json").write_text(json.dumps({"scores": {"generation": {"iou": {"mean": 0.25}}}}))
    (scores / "summary.md").write_text("| method | iou |")
    (folder / "pictures").mkdir()
    for name in ("example.png", "pictures/in.png"):
        Image.new("RGB", (64, 64), "red").save(folder / name)
    before = contents(folder)
    arguments = [str(folder), "user/own", "--facts", str(tmp_path / "facts.json"), "--evaluation", str(scores)]
    succeed(hub, tmp_path, f"""
        import sys
        from diffusers_vilearn.cli import main
        sys.argv = ["diffusers-vilearn", "publish", *{arguments!r}, "--self-contained"]
        main()
    """)  # fmt: skip
    assert contents(folder) == before
    files = hub.files("user/own")
    for name in ("example.png", "pictures/in.png"):
        assert files[name] == before[name]
    assert "pipeline.py" in files and "vae/autoencoder_vecset.py" in files
    assert not any(name.startswith("checkpoint-10") for name in files)
    card = files["README.md"].decode()
    assert "CC0 chairs" in card and "accelerate launch train.py" in card and "| method | iou |" in card
    data = front_matter(card)
    assert data["license"] == "apache-2.0"
    assert data["model-index"][0]["results"][0]["metrics"] == [{"type": "iou", "value": 0.25}]

    stored = hashlib.sha256(files[ENCODER]).hexdigest()
    hub.cut("GET", stored, after=12_000_000)  # `huggingface_hub` keeps pieces of 10 MiB
    code = """
        import importlib.util
        assert importlib.util.find_spec("diffusers_vilearn") is None
        from diffusers import DiffusionPipeline
        try:
            DiffusionPipeline.from_pretrained("user/own")
        except ValueError as error:
            assert "trust_remote_code=True" in str(error)
        pipe = DiffusionPipeline.from_pretrained("user/own", trust_remote_code=True)
        print(type(pipe).__name__, type(pipe.vae).__module__)
    """
    said = succeed(hub, tmp_path / "elsewhere", code, python=bare_python)
    assert "ViLearnImageTo3DPipeline diffusers_modules" in said
    first, second = hub.requests("GET", stored)
    assert second[3] is not None, "a download whose connection was closed goes on where it was"
    assert 12_000_000 <= first[2] and first[2] + second[2] < 2 * len(files[ENCODER])


@pytest.mark.parametrize("self_contained", [False, True])
def test_the_card_of_a_run_loads_what_was_published(hub, tmp_path, self_contained):
    folder = tmp_path / "run"
    shutil.copytree(CHECKPOINT, folder)
    card = """
        from diffusers_vilearn import ViLearnImageTo3DPipeline

        pipe = ViLearnImageTo3DPipeline.from_pretrained("run")
    """
    (folder / "README.md").write_text(textwrap.dedent(card))
    succeed(hub, tmp_path, f"""
        from diffusers_vilearn.hub import publish_checkpoint
        publish_checkpoint({str(folder)!r}, "user/own", self_contained={self_contained})
    """)  # fmt: skip
    assert (folder / "README.md").read_text() == textwrap.dedent(card), "the folder itself is not changed"
    code = hub.files("user/own")["README.md"].decode()
    assert ("diffusers_vilearn" in code) != self_contained
    assert "ViLearnImageTo3DPipeline" in succeed(hub, tmp_path / "elsewhere", code + "print(type(pipe).__name__)")


def test_the_lora_layers_of_a_run_go_up_with_its_card_and_come_back(hub, tmp_path):
    # the run's folder lies in one that has the name of its base
    folder = tmp_path / "base" / "lora"
    folder.mkdir(parents=True)
    succeed(hub, tmp_path, f"""
        import torch
        from peft import LoraConfig, get_peft_model_state_dict
        from diffusers_vilearn import ViLearnImageTo3DPipeline
        pipe = ViLearnImageTo3DPipeline.from_pretrained({str(CHECKPOINT)!r})
        pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
        layers = get_peft_model_state_dict(pipe.transformer)
        pipe.save_lora_weights({str(folder)!r}, transformer_lora_layers=layers)
    """)  # fmt: skip
    config = {"frame": "view", "visibility_encoding": "va_rope", "visible_fraction": 0.3, "parameters": "1M"}
    run = {"dataset": "d", "seed": 0, "learning_rate": 1e-4, "condition_dropout": 0.1, "ema": False, "stages": []}
    names = {"title": "lora", "repo_id": "lora", "base": "base", "lora_rank": 2, "command": "train"}
    write_model_card(folder, "run", **config, **run, **names)
    with open(folder / "README.md", "a") as card:
        card.write("![samples](samples/a.png)\n")
    for name in ("samples/a.png", "samples/b.png", "checkpoint-1/optimizer.bin", "train_log.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    before = contents(folder)
    said = succeed(hub, tmp_path, f"""
        import sys
        from diffusers_vilearn.cli import main
        sys.argv = ["diffusers-vilearn", "publish", {str(folder)!r}, "user/lora"]
        main()
    """)  # fmt: skip
    assert "user/lora" in said and contents(folder) == before
    files = hub.files("user/lora")
    assert set(files) - {".gitattributes"} == {LORA_WEIGHTS, "README.md", "samples/a.png"}
    card = files["README.md"].decode()
    assert 'pipe.load_lora_weights("user/lora")' in card and 'from_pretrained("base")' in card
    said = succeed(hub, tmp_path / "elsewhere", f"""
        import torch
        from safetensors.torch import load_file
        from diffusers_vilearn import ViLearnImageTo3DPipeline
        pipe = ViLearnImageTo3DPipeline.from_pretrained({str(CHECKPOINT)!r})
        pipe.load_lora_weights("user/lora")
        had = load_file({str(folder / LORA_WEIGHTS)!r})
        has = [value for name, value in pipe.transformer.state_dict().items() if "lora_" in name]
        print(len(had) == len(has) > 0, all(any(torch.equal(one, value) for value in has) for one in had.values()))
    """)  # fmt: skip
    assert said.strip() == "True True"


def test_the_command_says_what_the_hub_does_not_have(hub, tmp_path):
    hub.add("user/vae", CHECKPOINT / "vae")
    shutil.copytree(CHECKPOINT, tmp_path / "part", ignore=shutil.ignore_patterns("diffusion_pytorch_model.*"))
    hub.add("user/part", tmp_path / "part")
    code = f"""
        import sys
        from diffusers_vilearn.cli import main
        for name in ("user/missing", "user/vae", "user/part"):
            sys.argv = ["diffusers-vilearn", "generate", {str(PICTURE)!r}, "-o", "a.glb", "--checkpoint", name]
            try:
                main()
            except SystemExit as end:
                # a message, which a process that ends with it prints, with status 1
                assert isinstance(end.code, str)
                print(end.code, file=sys.stderr)
            else:
                raise AssertionError
    """
    result = run(hub, tmp_path / "home", code)
    assert result.returncode == 0, result.stderr
    missing, vae, part = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert missing.startswith("Error: There is no folder 'user/missing', and no pipeline of that name could be")
    assert vae == missing.replace("missing", "vae")
    assert "Error no file named diffusion_pytorch_model" in part
