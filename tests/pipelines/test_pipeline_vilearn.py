# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline: what reaches the transformer and the VAE, what comes out, and how it behaves as one of diffusers."""

import json
import math
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import trimesh
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from PIL import Image
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from diffusers_vilearn import ViLearnImageTo3DPipeline, ViLearnPipelineOutput, ViLearnTransformer3DModel


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


@pytest.fixture
def run(pipe, image):
    """The pipeline's first output for the picture, quick by default."""

    def call(picture=image, **kwargs):
        settings = {"num_inference_steps": 2, "generator": seeded(), "output_type": "latent", "resolution": 16}
        settings.update(kwargs)
        return pipe(picture, **settings).meshes

    return call


@pytest.fixture
def seen(pipe):
    """Keyword arguments of every call of the transformer."""
    calls = []
    pipe.transformer.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True)
    return calls


class TestOutputs:
    def test_latents_are_decoded_without_a_graph(self, run, pipe, monkeypatch):
        decode, hidden = pipe.vae.decode, []
        monkeypatch.setattr(pipe.vae, "decode", lambda latents: hidden.append(decode(latents)) or hidden[-1])
        pipe.decode_latents(run(), resolution=8, output_type="pt")
        assert not hidden[0].requires_grad

    def test_meshes(self, pipe, image):
        output = pipe(image, num_inference_steps=2, generator=seeded(), resolution=24)
        assert isinstance(output, ViLearnPipelineOutput) and output[0] is output.meshes
        (mesh,) = output.meshes
        assert isinstance(mesh, trimesh.Trimesh) and len(mesh.faces) and mesh.is_watertight
        assert np.abs(mesh.vertices).max() <= pipe.vae.config.bounds

    def test_latents_and_field(self, run, pipe):
        assert run().shape == (1, 16, 8)
        assert run(output_type="pt", resolution=9).shape == (1, 10, 10, 10)

    def test_tuple(self, pipe, image):
        output = pipe(image, num_inference_steps=1, generator=seeded(), output_type="latent", return_dict=False)
        assert isinstance(output, tuple) and output[0].shape == (1, 16, 8)

    def test_field_is_the_vaes_at_the_grid_points(self, run, pipe):
        resolution = 10
        field = run(output_type="pt", resolution=resolution)[0]
        latents = run() / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
        index = torch.tensor([[0, 3, 10], [7, 1, 2], [10, 10, 0]])
        xyz = -pipe.vae.config.bounds + index * 2 * pipe.vae.config.bounds / resolution
        with torch.no_grad():
            expected = pipe.vae.query(xyz[None], pipe.vae.decode(latents))[0, :, 0]
        torch.testing.assert_close(field[tuple(index.T)], expected, atol=1e-4, rtol=1e-4)

    def test_mesh_lies_where_the_field_changes_sign(self, run, pipe):
        mesh = run(output_type="trimesh", resolution=32)[0]
        field = run(output_type="pt", resolution=32)[0].numpy()
        step = 2 * pipe.vae.config.bounds / 32
        inner = mesh.vertices[(np.abs(mesh.vertices) < pipe.vae.config.bounds - 1e-6).all(axis=1)]
        low = np.floor((inner + pipe.vae.config.bounds) / step + 1e-6).astype(int).clip(0, 31)
        corners = np.stack([field[tuple((low + offset).T)] for offset in np.ndindex(2, 2, 2)])
        assert len(inner) and ((corners.max(axis=0) > 0) & (corners.min(axis=0) <= 0)).all()

    def test_level_shrinks_the_shape(self, run, pipe):
        inside = (run(output_type="pt") > 0.1).sum()
        assert 0 < inside < (run(output_type="pt") > 0).sum()
        volumes = [run(output_type="trimesh", level=level)[0].volume for level in (-0.1, 0.0, 0.1)]
        assert volumes[0] > volumes[1] > volumes[2]

    def test_chunk_size_does_not_matter(self, run):
        torch.testing.assert_close(run(output_type="pt", chunk_size=100), run(output_type="pt"), atol=1e-5, rtol=1e-5)

    def test_shape_without_a_surface(self, run, pipe):
        with torch.no_grad():
            pipe.vae.geometry.proj_out.bias -= 100
        with pytest.raises(ValueError, match=r"shape 0 has no mesh: .*no surface.*`output_type=\"latent\"`"):
            run(output_type="trimesh", num_shapes_per_image=2)


