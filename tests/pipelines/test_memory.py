# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Ways to run on little memory: offloading, storing weights in few bits, skipping layers that hardly change."""

import pytest
import torch
from accelerate import cpu_offload
from diffusers import (
    DiffusionPipeline,
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PipelineQuantizationConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
)
from diffusers.hooks.group_offloading import ModuleGroup
from diffusers.utils import is_torchao_available

from diffusers_vilearn.models.autoencoder_vecset import VecSetAttention
from diffusers_vilearn.models.transformer_vilearn import ViLearnAttention


def field(pipe, image, **kwargs):
    settings = {"num_inference_steps": 2, "resolution": 8, "output_type": "pt", **kwargs}
    return pipe(image, generator=torch.Generator().manual_seed(0), **settings).meshes


def leaves(module: torch.nn.Module):
    """Modules that hold parameters themselves."""
    return [one for one in module.modules() if next(one.parameters(recurse=False), None) is not None]


class TestOffloading:
    @pytest.mark.parametrize("offload_type", ["leaf_level", "block_level"])
    def test_group_offloading_brings_every_weight_back_before_it_is_used(self, pipe, image, monkeypatch, offload_type):
        """On one device nothing moves, so it is watched whether the hooks would have moved it in time."""
        expected = field(pipe, image)
        loaded, group_of, unready, used = set(), {}, [], set()

        def watch(name, note):
            original = getattr(ModuleGroup, name)

            def call(group):
                note(id(group))
                for module in group.modules:
                    group_of.update({id(parameter): id(group) for parameter in module.parameters()})
                group_of.update({id(parameter): id(group) for parameter in group.parameters})
                return original(group)

            monkeypatch.setattr(ModuleGroup, name, call)

        watch("onload_", loaded.add)
        watch("offload_", loaded.discard)

        def watched(forward, name, parameters):
            def call(*args, **kwargs):
                used.update(map(id, parameters))
                unready.extend(name for parameter in parameters if group_of.get(id(parameter)) not in loaded)
                return forward(*args, **kwargs)

            return call

        for model in (pipe.image_encoder, pipe.transformer, pipe.vae):
            for name, leaf in model.named_modules():
                parameters = list(leaf.parameters(recurse=False))
                if parameters:
                    # before the hooks, which call what they find
                    leaf.forward = watched(leaf.forward, name, parameters)
        blocks = 1 if offload_type == "block_level" else None
        pipe.enable_group_offload(torch.device("cpu"), offload_type=offload_type, num_blocks_per_group=blocks)
        assert torch.equal(field(pipe, image), expected)
        assert not unready and used and loaded != set(group_of.values())

    def test_sequential_offloading(self, pipe, image):
        expected = field(pipe, image)
        # what `enable_sequential_cpu_offload` does to each model; it insists on an accelerator to compute on
        for model in (pipe.image_encoder, pipe.transformer, pipe.vae):
            cpu_offload(model, torch.device("cpu"), offload_buffers=len(model._parameters) > 0)
            assert all(parameter.device.type == "meta" for parameter in model.parameters())
        embeds = pipe.image_encoder(torch.zeros(1, 3, 28, 28)).last_hidden_state
        assert embeds.device.type == "cpu"
        torch.testing.assert_close(field(pipe, image), expected)
        assert all(parameter.device.type == "meta" for parameter in pipe.vae.parameters())

    @pytest.mark.cuda
    @pytest.mark.parametrize(
        "offload",
        [
            lambda pipe: pipe.enable_model_cpu_offload(),
            lambda pipe: pipe.enable_sequential_cpu_offload(),
            lambda pipe: pipe.enable_group_offload(torch.device("cuda"), num_blocks_per_group=1),
        ],
        ids=["model", "sequential", "group"],
    )
    def test_cpu_offloading(self, pipe, image, offload):
        expected = field(pipe, image)
        offload(pipe)
        torch.testing.assert_close(field(pipe, image).cpu(), expected, atol=1e-3, rtol=1e-3)

    def test_offloading_without_an_accelerator_is_refused(self, pipe):
        if torch.accelerator.is_available():
            pytest.skip("there is an accelerator")
        with pytest.raises(RuntimeError, match="requires accelerator"):
            pipe.enable_model_cpu_offload()


