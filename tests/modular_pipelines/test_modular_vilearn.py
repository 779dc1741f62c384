# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The modular pipeline: the same meshes as the classic one, from blocks that can be taken out and replaced."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import FirstBlockCacheConfig, UniPCMultistepScheduler
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    PerturbedAttentionGuidance,
    SkipLayerGuidance,
)
from diffusers.hooks import LayerSkipConfig
from diffusers.modular_pipelines import InputParam, ModularPipelineBlocks, OutputParam
from safetensors.torch import load_file, save_file

from diffusers_vilearn import ViLearnImageTo3DBlocks, ViLearnModularPipeline
from diffusers_vilearn.modular_pipelines.decoders import ViLearnDecodeStep, ViLearnMeshStep
from diffusers_vilearn.modular_pipelines.encoders import ViLearnImageEncoderStep


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def modular(components, blocks=None, guidance_scale=3.0):
    """A pipeline of `blocks` (all by default) with those of the components that it wants."""
    pipe = (blocks or ViLearnImageTo3DBlocks()).init_pipeline()
    pipe.update_components(**{name: value for name, value in components.items() if name in pipe.component_names})
    if "guider" in pipe.component_names:
        pipe.update_components(guider=ClassifierFreeGuidance(guidance_scale=guidance_scale))
    return pipe


@pytest.fixture
def seen(components):
    """Keyword arguments of every call of the transformer."""
    calls = []
    components["transformer"].register_forward_pre_hook(lambda _, args, kwargs: calls.append(kwargs), with_kwargs=True)
    return calls


class TestSameAsClassic:
    @pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
    def test_same_mesh_for_the_same_seed(self, components, pipe, image, guidance_scale):
        settings = {"num_inference_steps": 3, "resolution": 24}
        (classic,) = pipe(image, guidance_scale=guidance_scale, generator=seeded(), **settings).meshes
        blocks = modular(components, guidance_scale=guidance_scale)
        (mesh,) = blocks(image=image, generator=seeded(), output="meshes", **settings)
        # guided, the classic pipeline runs both branches in one batch, which rounds differently
        assert np.array_equal(mesh.faces, classic.faces)
        assert np.allclose(mesh.vertices, classic.vertices, atol=0 if guidance_scale == 1 else 1e-4)

    def test_same_field_for_several_shapes_and_settings(self, components, pipe, image):
        settings = {
            "num_inference_steps": 2,
            "num_tokens": 12,
            "visible_fraction": 0.5,
            "num_shapes_per_image": 2,
            "sigmas": [1.0, 0.4],
            "resolution": 8,
            "output_type": "pt",
        }
        images, generators = [image, image.rotate(90)], [[seeded(i) for i in range(4)] for _ in range(2)]
        classic = pipe(images, guidance_scale=3.0, generator=generators[0], **settings).meshes
        fields = modular(components)(image=images, generator=generators[1], output="meshes", **settings)
        torch.testing.assert_close(fields, classic, atol=1e-4, rtol=1e-4)

    def test_another_scheduler(self, components, pipe, image):
        scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0)
        pipe.scheduler = components["scheduler"] = scheduler
        settings = {"num_inference_steps": 3, "resolution": 8, "output_type": "pt"}
        classic = pipe(image, guidance_scale=3.0, generator=seeded(), **settings).meshes
        fields = modular(components)(image=image, generator=seeded(), output="meshes", **settings)
        torch.testing.assert_close(fields, classic, atol=1e-4, rtol=1e-4)


