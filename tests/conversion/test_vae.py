# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in every project's layout, made from a `VecSetVAE` by the rules of that layout, and back."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from diffusers_vilearn import VecSetVAE, ViLearnImageTo3DPipeline
from diffusers_vilearn.cli import app
from diffusers_vilearn.conversion import convert_vae_checkpoint, convert_vae_state_dict

SMALL = {
    "latent_channels": 8,
    "num_freqs": 8,
    "encoder_width": 48,
    "encoder_heads": 3,
    "num_encoder_layers": 2,
    "decoder_width": 48,
    "decoder_heads": 3,
    "num_decoder_layers": 3,
}
HUNYUAN = SMALL | {"point_channels": 7, "sharp_flag": True, "qk_norm": True, "norm_eps": 1e-6}
TURBO = {
    "encoder_width": 64,
    "encoder_heads": 4,
    "decoder_width": 64,
    "decoder_heads": 4,
    "geometry_width": 32,
    "geometry_heads": 2,
    "geometry_mlp_ratio": 1,
    "geometry_norm_out": False,
    "geometry_qk_norm": False,
    "geometry_latents_proj": True,
}
CONFIGS = {
    "dora": SMALL | {"dual_cross_attention": True},
    "step1x-3d": SMALL | {"dual_cross_attention": True},
    "triposg": SMALL | {"decoder_width": 72},
    "hunyuan3d-2": HUNYUAN,
    "hunyuan3d-2-turbo": HUNYUAN
    | {"encoder_width": 64, "encoder_heads": 4, "decoder_width": 64, "decoder_heads": 4}
    | TURBO,
    "hunyuan3d-2.1": HUNYUAN,
}
HEADS = {
    source: {f"heads_{side}": config[f"{side}_heads"] for side in ("encoder", "decoder")}
    for source, config in CONFIGS.items()
}
CROSS = {"norm1": "ln_1", "norm_context": "ln_2", "norm2": "ln_3"}
SELF = {"norm1": "ln_1", "norm2": "ln_2"}


def fuse(parts: list[torch.Tensor], heads: int) -> torch.Tensor:
    """Projections -> one whose rows are (heads, parts, head_dim)."""
    return torch.cat([row for head in zip(*(part.chunk(heads) for part in parts)) for row in head])


def build(source: str) -> VecSetVAE:
    torch.manual_seed(0)
    vae = VecSetVAE(**CONFIGS[source])
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return vae.eval()