class TestFewBits:
    @pytest.mark.parametrize("storage", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
    def test_layerwise_casting(self, pipe, image, storage):
        expected = field(pipe, image)
        kept = 0
        for model in (pipe.transformer, pipe.vae):
            model.enable_layerwise_casting(storage_dtype=storage, compute_dtype=torch.float32)
            assert model.dtype == torch.float32
            weights = [leaf.weight for leaf in leaves(model) if isinstance(leaf, torch.nn.Linear)]
            cast = sum(weight.numel() for weight in weights if weight.dtype == storage)
            assert cast > 0.5 * sum(weight.numel() for weight in weights)
            kept += sum(weight.dtype == torch.float32 for weight in weights)
        assert kept
        rough = field(pipe, image)
        assert not torch.equal(rough, expected)
        # two bits of mantissa leave an eighth of each of these random weights open
        assert torch.corrcoef(torch.stack([rough.flatten(), expected.flatten()]))[0, 1] > 0.7

    @pytest.mark.skipif(not is_torchao_available(), reason="torchao is not installed")
    def test_quantisation_by_torchao(self, pipe, image, tmp_path):
        from torchao.quantization import Int8WeightOnlyConfig

        expected = field(pipe, image)
        pipe.save_pretrained(tmp_path)
        from diffusers import TorchAoConfig

        mapping = {name: TorchAoConfig(Int8WeightOnlyConfig(version=2)) for name in ("transformer", "vae")}
        quantised = DiffusionPipeline.from_pretrained(
            tmp_path, quantization_config=PipelineQuantizationConfig(quant_mapping=mapping)
        )
        quantised.set_progress_bar_config(disable=True)
        for model in (quantised.transformer, quantised.vae):
            for name, module in model.named_modules():
                if isinstance(module, torch.nn.Linear):
                    # the timestep's path stays as it is
                    is_quantised = type(module.weight).__name__ == "Int8Tensor"
                    assert is_quantised == (not name.startswith("adaln_single")), name
        rough = field(quantised, image)
        assert not torch.equal(rough, expected)
        assert torch.corrcoef(torch.stack([rough.flatten(), expected.flatten()]))[0, 1] > 0.99


def cache_configs(pipe) -> dict:
    attention = {
        "spatial_attention_block_skip_range": 2,
        "spatial_attention_timestep_skip_range": (-1, 901),
        "current_timestep_callback": lambda: pipe.current_timestep,
    }
    return {
        "first_block": FirstBlockCacheConfig(threshold=1.0),
        "mag": MagCacheConfig(threshold=1.0, num_inference_steps=8, mag_ratios=[1.0] * 8),
        "taylor": TaylorSeerCacheConfig(cache_interval=3, taylor_factors_dtype=torch.float32),
        "pyramid": PyramidAttentionBroadcastConfig(**attention),
        "faster": FasterCacheConfig(**attention, is_guidance_distilled=True),
    }


class TestCaches:
    @pytest.mark.parametrize("name", ["first_block", "mag", "taylor", "pyramid", "faster"])
    @pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
    def test_layers_are_skipped_and_nothing_is_left_behind(self, pipe, image, name, guidance_scale):
        computed = []
        for layer in pipe.transformer.modules():
            if isinstance(layer, ViLearnAttention):
                # inside what the caches replace
                layer.to_v.register_forward_hook(lambda *_: computed.append(1))

        def run():
            computed.clear()
            settings = {"num_inference_steps": 8, "guidance_scale": guidance_scale, "output_type": "latent"}
            return field(pipe, image, **settings), len(computed)

        expected, all_layers = run()
        pipe.transformer.enable_cache(cache_configs(pipe)[name])
        cached, layers = run()
        assert torch.isfinite(cached).all() and layers < all_layers and not torch.equal(cached, expected)
        # what one shape leaves in the cache must not reach the next
        again, layers_again = run()
        assert torch.equal(again, cached) and layers_again == layers
        # nor what a shape leaves that has no mesh, or a callback that raises
        with torch.no_grad():
            pipe.vae.geometry.proj_out.bias -= 100
        with pytest.raises(ValueError, match="shape 0 has no mesh"):
            field(pipe, image, num_inference_steps=7, output_type="trimesh")
        with pytest.raises(ZeroDivisionError):
            field(pipe, image, num_inference_steps=7, callback_on_step_end=lambda _, step, *__: 1 / (4 - step) and {})
        assert torch.equal(run()[0], cached)
        pipe.transformer.disable_cache()
        assert torch.equal(run()[0], expected)


@pytest.mark.parametrize("name", ["taylor", "mag"])
def test_guidance_may_end_under_a_cache(pipe, image, name):
    pipe.transformer.enable_cache(cache_configs(pipe)[name])

    def end_guidance(pipeline, step, timestep, tensors):
        if step == 3:
            pipeline._guidance_scale = 1.0
        return tensors

    latents = pipe(image, num_inference_steps=8, callback_on_step_end=end_guidance, output_type="latent").meshes
    assert latents.shape[0] == 1 and torch.isfinite(latents).all()
    pipe.transformer.disable_cache()


@pytest.mark.parametrize("backend", ["native", "_native_math"])
def test_attention_backend(pipe, image, backend, monkeypatch):
    from diffusers.models import attention_dispatch

    expected = field(pipe, image)
    name, calls = attention_dispatch.AttentionBackendName(backend), []
    registry = attention_dispatch._AttentionBackendRegistry
    kernel = registry._backends[name]
    monkeypatch.setitem(registry._backends, name, lambda *args, **kwargs: calls.append(1) or kernel(*args, **kwargs))
    # A model's backend becomes that of all others: put back what it was.
    monkeypatch.setattr(registry, "_active_backend", registry._active_backend)
    for model in (pipe.transformer, pipe.vae):
        model.set_attention_backend(backend)
    torch.testing.assert_close(field(pipe, image), expected, atol=1e-4, rtol=1e-4)
    layers = [module for module in pipe.transformer.modules() if isinstance(module, ViLearnAttention)]
    decoder = [module for module in pipe.vae.decoder.modules() if isinstance(module, VecSetAttention)]
    # two steps of the transformer, the decoder once, and its last cross-attention for the 729 points
    assert len(calls) == 2 * len(layers) + len(decoder) + 1