class TestRandomness:
    def test_same_seed_same_shape(self, run):
        assert torch.equal(run(), run())
        assert not torch.equal(run(), run(generator=seeded(1)))

    def test_list_of_generators_reproduces_single_calls(self, run, image):
        batch = run([image, image, image], guidance_scale=2.0, generator=[seeded(i) for i in range(3)])
        for index, latents in enumerate(batch):
            single = run(guidance_scale=2.0, generator=seeded(index))[0]
            torch.testing.assert_close(latents, single, atol=1e-5, rtol=1e-5)

    def test_latents_replace_the_noise(self, run):
        assert torch.equal(run(latents=noise(1, 16, 8)), run())
        assert run(latents=noise(1, 5, 8)).shape == (1, 5, 8)

    def test_injected_latents_are_left_alone(self, run):
        latents = noise(1, 16, 8)
        before = latents.clone()
        run(latents=latents)
        assert torch.equal(latents, before)

    def test_shapes_of_one_image_stand_together(self, run, image):
        other = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        latents = noise(4, 16, 8)
        batch = run([image, other], guidance_scale=2.0, num_shapes_per_image=2, latents=latents)
        for index, picture in enumerate([image, image, other, other]):
            single = run(picture, guidance_scale=2.0, latents=latents[index : index + 1])[0]
            torch.testing.assert_close(batch[index], single, atol=1e-5, rtol=1e-5)

    def test_global_random_state_is_neither_used_nor_changed(self, run):
        torch.manual_seed(0)
        state = torch.get_rng_state()
        first = run(output_type="pt")
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(1)
        assert torch.equal(run(output_type="pt"), first)


class TestCondition:
    def test_patch_tokens_only(self, pipe, image):
        embeds = pipe.encode_image(image, num_shapes_per_image=2)
        square = np.asarray(pipe.image_processor.preprocess(image, 28)[0]) / 255
        mean, std = pipe.feature_extractor.image_mean, pipe.feature_extractor.image_std
        pixels = torch.from_numpy((square - mean) / std).float().movedim(-1, 0)[None]
        expected = pipe.image_encoder(pixels).last_hidden_state[:, 1:]
        assert embeds.shape == (2, 4, 32)
        torch.testing.assert_close(embeds, expected.expand(2, -1, -1), atol=1e-4, rtol=1e-4)

    def test_image_embeds_replace_the_image(self, run, pipe, image):
        assert torch.equal(run(None, image_embeds=pipe.encode_image(image)), run())

    def test_without_the_optional_components(self, components, pipe, run, image):
        embeds = pipe.encode_image(image)
        bare = ViLearnImageTo3DPipeline(**components | {"image_encoder": None, "feature_extractor": None})
        bare.set_progress_bar_config(disable=True)
        output = bare(image_embeds=embeds, num_inference_steps=2, generator=seeded(), output_type="latent").meshes
        assert torch.equal(output, run())
        with pytest.raises(ValueError, match=r"`image` needs the components .* pass `image_embeds`"):
            bare(image)

    @pytest.mark.parametrize("loader", [DiffusionPipeline, ViLearnImageTo3DPipeline])
    def test_components_of_the_caller_are_taken(self, pipe, components, tmp_path, loader):
        pipe.save_pretrained(tmp_path)
        mine = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(hidden_size=32, num_hidden_layers=1))
        assert loader.from_pretrained(tmp_path, image_encoder=mine).image_encoder is mine
        bare = loader.from_pretrained(tmp_path, image_encoder=None, feature_extractor=None)
        assert bare.image_encoder is None and bare.feature_extractor is None
        bare.save_pretrained(tmp_path / "bare")
        assert loader.from_pretrained(tmp_path / "bare").image_encoder is None

    def test_image_changes_the_shape(self, run, image):
        assert not torch.allclose(run(), run(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)), atol=1e-3)


