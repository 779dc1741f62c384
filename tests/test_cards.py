# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Cards say what the folder and the publisher say, and admit what nobody said."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from diffusers_vilearn import VecSetVAE, ViLearnImageTo3DPipeline
from diffusers_vilearn.cards import (
    FACTS,
    HAS_CODE,
    NEEDS_PACKAGE,
    TEMPLATES,
    leads_inside,
    pictures_in,
    readdress_card,
    write_checkpoint_card,
    write_model_card,
)
from diffusers_vilearn.cli import app
from diffusers_vilearn.custom_code import add_custom_code
from diffusers_vilearn.files import LORA_WEIGHTS, saved_index
from diffusers_vilearn.hub import ensure_card, publish_checkpoint

ROOT = Path(__file__).parents[1]


@pytest.fixture
def saved(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_without_facts_admits_it(saved, pipe):
    card = write_checkpoint_card(saved, repo_id="me/chairs").read_text()
    data = front_matter(card)
    assert (data["library_name"], data["pipeline_tag"]) == ("diffusers", "image-to-3d")
    assert "license" not in data and "widget" not in data and "model-index" not in data
    assert "# chairs" in card and 'from_pretrained("me/chairs")' in card
    for words in ("not said what this was trained on", "not said how", "measured nothing", "named no licence"):
        assert words in card
    count = sum(parameter.numel() for parameter in pipe.transformer.parameters())
    assert f"`ViLearnTransformer3DModel`, {count / 1e6:.1f}M: 1 double and 1 single blocks" in card
    assert "on average 0.250 of the tokens" in card


@pytest.mark.parametrize("template", ["base", "small", "large", "tiny"])
def test_facts_and_figures_are_in_every_card(saved, tmp_path, template):
    facts = dict.fromkeys(FACTS, "said so") | {"data_sources": ["some chairs"], "training": ["some steps"]}
    facts |= {"pictures": [{"path": "a.png", "caption": "A sheet"}], "datasets": ["me/data"], "min_votes": 1}
    facts |= {"example": "b.png", "num_heldout": 3}
    for name in ("a.png", "b.png"):
        (saved / name).touch()
    scores = {"generation": {"iou": {"mean": 0.123456}}}
    (tmp_path / "summary.json").write_text(json.dumps({"scores": scores}))
    (tmp_path / "summary.md").write_text("| iou | 0.123 |")
    card = write_checkpoint_card(saved, facts, evaluation=tmp_path, template=template).read_text()
    for words in ("some chairs", "some steps", "![A sheet](a.png)", "| iou | 0.123 |", "frame**"):
        assert words in card
    assert "{{" not in card and "{%" not in card and "None" not in card
    data = front_matter(card)
    assert data["license"] == "said so" and data["widget"][0]["src"] == "b.png"
    (result,) = data["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "iou", "value": 0.1235}]


def test_lone_models_have_cards_of_their_own(saved):
    vae = write_checkpoint_card(saved / "vae", repo_id="me/vae").read_text()
    assert 'VecSetVAE.from_pretrained("me/vae")' in vae and "ViLearnImageTo3DPipeline" not in vae
    transformer = write_checkpoint_card(saved / "transformer", repo_id="me/t").read_text()
    assert 'ViLearnTransformer3DModel.from_pretrained("me/t")' in transformer
    for name in ("vae", "transformer"):
        add_custom_code(saved / name)
        card = write_checkpoint_card(saved / name, repo_id="me/own").read_text()
        assert 'AutoModel.from_pretrained("me/own", trust_remote_code=True)' in card
        assert "from diffusers_vilearn" not in card


def test_a_card_of_weights_of_a_variant_loads_the_variant(saved, pipe, tmp_path):
    assert "variant=" not in write_checkpoint_card(saved).read_text()
    pipe.save_pretrained(tmp_path / "half", variant="fp16")
    card = write_checkpoint_card(tmp_path / "half").read_text()
    assert 'ViLearnImageTo3DPipeline.from_pretrained("half", variant="fp16")' in card
    readdress_card(tmp_path / "half", ["half"], "me/x", has_code=True)
    card = (tmp_path / "half" / "README.md").read_text()
    assert 'DiffusionPipeline.from_pretrained("me/x", trust_remote_code=True, variant="fp16")' in card


def test_a_card_of_a_pipeline_without_image_encoder_shows_it_tokens(components, saved, tmp_path):
    ensure_card(saved)
    assert 'Image.open("chair.png")' in (saved / "README.md").read_text() and (saved / "example.png").is_file()
    bare = ViLearnImageTo3DPipeline(**components | {"image_encoder": None, "feature_extractor": None})
    bare.save_pretrained(tmp_path / "bare")
    ensure_card(tmp_path / "bare")
    card = (tmp_path / "bare" / "README.md").read_text()
    assert "(1, image tokens, 32)" in card and "image_embeds=tokens" in card
    assert "Image.open" not in card and "from PIL" not in card
    assert not (tmp_path / "bare" / "example.png").exists() and "widget" not in front_matter(card)


def test_a_card_that_was_written_before_the_repository_was_known_loads_from_it(saved):
    assert 'from_pretrained("saved")' in write_checkpoint_card(saved).read_text()
    readdress_card(saved, ["saved"], "me/x", has_code=True)
    card = (saved / "README.md").read_text()
    assert 'DiffusionPipeline.from_pretrained("me/x", trust_remote_code=True)' in card
    assert "ViLearnImageTo3DPipeline.from_pretrained" not in card


def test_published_cards_load_with_the_code_beside_the_weights_or_with_the_package(saved, tmp_path):
    shipped = (ROOT / "checkpoints" / "vilearn-tiny" / "README.md").read_text()
    own = write_checkpoint_card(saved / "vae", repo_id="vae").read_text()
    for card, name, loader in (
        (shipped, "ViLearnImageTo3DPipeline", "DiffusionPipeline"),
        (own, "VecSetVAE", "AutoModel"),
    ):
        (tmp_path / "README.md").write_text(card)
        readdress_card(tmp_path, ["checkpoints/vilearn-tiny", "vae"], "me/x")
        published = (tmp_path / "README.md").read_text()
        assert f'{name}.from_pretrained("me/x")' in published and NEEDS_PACKAGE in published
        (tmp_path / "README.md").write_text(card)
        readdress_card(tmp_path, ["checkpoints/vilearn-tiny", "vae"], "me/x", has_code=True)
        published = (tmp_path / "README.md").read_text()
        assert f'{loader}.from_pretrained("me/x", trust_remote_code=True)' in published
        assert f"from diffusers import {loader}\n" in published and name not in published.partition("## What")[0]
        assert HAS_CODE in published and NEEDS_PACKAGE not in published
    assert "from diffusers_vilearn import extract_mesh" in published and "prepare latents --vae me/x" in published


def test_the_pictures_of_a_card(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nwidget:\n- src: a/widget.png\n---\n"
        '![one](b.png "of a chair") ![two](https://x.org/c.png) ![three](data:image/png;base64,AAAA)'
    )
    pictures = pictures_in(tmp_path / "README.md")
    assert pictures == ["b.png", "https://x.org/c.png", "data:image/png;base64,AAAA", "a/widget.png"]
    assert [path for path in pictures if leads_inside(path)] == ["b.png", "a/widget.png"]
    assert pictures_in(tmp_path / "nothing.md") == []
    (tmp_path / "README.md").write_text("---\ntitle: a: b\n---\n")
    with pytest.raises(ValueError, match=r"front matter of .*README.md is no YAML"):
        pictures_in(tmp_path / "README.md")


def test_the_dual_cloud_is_in_the_example(tmp_path):
    sizes = {"encoder_width": 12, "decoder_width": 12, "num_encoder_layers": 0, "num_decoder_layers": 0}
    VecSetVAE(**sizes, dual_cross_attention=True).save_pretrained(tmp_path)
    assert "vae.encode(points, sharp_points)" in write_checkpoint_card(tmp_path).read_text()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"facts": {"licence": "x"}}, "`facts` has licence; it may have title, license"),
        ({"facts": {"example": "a.png"}}, "names the picture 'a.png'"),
        ({"facts": {"example": "../there.png"}}, "names the picture '../there.png'"),
        ({"facts": ["mit"]}, r"`facts` must be an object such as {\"license\": \"mit\"}, but is \['mit'\]"),
        ({"facts": {"data_sources": "my meshes"}}, "`data_sources` in `facts` must be a list of texts .*'my meshes'"),
        ({"facts": {"datasets": [1]}}, "`datasets` in `facts` must be a list of texts"),
        ({"facts": {"pictures": ["a.png"]}}, r'`pictures` in `facts` must be a list of {"path": ..., "caption"'),
        ({"facts": {"pictures": [{"path": "a.png"}]}}, "`pictures` in `facts` must be a list of"),
        ({"facts": {"num_heldout": "many"}}, "`num_heldout` in `facts` must be a whole number"),
        ({"facts": {"min_votes": True}}, "`min_votes` in `facts` must be text or a whole number"),
        ({"facts": {"title": 1}}, r"`title` in `facts` must be text \(heading of the card\), but is 1"),
        *(
            ({"template": name}, f"`template` is '{name}'; for this checkpoint it may be base, small, large, tiny, or")
            for name in ("huge", "dataset", "run", "vae_run", "vae", "nowhere.md")
        ),
        ({"evaluation": "nowhere"}, "`evaluation` is 'nowhere'"),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_is_written(saved, options, message):
    (saved / ".." / "there.png").touch()
    with pytest.raises(ValueError, match=message):
        write_checkpoint_card(saved, **options)
    assert not (saved / "README.md").exists()