def stored(vae: VecSetVAE, source: str) -> dict[str, torch.Tensor]:
    """The parameters of `vae` in the layout of a project, by the text of its rules: block by block, layer by layer."""
    ours = vae.state_dict()
    theirs = {}

    def layer(old: str, new: str, sign: int = 1):
        for kind in ("weight", "bias"):
            if f"{new}.{kind}" in ours:
                theirs[f"{old}.{kind}"] = sign * ours[f"{new}.{kind}"]

    def block(old: str, new: str, heads: int, is_cross: bool):
        q, k, v = (ours[f"{new}.attn.to_{kind}.weight"] for kind in "qkv")
        if source == "triposg":
            attention = f"{old}.attn2" if is_cross else f"{old}.attn1"
            fused = fuse([k, v] if is_cross else [q, k, v], heads).chunk(2 if is_cross else 3)
            names = "kv" if is_cross else "qkv"
            theirs.update({f"{attention}.to_{name}.weight": part for name, part in zip(names, fused)})
            if is_cross:
                theirs[f"{attention}.to_q.weight"] = q
                layer(f"{attention}.norm_cross", f"{new}.norm_context")
            layer(f"{old}.norm2" if is_cross else f"{old}.norm1", f"{new}.norm1")
            layer(f"{old}.norm3", f"{new}.norm2")
            layer(f"{attention}.to_out.0", f"{new}.attn.to_out.0")
            layer(f"{old}.ff.net.0.proj", f"{new}.ff.net.0.proj")
            layer(f"{old}.ff.net.2", f"{new}.ff.net.2")
            return
        if is_cross:
            theirs[f"{old}.attn.c_q.weight"] = q
            theirs[f"{old}.attn.c_kv.weight"] = fuse([k, v], heads)
        else:
            theirs[f"{old}.attn.c_qkv.weight"] = fuse([q, k, v], heads)
        layer(f"{old}.attn.attention.q_norm", f"{new}.attn.norm_q")
        layer(f"{old}.attn.attention.k_norm", f"{new}.attn.norm_k")
        for norm, name in (CROSS if is_cross else SELF).items():
            layer(f"{old}.{name}", f"{new}.{norm}")
        layer(f"{old}.attn.c_proj", f"{new}.attn.to_out.0")
        layer(f"{old}.mlp.c_fc", f"{new}.ff.net.0.proj")
        layer(f"{old}.mlp.c_proj", f"{new}.ff.net.2")

    config = vae.config
    heads, decoder_heads = config.encoder_heads, config.decoder_heads
    geometry_heads = config.geometry_heads or decoder_heads
    if source == "triposg":
        layer("encoder.proj_in", "encoder.proj_in")
        block("encoder.blocks.0", "encoder.cross_block", heads, True)
        for i in range(config.num_encoder_layers):
            block(f"encoder.blocks.{i + 1}", f"encoder.blocks.{i}", heads, False)
        layer("encoder.norm_out", "encoder.norm_out")
        layer("quant", "quant")
        layer("post_quant", "post_quant")
        for i in range(config.num_decoder_layers):
            block(f"decoder.blocks.{i}", f"decoder.blocks.{i}", decoder_heads, False)
        block(f"decoder.blocks.{config.num_decoder_layers}", "geometry.cross_block", geometry_heads, True)
        layer("decoder.proj_query", "geometry.proj_query")
        layer("decoder.norm_out", "geometry.norm_out")
        layer("decoder.proj_out", "geometry.proj_out", sign=-1)
        return theirs
    clouds = {"": ""}
    if config.dual_cross_attention:
        clouds["_sharp"] = "1" if source == "dora" else "_sharp"
    for new, old in clouds.items():
        layer(f"encoder.input_proj{old}", f"encoder.proj_in{new}")
        block(f"encoder.cross_attn{old}", f"encoder.cross_block{new}", heads, True)
    for i in range(config.num_encoder_layers):
        block(f"encoder.self_attn.resblocks.{i}", f"encoder.blocks.{i}", heads, False)
    layer("encoder.ln_post", "encoder.norm_out")
    layer("pre_kl", "quant")
    layer("post_kl", "post_quant")
    for i in range(config.num_decoder_layers):
        block(f"transformer.resblocks.{i}", f"decoder.blocks.{i}", decoder_heads, False)
    head = "geo_decoder" if source.startswith("hunyuan") else "decoder"
    layer(f"{head}.query_proj", "geometry.proj_query")
    layer(f"{head}.latents_proj", "geometry.proj_latents")
    block(f"{head}.cross_attn_decoder", "geometry.cross_block", geometry_heads, True)
    layer(f"{head}.ln_post", "geometry.norm_out")
    layer(f"{head}.output_proj", "geometry.proj_out")
    return {("shape_model." if source == "dora" else "") + name: value for name, value in theirs.items()}


def load(config: dict, state_dict: dict) -> VecSetVAE:
    vae = VecSetVAE.from_config(config)
    vae.load_state_dict(state_dict, strict=True)
    return vae.eval()


@pytest.mark.parametrize("source", CONFIGS)
def test_weights_and_configuration_come_back(source):
    vae = build(source)
    config, state_dict = convert_vae_state_dict(stored(vae, source), source, **HEADS[source])
    again = load(config, state_dict)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in vae.state_dict().items())
    for name, value in CONFIGS[source].items():
        assert again.config[name] == value, name
    torch.manual_seed(1)
    points, sharp = torch.rand(1, 60, vae.config.point_channels) - 0.5, None
    if vae.config.dual_cross_attention:
        sharp = torch.rand(1, 40, vae.config.point_channels) - 0.5
    with torch.no_grad():
        first, second = (model.encode_with_anchors(points, sharp, num_tokens=12)[0] for model in (vae, again))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("source", CONFIGS)
def test_published_facts_are_in_the_configuration(source):
    config, _ = convert_vae_state_dict(stored(build(source), source), source, **HEADS[source])
    published = {
        "dora": {"num_tokens": 2048, "bounds": 1.05, "truncation": 0.015},
        "step1x-3d": {"num_tokens": 2048, "bounds": 1.05, "truncation": 0.01},
        "triposg": {"num_tokens": 2048, "bounds": 1.005},
        "hunyuan3d-2": {"num_tokens": 3072, "bounds": 1.01, "norm_eps": 1e-6, "scaling_factor": 0.9990943042622529},
        "hunyuan3d-2.1": {"num_tokens": 4096, "bounds": 1.01, "norm_eps": 1e-6, "scaling_factor": 1.0039506158752403},
    }
    facts = published[source.removesuffix("-turbo")]
    assert {name: config[name] for name in facts} == facts
    assert ("truncation" in config) == ("truncation" in facts)