class TestBlocks:
    def test_stop_after_the_latents(self, components, pipe, image):
        blocks = ViLearnImageTo3DBlocks()
        blocks.sub_blocks.pop("decode")
        blocks.sub_blocks.pop("mesh")
        shortened = modular(components, blocks, guidance_scale=1.0)
        latents = shortened(image=image, num_inference_steps=2, generator=seeded(), output="latents")
        classic = pipe(image, num_inference_steps=2, guidance_scale=1.0, generator=seeded(), output_type="latent")
        assert torch.equal(latents, classic.meshes)

    def test_each_stage_runs_on_its_own(self, components, pipe, image):
        embeds = modular(components, ViLearnImageEncoderStep())(image=image, output="image_embeds")
        assert torch.equal(embeds, pipe.encode_image(image))
        latents = torch.randn(2, 5, 8, generator=seeded())
        shapes = modular(components, ViLearnDecodeStep())(latents=latents, output="shapes")
        assert len(shapes) == 2
        mesher = modular(components, ViLearnMeshStep())
        fields = mesher(shapes=shapes, resolution=8, output_type="pt", output="meshes")
        assert torch.equal(fields, pipe.decode_latents(latents, resolution=8, output_type="pt"))

    @pytest.mark.parametrize("batched", [False, True])
    def test_a_visible_mask_of_the_users(self, components, image, seen, batched):
        blocks = ViLearnImageTo3DBlocks()
        blocks.sub_blocks.pop("visibility")
        mask = torch.rand(2 if batched else 1, 11, generator=seeded()).squeeze(0)
        state = modular(components, blocks)(
            image=image,
            visible_mask=mask,
            num_shapes_per_image=2,
            num_inference_steps=1,
            generator=seeded(),
            resolution=8,
            output_type="pt",
        )
        assert state.get("latents").shape == (2, 11, 8)
        assert len(seen) == 2 and all(torch.equal(call["visible_mask"], mask.expand(2, 11)) for call in seen)

    def test_a_block_of_the_users_in_between(self, components, image):
        class Smaller(ModularPipelineBlocks):
            """Halves the latents."""

            model_name = "vilearn"

            @property
            def description(self):
                return "Halves the latents."

            @property
            def inputs(self):
                return [InputParam("latents", required=True)]

            @property
            def intermediate_outputs(self):
                return [OutputParam("latents")]

            def __call__(self, components, state):
                block_state = self.get_block_state(state)
                block_state.latents = block_state.latents / 2
                self.set_block_state(state, block_state)
                return components, state

        blocks, settings = ViLearnImageTo3DBlocks(), {"num_inference_steps": 1, "output_type": "pt", "resolution": 8}
        plain = modular(components)(image=image, generator=seeded(), **settings)
        blocks.sub_blocks.insert("smaller", Smaller(), 3)
        halved = modular(components, blocks)(image=image, generator=seeded(), **settings)
        torch.testing.assert_close(halved.get("latents"), plain.get("latents") / 2)
        assert not torch.allclose(halved.get("meshes"), plain.get("meshes"))

    def test_guidance_is_a_component(self, components, image, seen):
        pipe, settings = modular(components), {"image": image, "num_inference_steps": 2, "output_type": "pt"}
        results = []
        for guider in (
            ClassifierFreeGuidance(guidance_scale=2.0),
            AdaptiveProjectedGuidance(guidance_scale=2.0),
            ClassifierFreeGuidance(guidance_scale=2.0, stop=0.5),
            ClassifierFreeGuidance(enabled=False),
        ):
            pipe.update_components(guider=guider)
            seen.clear()
            latents = pipe(**settings, generator=seeded(), resolution=8, output="latents")
            results.append((latents, len(seen), [bool(call["encoder_hidden_states"].any()) for call in seen]))
        assert [calls for _, calls, _ in results] == [4, 4, 3, 2]
        assert results[0][2] == [True, False, True, False] and all(results[3][2])
        assert len({tuple(latents.flatten().tolist()) for latents, _, _ in results}) == 4

    @pytest.mark.parametrize("kind", ["skip_layer", "perturbed"])
    def test_guiders_that_skip_or_perturb_layers(self, components, image, kind):
        pipe, settings = modular(components), {"image": image, "num_inference_steps": 2, "output_type": "pt"}
        settings |= {"resolution": 8, "output": "latents"}
        plain = pipe(**settings, generator=seeded())
        always = {f"{kind}_guidance_start": 0.0, f"{kind}_guidance_stop": 1.0, "guidance_scale": 3.0}
        if kind == "skip_layer":
            layers = LayerSkipConfig(indices=[0], fqn="transformer_blocks")
            guider = SkipLayerGuidance(skip_layer_config=layers, **always)
        else:
            options = {"skip_attention": False, "skip_attention_scores": True, "skip_ff": False}
            layers = LayerSkipConfig(indices=[0], fqn="single_transformer_blocks", **options)
            guider = PerturbedAttentionGuidance(perturbed_guidance_config=layers, **always)
        pipe.update_components(guider=guider)
        assert not torch.allclose(pipe(**settings, generator=seeded()), plain, atol=1e-3)

    def test_an_interrupted_step_leaves_no_layer_skipped(self, components, image, seen):
        pipe, settings = modular(components), {"image": image, "num_inference_steps": 2, "output_type": "pt"}
        settings |= {"resolution": 8, "output": "latents"}
        plain, guider = pipe(**settings, generator=seeded()), pipe.guider
        always = {"skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
        layers = LayerSkipConfig(indices=[0], fqn="transformer_blocks")
        pipe.update_components(guider=SkipLayerGuidance(skip_layer_config=layers, **always))
        whole = pipe(**settings, generator=seeded())
        seen.clear()

        def interrupt(*_):
            # two branches in the first step, and of three in the second the last one skips
            if len(seen) == 5:
                raise KeyboardInterrupt

        hook = components["transformer"].proj_out.register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            pipe(**settings, generator=seeded())
        hook.remove()
        assert torch.equal(pipe(**settings, generator=seeded()), whole)
        pipe.update_components(guider=guider)
        assert torch.equal(pipe(**settings, generator=seeded()), plain)

    def test_what_a_shape_leaves_in_the_cache_does_not_reach_the_next(self, components, image, seen):
        pipe, settings = modular(components), {"image": image, "num_inference_steps": 6, "output_type": "pt"}
        components["transformer"].enable_cache(FirstBlockCacheConfig(threshold=1.0))
        first, second = (pipe(**settings, generator=seeded(), resolution=8, output="latents") for _ in range(2))
        assert torch.equal(first, second)

    def test_nor_what_a_step_leaves_that_fails(self, components, image, monkeypatch):
        pipe, settings = modular(components), {"image": image, "num_inference_steps": 4, "output_type": "pt"}
        components["transformer"].enable_cache(FirstBlockCacheConfig(threshold=1.0))
        settings |= {"resolution": 8, "output": "latents"}
        whole = pipe(**settings, generator=seeded())
        with monkeypatch.context() as patch:
            patch.setattr(pipe.scheduler, "step", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                pipe(**settings, generator=seeded(1))
        assert torch.equal(pipe(**settings, generator=seeded()), whole)

    def test_lora_layers(self, components, image, tmp_path):
        pipe, settings = modular(components), {"image": image, "num_inference_steps": 1, "output_type": "pt"}
        plain = pipe(**settings, generator=seeded(), resolution=8, output="latents")
        layers = {
            "transformer_blocks.0.attn.to_q.lora_A.weight": torch.randn(2, 32, generator=seeded()),
            "transformer_blocks.0.attn.to_q.lora_B.weight": torch.randn(32, 2, generator=seeded(1)),
        }
        ViLearnModularPipeline.save_lora_weights(tmp_path, transformer_lora_layers=layers)
        pipe.load_lora_weights(tmp_path)
        adapted = pipe(**settings, generator=seeded(), resolution=8, output="latents")
        assert not torch.allclose(adapted, plain, atol=1e-3)
        pipe.unload_lora_weights()
        assert torch.equal(pipe(**settings, generator=seeded(), resolution=8, output="latents"), plain)

    @pytest.mark.parametrize(
        "kwargs, message",
        [
            ({"num_inference_steps": 0}, "`num_inference_steps`"),
            ({"visible_fraction": 1.5}, "`visible_fraction`"),
            ({"num_tokens": 0}, "`num_tokens`"),
            ({"num_shapes_per_image": 0}, "`num_shapes_per_image`"),
            ({"generator": 7}, "`generator`"),
            ({"latents": torch.zeros(16, 8)}, "`latents` must be"),
            ({"resolution": 4}, "`resolution`"),
            ({"output_type": "latent"}, "`output_type`"),
        ],
    )
    def test_bad_inputs(self, components, image, kwargs, message):
        with pytest.raises(ValueError, match=message):
            modular(components)(image=image, **{"num_inference_steps": 1, "resolution": 8, **kwargs})

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (torch.ones(3, 16), r"its shape is \(3, 16\)"),
            (torch.zeros(0), r"its shape is \(0,\)"),
            ([True, False], "is of type list"),
            (torch.full((16,), 255.0), "has others"),
            (torch.full((16,), float("nan")), "has others"),
            (torch.ones(16, dtype=torch.long), "of dtype torch.int64"),
        ],
    )
    def test_a_mask_that_does_not_fit(self, components, image, mask, message):
        blocks = ViLearnImageTo3DBlocks()
        blocks.sub_blocks.pop("visibility")
        what = r"`visible_mask` must be \(tokens,\) or \(1, tokens\), bool or numbers in \[0, 1\], but "
        with pytest.raises(ValueError, match=f"{what}.*{message}"):
            modular(components, blocks)(image=image, visible_mask=mask)