@pytest.mark.parametrize("template", ["small", "base"])
def test_the_card_of_a_lone_vae_is_no_pipelines(saved, template):
    with pytest.raises(ValueError, match=f"`template` is '{template}'; for a lone VAE it may be vae, or the path"):
        write_checkpoint_card(saved / "vae", template=template)
    assert "A VecSet VAE" in write_checkpoint_card(saved / "vae", template="vae").read_text()


def test_a_checkpoint_may_have_a_template_of_its_own(saved, tmp_path):
    (tmp_path / "mine.md").write_text('{% extends "base.md" %}{% block limits %}None known.{% endblock %}')
    assert "None known." in write_checkpoint_card(saved, template=str(tmp_path / "mine.md")).read_text()


def test_facts_that_are_null_are_left_out(saved):
    card = write_checkpoint_card(saved, dict.fromkeys(FACTS)).read_text()
    assert card == write_checkpoint_card(saved).read_text()


def test_an_unknown_template(tmp_path):
    with pytest.raises(ValueError, match="`template` is 'huge'; it may be base, dataset, large"):
        write_model_card(tmp_path, "huge")


def test_another_template_may_extend_ours(tmp_path):
    (tmp_path / "mine.md").write_text('{% extends "base.md" %}{% block use %}Use {{ what }}.{% endblock %}')
    values = dict.fromkeys((*FACTS, "visible_fraction", "figures")) | {"components": {}, "parameters": "1M"}
    card = write_model_card(tmp_path, tmp_path / "mine.md", **values, what="it").read_text()
    assert "Use it." in card and "pipeline_tag: image-to-3d" in card


