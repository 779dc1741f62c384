# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA layers saved by a training run change the pipeline as they changed the model that was trained."""

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict

from diffusers_vilearn import ViLearnImageTo3DPipeline


def velocity(pipe) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    embeds = torch.randn(1, 4, 32, generator=generator)
    options = dict(num_inference_steps=2, output_type="latent")
    return pipe(image_embeds=embeds, generator=torch.Generator().manual_seed(0), **options).meshes


@pytest.fixture
def adapted(components, tmp_path):
    """What the pipeline gives with random LoRA layers, and the folder they are saved in."""
    transformer = components["transformer"]
    transformer.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights=False))
    pipe = ViLearnImageTo3DPipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    with_lora = velocity(pipe)
    layers = get_peft_model_state_dict(transformer)
    metadata = transformer.peft_config["default"].to_dict()
    ViLearnImageTo3DPipeline.save_lora_weights(
        tmp_path, transformer_lora_layers=layers, transformer_lora_adapter_metadata=metadata
    )
    transformer.delete_adapters("default")
    return pipe, with_lora, tmp_path


def test_saved_layers_are_loaded_fused_and_unloaded(adapted):
    pipe, with_lora, folder = adapted
    plain = velocity(pipe)
    assert not torch.allclose(plain, with_lora, atol=1e-3)
    pipe.load_lora_weights(folder)
    torch.testing.assert_close(velocity(pipe), with_lora)
    pipe.fuse_lora()
    torch.testing.assert_close(velocity(pipe), with_lora, atol=1e-4, rtol=1e-4)
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    torch.testing.assert_close(velocity(pipe), plain, atol=1e-4, rtol=1e-4)


def test_fused_projections_take_layers_that_are_fused_too_and_no_others(adapted):
    pipe, with_lora, folder = adapted
    pipe.transformer.fuse_qkv_projections()
    plain = velocity(pipe)
    pipe.load_lora_weights(folder)
    with pytest.raises(ValueError, match=r"`to_q` has LoRA layers, which fused projections would leave out"):
        velocity(pipe)
    pipe.disable_lora()
    torch.testing.assert_close(velocity(pipe), plain)
    pipe.enable_lora()
    pipe.transformer.unfuse_qkv_projections()
    pipe.fuse_lora()
    pipe.transformer.fuse_qkv_projections()
    torch.testing.assert_close(velocity(pipe), with_lora, atol=1e-4, rtol=1e-4)
    pipe.unload_lora_weights()
    torch.testing.assert_close(velocity(pipe), with_lora, atol=1e-4, rtol=1e-4)


def test_what_is_no_lora_is_refused(adapted):
    pipe, _, folder = adapted
    with pytest.raises(ValueError, match="lora"):
        pipe.load_lora_weights({"transformer.proj_out.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="transformer_lora_layers"):
        pipe.save_lora_weights(folder)