LOAD_AND_RUN = """
import torch, diffusers_vilearn
from diffusers import ModularPipeline
from PIL import Image

fields = []
for pipe in (
    diffusers_vilearn.ViLearnModularPipeline(pretrained_model_name_or_path="classic"),
    ModularPipeline.from_pretrained("modular"),
):
    assert type(pipe) is diffusers_vilearn.ViLearnModularPipeline
    pipe.load_components()
    assert not pipe.null_component_names
    generator = torch.Generator().manual_seed(0)
    settings = dict(num_inference_steps=2, generator=generator, resolution=8, output_type="pt", output="meshes")
    fields.append(pipe(image=Image.open("object.png"), **settings))
torch.save(fields, "fields.pt")
"""


class TestCitizenship:
    def test_loads_classic_and_its_own_checkpoints_in_a_new_process(self, components, pipe, image, tmp_path):
        pipe.save_pretrained(tmp_path / "classic")
        image.save(tmp_path / "object.png")
        pipe = ViLearnModularPipeline(pretrained_model_name_or_path=str(tmp_path / "classic"))
        pipe.load_components()
        pipe.save_pretrained(str(tmp_path / "modular"), overwrite_modular_index=True)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, "-c", LOAD_AND_RUN], cwd=tmp_path, env=environment, check=True)
        settings = {"num_inference_steps": 2, "generator": seeded(), "resolution": 8, "output_type": "pt"}
        expected = modular(components)(image=image, output="meshes", **settings)
        for field in torch.load(tmp_path / "fields.pt"):
            torch.testing.assert_close(field, expected, atol=1e-5, rtol=1e-5)

    def test_an_image_encoder_that_is_not_whole_is_refused(self, pipe, tmp_path):
        pipe.save_pretrained(tmp_path)
        weights = tmp_path / "image_encoder" / "model.safetensors"
        state = load_file(weights)
        state.pop(next(name for name in state if "layer.1" in name))
        save_file(state, weights, {"format": "pt"})
        blocks = ViLearnModularPipeline(pretrained_model_name_or_path=str(tmp_path))
        with pytest.raises(ValueError, match="image_encoder lacks 1 of its"):
            blocks.load_components()
        assert blocks.image_encoder is None and blocks.vae is not None

    def test_every_input_and_output_is_described(self):
        blocks = ViLearnImageTo3DBlocks()
        assert blocks.output_names == ["meshes"]
        assert list(blocks.sub_blocks) == ["image_encoder", "visibility", "denoise", "decode", "mesh"]
        assert all(parameter.description for parameter in (*blocks.inputs, *blocks.outputs))
        assert [parameter.name for parameter in blocks.inputs if parameter.required] == ["image"]