class TestGuidance:
    def test_one_call_of_both_branches_unconditional_first(self, run, seen, pipe, image):
        run([image, image], guidance_scale=3.0, num_inference_steps=1)
        (call,) = seen
        assert call["hidden_states"].shape[0] == call["timestep"].shape[0] == call["visible_mask"].shape[0] == 4
        assert torch.equal(call["hidden_states"][:2], call["hidden_states"][2:])
        assert (call["encoder_hidden_states"][:2] == 0).all()
        torch.testing.assert_close(call["encoder_hidden_states"][2:], pipe.encode_image([image, image]))

    def test_no_unconditional_branch_at_one(self, run, seen):
        run(guidance_scale=1.0)
        assert all(call["hidden_states"].shape[0] == 1 for call in seen)

    def test_velocity_is_extrapolated_from_the_unconditional_one(self, run):
        one = {"num_inference_steps": 1}
        conditional = run(guidance_scale=1.0, **one)
        unconditional = run(None, image_embeds=torch.zeros(1, 4, 32), guidance_scale=1.0, **one)
        expected = unconditional + 2.5 * (conditional - unconditional)
        torch.testing.assert_close(run(guidance_scale=2.5, **one), expected, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(conditional, unconditional, atol=1e-3)


class TestVisibility:
    @pytest.mark.parametrize("fraction, visible", [(None, 4), (1 / 3, 5), (0.5, 8), (0.0, 0), (1.0, 16)])
    def test_first_tokens_are_declared_visible(self, run, seen, fraction, visible):
        run(visible_fraction=fraction)
        for call in seen:
            assert (call["visible_mask"] == (torch.arange(16) < visible)).all()

    def test_paper_number(self, run, seen):
        run(num_tokens=2048, visible_fraction=1 / 3, num_inference_steps=1)
        assert seen[0]["visible_mask"][0].sum() == 683

    def test_fraction_changes_the_shape(self, run):
        assert not torch.allclose(run(visible_fraction=0.25), run(visible_fraction=0.75), atol=1e-3)


class TestTimesteps:
    def timesteps(self, run, seen, **kwargs):
        run(guidance_scale=1.0, **kwargs)
        return torch.cat([call["timestep"] for call in seen]).tolist()

    def test_evenly_spaced_from_one(self, run, seen):
        assert self.timesteps(run, seen, num_inference_steps=4) == [1000, 750, 500, 250]

    def test_static_shift_is_applied_once(self, run, seen, pipe):
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        expected = [1000 * 3 * s / (1 + 2 * s) for s in (1, 0.75, 0.5, 0.25)]
        assert self.timesteps(run, seen, num_inference_steps=4) == pytest.approx(expected)

    @pytest.mark.parametrize("kind", ["exponential", "linear"])
    def test_dynamic_shift_grows_with_the_root_of_the_tokens(self, run, seen, pipe, kind):
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
        shift = math.sqrt(64 / 256)
        expected = [1000 * shift * s / (1 + (shift - 1) * s) for s in (1, 0.75, 0.5, 0.25)]
        assert self.timesteps(run, seen, num_tokens=64, num_inference_steps=4) == pytest.approx(expected, rel=1e-5)

    def test_sigmas(self, run, seen):
        assert self.timesteps(run, seen, sigmas=[1.0, 0.4, 0.1]) == pytest.approx([1000, 400, 100])

    def test_sigmas_are_left_as_they_are_by_a_scheduler_that_computes_with_them(self, run, seen, pipe):
        pipe.scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0
        )
        sigmas = np.array([1.0, 0.4, 0.1])
        assert self.timesteps(run, seen, sigmas=sigmas) == pytest.approx([1000, 400, 100], abs=1)
        assert sigmas.tolist() == [1.0, 0.4, 0.1]

    @pytest.mark.parametrize(
        "scheduler",
        [EulerDiscreteScheduler(), DDIMScheduler(), DPMSolverMultistepScheduler(use_flow_sigmas=True)],
    )
    def test_schedulers_that_predict_something_else_are_refused(self, run, seen, pipe, scheduler):
        pipe.scheduler = scheduler
        with pytest.raises(ValueError, match=f"must be one for flow matching.*{type(scheduler).__name__}"):
            run()
        assert not seen

    def test_schedulers_that_lead_from_data_to_noise_are_refused(self, run, pipe):
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
        with pytest.raises(ValueError, match="must lead from noise to data"):
            run()

    @pytest.mark.parametrize(
        "scheduler",
        [
            DEISMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
            UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, final_sigmas_type="sigma_min"
            ),
        ],
        ids=lambda scheduler: type(scheduler).__name__,
    )
    def test_schedulers_that_leave_noise_are_refused(self, run, seen, pipe, scheduler):
        pipe.scheduler = scheduler
        with pytest.raises(ValueError, match=rf"must end at noise level 0, but {type(scheduler).__name__}"):
            run()
        assert not seen

    def test_schedulers_made_from_the_configuration_of_another_say_what_they_lack(self, run, pipe):
        config = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).config
        pipe.scheduler = FlowMatchHeunDiscreteScheduler.from_config(config)
        with pytest.raises(ValueError, match=r"Heun.* cannot shift by the number of tokens"):
            run()
        config, flow = (
            FlowMatchEulerDiscreteScheduler(shift=3.0).config,
            {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
        )
        pipe.scheduler = UniPCMultistepScheduler.from_config(config, **flow)
        with pytest.raises(ValueError, match=r"does not read `shift`.*make it with `flow_shift=3.0`"):
            run()
        pipe.scheduler = UniPCMultistepScheduler.from_config(config, **flow, flow_shift=3.0)
        assert torch.isfinite(run()).all()

    def test_sigmas_refused_by_schedulers_without(self, run, pipe):
        pipe.scheduler = FlowMatchHeunDiscreteScheduler()
        with pytest.raises(ValueError, match=r"`sigmas` must be None, .*FlowMatchHeunDiscreteScheduler"):
            run(sigmas=[1.0, 0.5])

    @pytest.mark.parametrize(
        "scheduler",
        [
            FlowMatchHeunDiscreteScheduler(shift=2.0),
            FlowMatchLCMScheduler(),
            FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
            UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0),
            DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0),
        ],
        ids=lambda scheduler: type(scheduler).__name__,
    )
    def test_other_flow_schedulers(self, run, pipe, scheduler):
        pipe.scheduler = scheduler
        first = run(num_inference_steps=3)
        assert torch.isfinite(first).all() and pipe.num_timesteps == len(scheduler.timesteps)
        assert torch.equal(first, run(num_inference_steps=3))

    @pytest.mark.parametrize(
        "scheduler",
        [
            FlowMatchHeunDiscreteScheduler(),
            UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0),
            DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0),
        ],
        ids=lambda scheduler: type(scheduler).__name__,
    )
    def test_solvers_agree_in_the_limit(self, run, pipe, scheduler):
        euler = [run(num_inference_steps=steps) for steps in (25, 200)]
        pipe.scheduler = scheduler
        other = run(num_inference_steps=200)
        few, many = ((latents - other).norm() for latents in euler)
        assert many < few / 2