@pytest.mark.parametrize("source", CONFIGS)
def test_a_decoder_alone_decodes_and_says_that_it_cannot_encode(source):
    vae = build(source)
    state_dict = {
        name: value
        for name, value in stored(vae, source).items()
        if not name.removeprefix("shape_model.").startswith(("encoder.", "pre_kl", "quant"))
    }
    decoder = load(*convert_vae_state_dict(state_dict, source, **HEADS[source]))
    latents, xyz = torch.randn(1, 12, 8), torch.rand(1, 9, 3) - 0.5
    with torch.no_grad():
        expected, field = (model.query(xyz, model.decode(latents)) for model in (vae, decoder))
    torch.testing.assert_close(field, expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="no encoder"):
        decoder.encode(torch.rand(1, 60, decoder.config.point_channels))


def test_a_missing_an_unknown_or_a_foreign_parameter_is_an_error():
    state_dict = stored(build("dora"), "dora")
    with pytest.raises(ValueError, match="has the unknown extra"):
        convert_vae_state_dict(state_dict | {"shape_model.extra": torch.zeros(1)}, "dora", **HEADS["dora"])
    fewer = {name: value for name, value in state_dict.items() if name != "shape_model.encoder.ln_post.bias"}
    with pytest.raises(ValueError, match=r"lacks encoder\.ln_post\.bias"):
        convert_vae_state_dict(fewer, "dora", **HEADS["dora"])
    with pytest.raises(ValueError, match="not that of a triposg VAE"):
        convert_vae_state_dict(state_dict, "triposg")
    with pytest.raises(ValueError, match="`source` is 'dora2'"):
        convert_vae_state_dict(state_dict, "dora2")
    with pytest.raises(ValueError, match="widht cannot be overridden"):
        convert_vae_state_dict(state_dict, "dora", widht=3)
    with pytest.raises(ValueError, match="cannot be shared by 5 heads"):
        convert_vae_state_dict(state_dict, "dora", encoder_heads=5, decoder_heads=3)


def test_files_are_read_without_unpickling_anything_else(tmp_path):
    vae = build("hunyuan3d-2")
    state_dict = {name: value.contiguous() for name, value in stored(vae, "hunyuan3d-2").items()}
    save_file(state_dict, tmp_path / "model.safetensors")
    torch.save({"model": {"x": torch.zeros(1)}, "vae": state_dict}, tmp_path / "model.ckpt")
    for name in ("model.safetensors", "model.ckpt"):
        again = convert_vae_checkpoint(tmp_path / name, "hunyuan3d-2", **HEADS["hunyuan3d-2"])
        assert all(torch.equal(value, again.state_dict()[key]) for key, value in vae.state_dict().items())

    torch.save({"state_dict": state_dict, "callback": Unwanted()}, tmp_path / "unsafe.ckpt")
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        convert_vae_checkpoint(tmp_path / "unsafe.ckpt", "hunyuan3d-2")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        convert_vae_checkpoint(tmp_path / "cut.safetensors", "hunyuan3d-2")
    with pytest.raises(ValueError, match="There is no checkpoint"):
        convert_vae_checkpoint(tmp_path / "absent.safetensors", "dora")


FIXTURES = Path(__file__).parents[1] / "fixtures" / "vae"