def test_only_the_names_of_a_run_are_readdressed(tmp_path):
    lines = [f'VecSetVAE.from_pretrained("{name}")' for name in ("dora", "me/base", "vae")]
    (tmp_path / "README.md").write_text("\n".join(lines))
    readdress_card(tmp_path, ("vae", "dora"), "me/mine")
    assert (tmp_path / "README.md").read_text().count('from_pretrained("me/mine")') == 2
    assert 'from_pretrained("me/base")' in (tmp_path / "README.md").read_text()


def test_a_folder_without_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=f"must hold a saved pipeline or model, but '{tmp_path}' holds none.$"):
        write_checkpoint_card(tmp_path)
    with pytest.raises(ValueError, match="but there is no folder 'nowhere'"):
        write_checkpoint_card("nowhere")


def test_what_lies_in_a_folder_instead_of_a_checkpoint_is_named(saved):
    (saved / "model_index.json").unlink()
    expected = f"'{saved}' holds none; did you mean {saved / 'transformer'} or {saved / 'vae'}\\?$"
    with pytest.raises(ValueError, match=expected):
        saved_index(saved)
    with pytest.raises(ValueError, match=r"holds none\.$"):
        saved_index(saved / "image_encoder")
    (saved / LORA_WEIGHTS).touch()
    with pytest.raises(ValueError, match="holds LoRA layers"):
        saved_index(saved)