class TestCallbacks:
    def test_every_step_with_the_tensors_asked_for(self, run, pipe):
        steps = []

        def callback(pipeline, step, timestep, tensors):
            assert pipeline is pipe and set(tensors) == {"latents", "image_embeds"}
            assert timestep == pipe.current_timestep
            steps.append(step)
            return tensors

        run(
            num_inference_steps=3,
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=["latents", "image_embeds"],
        )
        assert steps == [0, 1, 2] and pipe.num_timesteps == 3 and pipe.current_timestep is None

    @pytest.mark.parametrize("several", [True, False])
    def test_callbacks_of_diffusers_name_their_tensors(self, run, seen, several):
        class Blank(PipelineCallback):
            tensor_inputs = ["image_embeds"]  # noqa: RUF012, as the superclass declares it

            def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
                return {"image_embeds": torch.zeros_like(callback_kwargs["image_embeds"])}

        callback = Blank(cutoff_step_ratio=0.5, cutoff_step_index=None)
        run(callback_on_step_end=MultiPipelineCallbacks([callback]) if several else callback)
        assert not seen[1]["encoder_hidden_states"].any()

    def test_returned_tensors_are_used(self, run, seen):
        def callback(pipeline, step, timestep, tensors):
            return {"latents": torch.full_like(tensors["latents"], 7), "image_embeds": torch.ones(1, 4, 32)}

        output = run(callback_on_step_end=callback, callback_on_step_end_tensor_inputs=["latents", "image_embeds"])
        assert (output == 7).all()
        assert (seen[1]["hidden_states"] == 7).all() and (seen[1]["encoder_hidden_states"][1] == 1).all()

    def test_interrupt(self, run, seen, pipe):
        def callback(pipeline, step, timestep, tensors):
            pipeline._interrupt = step == 1
            return tensors

        run(num_inference_steps=5, callback_on_step_end=callback)
        assert len(seen) == 2
        seen.clear()
        run(num_inference_steps=3)
        assert len(seen) == 3 and not pipe.interrupt

    def test_attention_kwargs_reach_the_transformer(self, run, seen):
        run(attention_kwargs={"scale": 1.0})
        assert seen[0]["attention_kwargs"] == {"scale": 1.0}


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"picture": None}, "Exactly one of `image` and `image_embeds`"),
        ({"image_embeds": torch.zeros(1, 4, 32)}, "Exactly one of `image` and `image_embeds`"),
        ({"picture": None, "image_embeds": torch.zeros(4, 32)}, "`image_embeds` must be"),
        ({"picture": None, "image_embeds": torch.zeros(1, 4, 31)}, r"`image_embeds` must be \(images, tokens, 32\)"),
        ({"picture": None, "image_embeds": np.zeros((1, 4, 32))}, "`image_embeds` must be a tensor .*ndarray"),
        ({"picture": None, "image_embeds": [torch.zeros(4, 32)]}, "`image_embeds` must be a tensor .*list"),
        ({"picture": None, "image_embeds": torch.zeros(0, 4, 32)}, r"`image_embeds` .*\(0, 4, 32\)"),
        ({"picture": None, "image_embeds": torch.full((1, 4, 32), torch.nan)}, "`image_embeds` must be finite"),
        ({"picture": "https://example.org/a.png"}, "URL"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be an integer of at least 1, but is 0"),
        ({"num_inference_steps": 2.5}, "`num_inference_steps`"),
        ({"num_tokens": -1}, "`num_tokens`"),
        ({"num_shapes_per_image": 0}, "`num_shapes_per_image`"),
        ({"num_shapes_per_image": True}, "`num_shapes_per_image`"),
        ({"guidance_scale": None}, "`guidance_scale` must be a finite number of at least 0, but is None"),
        ({"guidance_scale": [1, 2]}, "`guidance_scale`"),
        ({"guidance_scale": float("nan")}, "`guidance_scale`"),
        ({"guidance_scale": -1.0}, "`guidance_scale`"),
        ({"guidance_scale": float("inf")}, "`guidance_scale`"),
        ({"visible_fraction": 1.1}, "`visible_fraction`"),
        ({"visible_fraction": float("nan")}, "`visible_fraction`"),
        ({"visible_fraction": "1/3"}, "`visible_fraction`"),
        ({"generator": 0}, "`generator` must be a `torch.Generator`"),
        ({"generator": [seeded(), seeded()]}, "`generator` must be one generator or 1 of them"),
        ({"latents": torch.zeros(16, 8)}, "`latents` must be"),
        ({"latents": torch.zeros(1, 16, 9)}, r"`latents` must be \(1, 16, 8\)"),
        ({"latents": torch.zeros(2, 16, 8)}, r"`latents` must be \(1, 16, 8\)"),
        ({"latents": torch.zeros(1, 16, 8), "num_tokens": 17}, r"`latents` must be \(1, 17, 8\)"),
        ({"latents": torch.full((1, 16, 8), torch.nan)}, "`latents` must be finite"),
        ({"latents": np.zeros((1, 16, 8))}, "`latents` must be a tensor .*ndarray"),
        ({"sigmas": []}, "`sigmas`"),
        ({"sigmas": 1.0}, "`sigmas`"),
        ({"sigmas": [1.0, 0.0]}, "`sigmas`"),
        ({"sigmas": [0.1, 0.5, 1.0]}, "`sigmas` .* each below the one before"),
        ({"sigmas": torch.rand(2, 2)}, "`sigmas`"),
        ({"sigmas": ["a"]}, "`sigmas`"),
        ({"sigmas": [1.2]}, "`sigmas`"),
        ({"resolution": 7}, "`resolution`"),
        ({"resolution": 16.0}, "`resolution`"),
        ({"level": 1.0}, "`level`"),
        ({"level": None}, "`level`"),
        ({"chunk_size": 0}, "`chunk_size`"),
        ({"output_type": "mesh"}, "`output_type` must be one of"),
        ({"callback_on_step_end_tensor_inputs": ["latents", "noise"]}, r"found \['noise'\]"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(run, seen, kwargs, message):
    with pytest.raises(ValueError, match=message):
        run(**kwargs)
    assert not seen


@pytest.mark.parametrize(
    ("latents", "kwargs", "message"),
    [
        (torch.zeros(1, 16, 8), {"output_type": "np"}, r"`output_type` must be one of \('trimesh', 'pt'\)"),
        (torch.zeros(1, 16, 8), {"level": 1}, "`level` must be"),
        (torch.zeros(1, 16, 7), {}, r"shape \(1, 16, 7\), it must end with 8 channels"),
        (torch.zeros(0, 16, 8), {}, r"`latents` must be \(shapes, tokens, channels\)"),
        (torch.full((1, 16, 8), torch.nan), {}, "`latents` must be finite"),
    ],
)
def test_latents_that_cannot_be_decoded_are_refused(pipe, latents, kwargs, message):
    with pytest.raises(ValueError, match=message):
        pipe.decode_latents(latents, 8, **kwargs)


LOAD_AND_RUN = """
import torch, diffusers_vilearn
from diffusers import DiffusionPipeline

latents = []
for cls in (DiffusionPipeline, diffusers_vilearn.ViLearnImageTo3DPipeline):
    pipe = cls.from_pretrained("pipe")
    assert type(pipe) is diffusers_vilearn.ViLearnImageTo3DPipeline
    generator = torch.Generator().manual_seed(0)
    latents.append(pipe("object.png", num_inference_steps=2, generator=generator, output_type="latent").meshes)
torch.save(latents, "latents.pt")
"""


class TestCitizenship:
    def test_saved_and_loaded_in_a_new_process(self, pipe, image, run, tmp_path):
        pipe.save_pretrained(tmp_path / "pipe")
        image.save(tmp_path / "object.png")
        index = json.loads((tmp_path / "pipe" / "model_index.json").read_text())
        assert index["vae"] == ["diffusers_vilearn", "VecSetVAE"]
        assert index["transformer"] == ["diffusers_vilearn", "ViLearnTransformer3DModel"]
        assert index["feature_extractor"] == ["transformers", "BitImageProcessor"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, "-c", LOAD_AND_RUN], cwd=tmp_path, env=environment, check=True)
        for latents in torch.load(tmp_path / "latents.pt"):
            torch.testing.assert_close(latents, run(), atol=1e-5, rtol=1e-5)

    def test_saved_again_it_names_the_same_classes(self, pipe, tmp_path):
        pipe.save_pretrained(tmp_path / "first")
        ViLearnImageTo3DPipeline.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
        first, second = ((tmp_path / name / "model_index.json").read_text() for name in ("first", "second"))
        assert {**json.loads(first), "_name_or_path": None} == {**json.loads(second), "_name_or_path": None}

    def test_half_precision_variant(self, pipe, image, tmp_path):
        pipe.to(dtype=torch.float16).save_pretrained(tmp_path, variant="fp16")
        loaded = DiffusionPipeline.from_pretrained(tmp_path, variant="fp16", dtype=torch.bfloat16)
        loaded.set_progress_bar_config(disable=True)
        assert loaded.vae.dtype == loaded.transformer.dtype == loaded.image_encoder.dtype == torch.bfloat16
        field = loaded(image, num_inference_steps=2, generator=seeded(), output_type="pt", resolution=8).meshes
        assert field.dtype == torch.float32 and torch.isfinite(field).all()

    def test_shards_are_read_onto_a_device_without_a_network(self, pipe, image, run, tmp_path, monkeypatch):
        pipe.save_pretrained(tmp_path, max_shard_size="40KB")
        assert all(len(list((tmp_path / name).glob("*-of-*.safetensors"))) > 1 for name in ("vae", "transformer"))
        expected = run()

        def refuse(*args):
            raise OSError("no network")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        kwargs = {"local_files_only": True, "dtype": torch.float32}
        loaded = DiffusionPipeline.from_pretrained(tmp_path, device_map="cpu", **kwargs)
        model = ViLearnTransformer3DModel.from_pretrained(
            tmp_path, subfolder="transformer", device_map={"": "cpu"}, **kwargs
        )
        assert model.hf_device_map == {"": "cpu"}
        for pipeline in (loaded, ViLearnImageTo3DPipeline.from_pretrained(tmp_path, transformer=model, **kwargs)):
            pipeline.set_progress_bar_config(disable=True)
            settings = {"num_inference_steps": 2, "generator": seeded(), "output_type": "latent"}
            assert torch.equal(pipeline(image, **settings).meshes, expected)

    def test_latents_stay_in_single_precision(self, run, pipe):
        expected = run(num_inference_steps=8)
        pipe.to(torch.bfloat16)
        rough = run(num_inference_steps=8)
        assert rough.dtype == torch.float32
        assert (rough - expected).norm() < 0.1 * expected.norm()

    @pytest.mark.parametrize("output_type", ["latent", "pt", "trimesh"])
    def test_hooks_are_freed_after_meshing(self, components, image, output_type):
        order = []

        class Watched(ViLearnImageTo3DPipeline):
            def maybe_free_model_hooks(self):
                order.append("freed")
                super().maybe_free_model_hooks()

        components["vae"].geometry.register_forward_hook(lambda *_: order.append("asked"))
        pipe = Watched(**components)
        pipe.set_progress_bar_config(disable=True)
        pipe(image, num_inference_steps=1, generator=seeded(), output_type=output_type, resolution=8)
        assert order[-1] == "freed" and order.count("freed") == 1
        assert ("asked" in order) == (output_type != "latent")

    @pytest.mark.cuda
    def test_model_cpu_offload(self, pipe, run):
        expected = run(output_type="pt")
        pipe.enable_model_cpu_offload()
        torch.testing.assert_close(run(output_type="pt"), expected, atol=1e-3, rtol=1e-3)
        assert {model.device.type for model in (pipe.vae, pipe.transformer, pipe.image_encoder)} == {"cpu"}

    @pytest.mark.cuda
    def test_cuda_agrees_with_the_cpu(self, pipe, run):
        expected = run(output_type="pt")
        pipe.to("cuda")
        torch.testing.assert_close(run(output_type="pt").cpu(), expected, atol=1e-3, rtol=1e-3)

    def test_progress_bars(self, pipe, image, capfd):
        pipe.set_progress_bar_config(disable=False)
        pipe(image, num_inference_steps=3, generator=seeded(), output_type="pt", resolution=8)
        printed = capfd.readouterr().err
        assert "denoising" in printed and "3/3" in printed
        assert "meshing" in printed and "729/729" in printed
        pipe.set_progress_bar_config(desc="mine")
        pipe(image, num_inference_steps=1, generator=seeded(), output_type="pt", resolution=8)
        printed = capfd.readouterr().err
        assert "mine" in printed and "denoising" not in printed

    def test_components_are_left_as_they_were(self, pipe, run):
        before = {name: parameter.clone() for name, parameter in pipe.transformer.named_parameters()}
        run(output_type="trimesh")
        assert all(torch.equal(before[name], parameter) for name, parameter in pipe.transformer.named_parameters())
        assert not any(parameter.grad is not None for parameter in pipe.vae.parameters())
        assert not run(output_type="pt").requires_grad