def read_fixture(source: str) -> tuple[dict, dict, dict, dict]:
    """State dict in the project's layout, inputs, the outputs of the project's code, and its configuration."""
    with safe_open(FIXTURES / f"{source}.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        config = json.loads(file.metadata()["config"])
    parts = (
        {name.removeprefix(f"{part}/"): value for name, value in tensors.items() if name.startswith(f"{part}/")}
        for part in ("state_dict", "input", "expected")
    )
    return *parts, config


@pytest.mark.parametrize("source", ["dora", "triposg"])
def test_agrees_with_the_code_of_the_project(source):
    state_dict, inputs, expected, facts = read_fixture(source)
    heads = {name: facts[name] for name in ("heads_encoder", "heads_decoder")}
    vae = load(*convert_vae_state_dict(state_dict, source, **heads))
    clouds = (inputs["points"], inputs.get("sharp_points"))
    index = (inputs["query_index"][None], inputs.get("sharp_query_index"))
    index = (index[0], None if index[1] is None else index[1][None])
    with torch.no_grad():
        hidden = vae.decode(inputs["latents"])
        results = {
            "moments": vae._encode(*clouds, *index),
            "hidden": hidden,
            "field": vae.query(inputs["xyz"], hidden),
        }
    for name, result in results.items():
        torch.testing.assert_close(result, expected[name], rtol=0, atol=1e-5)


def test_a_vae_of_triposg_in_our_pipeline_makes_a_mesh_of_an_image(components, image, tmp_path):
    state_dict, *_ = read_fixture("triposg")
    save_file(state_dict, tmp_path / "diffusion_pytorch_model.safetensors")
    vae = convert_vae_checkpoint(tmp_path, "triposg", heads_encoder=3, heads_decoder=3)
    vae.save_pretrained(tmp_path / "vae")
    vae = VecSetVAE.from_pretrained(tmp_path / "vae")
    pipe = ViLearnImageTo3DPipeline(**components | {"vae": vae})
    pipe.set_progress_bar_config(disable=True)

    def run(output_type):
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 2, "num_tokens": 20, "resolution": 24, "output_type": output_type}
        return pipe(image, generator=generator, **options).meshes

    with torch.no_grad():  # random weights: half of the box inside, so that there is a surface
        vae.geometry.proj_out.bias -= run("pt").median()
    (mesh,) = run("trimesh")
    assert len(mesh.faces) > 100 and mesh.is_watertight
    assert abs(mesh.vertices).max() == pytest.approx(1.005, abs=1e-3)


def test_the_vae_in_a_bundle_of_hunyuan3d(tmp_path):
    vae = build("hunyuan3d-2")
    bundle = {f"vae.{name}": value.contiguous() for name, value in stored(vae, "hunyuan3d-2").items()}
    save_file(bundle | {"model.x": torch.zeros(1), "conditioner.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    again = convert_vae_checkpoint(tmp_path / "model.safetensors", "hunyuan3d-2", **HEADS["hunyuan3d-2"])
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in vae.state_dict().items())
    with pytest.raises(ValueError, match="has the unknown other"):
        convert_vae_state_dict(bundle | {"other": torch.zeros(1)}, "hunyuan3d-2", **HEADS["hunyuan3d-2"])


def test_hostile_parameters_are_refused_before_memory_is_asked_for(tmp_path):
    state_dict = stored(build("dora"), "dora")
    name = "shape_model.decoder.query_proj.weight"
    with pytest.raises(ValueError, match=r"query_proj.weight claims the shape \(1000000, 51\)"):
        convert_vae_state_dict(state_dict | {name: torch.zeros(1, 1).expand(10**6, 51)}, "dora")
    with pytest.raises(ValueError, match=r"no matrix post_kl\.weight"):
        convert_vae_state_dict(state_dict | {"shape_model.post_kl.weight": torch.zeros(0, 8)}, "dora")
    with pytest.raises(ValueError, match=r"`encoder_heads` is 0; it must be an integer"):
        convert_vae_state_dict(state_dict, "dora", heads_encoder=0)
    with pytest.raises(ValueError, match="no tensor of floating-point numbers"):
        convert_vae_state_dict(state_dict | {name: torch.zeros(48, 51, dtype=torch.int64)}, "dora")
    # the format before 1.6 asks for the memory that its header claims
    torch.save(state_dict, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        convert_vae_checkpoint(tmp_path / "old.ckpt", "dora")


def test_the_command_line_writes_a_vae(tmp_path):
    vae = build("triposg")
    save_file(
        {name: value.contiguous() for name, value in stored(vae, "triposg").items()}, tmp_path / "in.safetensors"
    )
    heads = ["--heads-encoder", "3", "--heads-decoder", "3"]
    files = [str(tmp_path / "in.safetensors"), str(tmp_path / "vae")]
    result = CliRunner().invoke(app, ["convert", "vae", *files, "--source", "triposg", *heads])
    assert result.exit_code == 0, result.output
    again = VecSetVAE.from_pretrained(tmp_path / "vae")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in vae.state_dict().items())


class Unwanted:
    """Something that only unpickling could bring back."""