def publish(*args):
    return CliRunner().invoke(app, ["publish", *map(str, args)])


def test_a_card_is_kept_unless_another_is_asked_for(saved, tmp_path):
    assert f"{saved / 'README.md'}: written" in publish(saved).output
    (saved / "README.md").write_text("mine")
    assert f"{saved / 'README.md'}: kept" in publish(saved).output
    assert (saved / "README.md").read_text() == "mine"
    (tmp_path / "facts.json").write_text(json.dumps({"data_sources": ["some chairs"]}))
    assert "written" in publish(saved, "--facts", tmp_path / "facts.json").output
    assert "- some chairs" in (saved / "README.md").read_text()
    assert "kept" in publish(saved).output and "- some chairs" in (saved / "README.md").read_text()
    assert "written" in publish(saved, "--template", "base").output
    assert "- some chairs" not in (saved / "README.md").read_text()


def test_a_card_alone_is_no_checkpoint(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    assert "holds none" in str(publish(tmp_path).exception)


@pytest.mark.parametrize("option", ["--self-contained", "--private"])
def test_options_of_a_repository_need_one(saved, option):
    assert f"{option} needs a repository id" in str(publish(saved, option).exception)
    assert not (saved / "README.md").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "facts.json' is no readable JSON: "),
        ("[]", "facts.json' must be an object such as"),
        ('{"training": "long"}', "`training` in '.*facts.json' must be a list of texts .*, but is 'long'"),
        ('{"licence": "mit"}', "facts.json' has licence; it may have title"),
    ],
)
def test_a_file_of_facts_that_cannot_be_used_is_named(saved, tmp_path, content, message):
    (tmp_path / "facts.json").write_text(content)
    error = publish(saved, "--facts", tmp_path / "facts.json").exception
    assert isinstance(error, ValueError) and re.search(message, str(error))
    assert not (saved / "README.md").exists() and not (saved / "example.png").exists()


def test_lora_layers_have_the_card_of_their_run(tmp_path):
    (tmp_path / LORA_WEIGHTS).touch()
    with pytest.raises(ValueError, match=r"README\.md beside them, .*: there is none"):
        publish_checkpoint(tmp_path, "me/lora")
    (tmp_path / "README.md").write_text("mine")
    assert ensure_card(tmp_path) is False
    with pytest.raises(ValueError, match="are not for them"):
        ensure_card(tmp_path, template="base")
    with pytest.raises(ValueError, match="LoRA layers have no code"):
        publish_checkpoint(tmp_path, "me/lora", self_contained=True)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_the_command_writes_card_and_example(saved, tmp_path):
    (tmp_path / "facts.json").write_text(json.dumps({"license": "cc0-1.0"}))
    result = publish(saved, "--facts", tmp_path / "facts.json")
    assert result.exit_code == 0, result.output
    data = front_matter((saved / "README.md").read_text())
    assert data["license"] == "cc0-1.0" and data["widget"][0]["src"] == "example.png"
    example = Image.open(saved / "example.png")
    assert example.mode == "RGBA" and example.getchannel("A").getextrema() == (0, 255)


def test_the_shipped_card_is_rendered_from_its_template():
    card = (ROOT / "checkpoints" / "vilearn-tiny" / "README.md").read_text()
    data = front_matter(card)
    assert data["license"] == "apache-2.0" and data["model-index"][0]["name"] == "ViLearn tiny"
    for line in json.loads((ROOT / "training" / "tiny" / "facts.json").read_text())["data_sources"]:
        assert line in card


def test_an_installed_package_has_the_templates(tmp_path):
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("src", "model_cards"):
        shutil.copytree(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(tmp_path)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"diffusers_vilearn/model_cards/{path.name}" for path in TEMPLATES.glob("*.md")} <= names
