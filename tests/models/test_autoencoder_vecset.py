# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import inspect
import json
import math
import re

import pytest
import torch
import torch.nn as nn
from accelerate import Accelerator
from diffusers import ConfigMixin, ModelMixin
from diffusers.models import attention_dispatch
from diffusers.models.attention import AttentionModuleMixin
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from diffusers_vilearn.models import VecSetVAE, VecSetVAEOutput
from diffusers_vilearn.models.autoencoder_vecset import (
    DiagonalGaussianDistribution,
    VecSetFourierEmbedding,
    farthest_point_sample,
)

SMALL = {
    "latent_channels": 8,
    "num_tokens": 20,
    "encoder_width": 48,
    "encoder_heads": 3,
    "num_encoder_layers": 2,
    "decoder_width": 48,
    "decoder_heads": 3,
    "num_decoder_layers": 3,
}
HUNYUAN = {"point_channels": 7, "sharp_flag": True, "qk_norm": True, "norm_eps": 1e-6}
TURBO = {
    **HUNYUAN,
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
LAYOUTS = {
    "plain": {},
    "dora": {"dual_cross_attention": True},
    "triposg": {"decoder_width": 72},
    "hunyuan3d-2": HUNYUAN,
    "hunyuan3d-2-turbo": TURBO,
    "wide-context": {"geometry_width": 24, "geometry_heads": 2, "qkv_bias": True},
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def build(layout="plain", **config):
    torch.manual_seed(0)
    return VecSetVAE(**{**SMALL, **LAYOUTS[layout], **config}).eval()


def sample_cloud(count, channels=6, flag=0.0, seed=0, batch_size=2):
    """Random points on spheres of the batch's radii, with normals and perhaps a flag."""
    generator = torch.Generator().manual_seed(seed)
    normal = nn.functional.normalize(torch.randn(batch_size, count, 3, generator=generator), dim=-1)
    radius = torch.linspace(0.5, 0.9, batch_size)[:, None, None]
    return torch.cat([normal * radius, normal, torch.full((batch_size, count, 1), flag)], dim=-1)[..., :channels]


def sample_inputs(layout="plain", **cloud):
    channels = LAYOUTS[layout].get("point_channels", 6)
    inputs = {"points": sample_cloud(120, channels, **cloud)}
    if LAYOUTS[layout].get("dual_cross_attention") or LAYOUTS[layout].get("sharp_flag"):
        inputs["sharp_points"] = sample_cloud(80, channels, flag=1.0, seed=1, **cloud)
    batch_size = inputs["points"].shape[0]
    inputs["xyz"] = torch.rand(batch_size, 30, 3, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return inputs


class TestFarthestPointSample:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 99))
    def test_greedy_and_distinct(self, num_points, num_samples, coincide, seed):
        num_samples = min(num_samples, num_points)
        points = torch.randn(2, num_points, 3, generator=torch.Generator().manual_seed(seed))
        if coincide:
            points = points.round().clamp(-1, 1)
        index = farthest_point_sample(points, num_samples)
        for cloud, rows in zip(points, index):
            assert rows[0] == 0 and len(set(rows.tolist())) == num_samples
            distance = torch.cdist(cloud.double(), cloud.double())
            for k in range(1, num_samples):
                to_chosen = distance[:, rows[:k]].amin(dim=1)
                assert to_chosen[rows[k]] >= to_chosen.max() - 1e-5

    def test_spreads_better_than_chance(self):
        points = sample_cloud(1000)[..., :3]
        chosen = points.gather(1, farthest_point_sample(points, 50)[..., None].expand(-1, -1, 3))
        assert (
            torch.cdist(points, chosen).amin(-1).amax(-1) < 0.7 * torch.cdist(points, points[:, :50]).amin(-1).amax(-1)
        ).all()

    def test_generator_draws_the_first_point_only(self):
        points = sample_cloud(200)[..., :3]
        draw = lambda seed: farthest_point_sample(points, 8, torch.Generator().manual_seed(seed))  # noqa: E731
        assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
        first = draw(0)[:, 0]
        rolled = torch.stack([cloud.roll(-int(i), 0) for cloud, i in zip(points, first)])
        assert torch.equal((farthest_point_sample(rolled, 8) + first[:, None]) % 200, draw(0))

    def test_16_bit_points_are_compared_in_float32(self):
        points = sample_cloud(300)[..., :3].half()
        assert torch.equal(farthest_point_sample(points, 40), farthest_point_sample(points.float(), 40))

    def test_is_a_sound_operator(self):
        points, start = sample_cloud(30)[..., :3], torch.zeros(2, dtype=torch.long)
        torch.library.opcheck(torch.ops.diffusers_vilearn.farthest_point_sample, (points, start, 5))

    @pytest.mark.parametrize("shape, count", [((2, 9, 4), 3), ((9, 3), 3), ((2, 9, 3), 10), ((2, 9, 3), 0)])
    def test_errors(self, shape, count):
        with pytest.raises(ValueError, match=r"`points`|`num_samples`"):
            farthest_point_sample(torch.zeros(shape), count)


class TestPosterior:
    def test_moments_are_split_on_the_last_dimension(self):
        parameters = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)) * 40
        posterior = DiagonalGaussianDistribution(parameters)
        assert torch.equal(posterior.mode(), parameters[..., :3])
        assert torch.equal(posterior.parameters, parameters)
        assert posterior.logvar.min() == -30 and posterior.logvar.max() == 20

    def test_kl_is_the_mean_per_number(self):
        parameters = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
        posterior = DiagonalGaussianDistribution(parameters)
        normal = torch.distributions.Normal(posterior.mean, posterior.std)
        expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean(dim=(1, 2))
        assert_close(posterior.kl(), expected)
        assert DiagonalGaussianDistribution(torch.zeros(1, 4, 2)).kl() == 0
        assert DiagonalGaussianDistribution(parameters.bfloat16()).kl().dtype == torch.float32

    def test_samples_have_the_stated_moments(self):
        mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 2.0])
        parameters = torch.cat([mean, 2 * std.log()]).expand(1, 20000, 4)
        draw = DiagonalGaussianDistribution(parameters).sample(torch.Generator().manual_seed(0))
        assert_close(draw.mean(dim=(0, 1)), mean, atol=0.05, rtol=0)
        assert_close(draw.std(dim=(0, 1)), std, atol=0.05, rtol=0)
        again = DiagonalGaussianDistribution(parameters).sample(torch.Generator().manual_seed(0))
        assert torch.equal(draw, again)


class TestFourierEmbedding:
    def test_coordinates_are_outer_and_frequencies_inner(self):
        xyz = torch.tensor([[0.1, -0.2, 0.3]])
        embedded = VecSetFourierEmbedding(num_freqs=3, scale=0.5)(xyz)
        phases = [x * 0.5 * 2**k for x in (0.1, -0.2, 0.3) for k in range(3)]
        expected = [0.1, -0.2, 0.3, *map(math.sin, phases), *map(math.cos, phases)]
        assert_close(embedded, torch.tensor([expected]))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_is_computed_in_float32(self, dtype):
        assert VecSetFourierEmbedding(num_freqs=2, scale=1.0)(torch.ones(1, 3, dtype=dtype)).dtype == torch.float32

    @pytest.mark.parametrize("include_pi, lowest", [(False, 0.5), (True, math.pi / 2)])
    def test_config_sets_the_frequencies(self, include_pi, lowest):
        vae = build(num_freqs=2, include_pi=include_pi, freq_scale=0.5)
        assert_close(vae.embed(torch.full((1, 3), 1.0))[0, [3, 4]], torch.tensor([lowest, 2 * lowest]).sin())
        assert vae.encoder.proj_in.in_features == 15 + 3

    def test_16_bit_positions_lose_no_more_than_their_rounding(self):
        vae = build().bfloat16()
        near = torch.tensor([[[0.5, 0.0, 0.0], [0.5005, 0.0, 0.0]]])  # one number in bfloat16
        with torch.no_grad():
            hidden = vae.decode(torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0)))
            embedded = vae.geometry.proj_query(vae._embed_xyz(near))
        assert hidden.dtype == torch.bfloat16 and not torch.equal(embedded[:, 0], embedded[:, 1])


class TestLayouts:
    @pytest.mark.parametrize(
        "layout, count", [("dora", 113), ("triposg", 109), ("hunyuan3d-2", 125), ("hunyuan3d-2-turbo", 121)]
    )
    def test_parameters_are_those_of_the_project(self, layout, count):
        keys = list(build(layout).state_dict())
        if (
            layout != "triposg"
        ):  # the others keep query, key and value of self-attention, key and value otherwise, fused
            split = [key for key in keys if key.endswith(("attn.to_k.weight", "attn.to_v.weight"))]
            keys = [key for key in keys if key not in split or ("cross_block" in key and "to_k" in key)]
        assert len(keys) == count

    @layouts
    def test_forward(self, layout):
        vae, inputs = build(layout), sample_inputs(layout)
        output = vae(**inputs, generator=torch.Generator().manual_seed(0))
        width = LAYOUTS[layout].get("decoder_width", 48)
        assert isinstance(output, VecSetVAEOutput)
        assert output.field.shape == (2, 30, 1) and output.hidden.shape == (2, 20, width)
        assert output.latent_dist.mean.shape == (2, 20, 8) and output.anchors.shape == (2, 20, 3)
        assert output.field.isfinite().all()
        as_tuple = vae(**inputs, generator=torch.Generator().manual_seed(0), return_dict=False)
        assert all(torch.equal(a, b) for a, b in zip(output.to_tuple(), as_tuple)) and len(as_tuple) == 4

    @layouts
    def test_every_parameter_gets_a_gradient(self, layout):
        vae = build(layout).train()
        output = vae(**sample_inputs(layout))
        (output.field.square().sum() + output.latent_dist.kl().sum()).backward()
        assert not [name for name, parameter in vae.named_parameters() if parameter.grad is None]

    def test_epsilons_reach_their_norms(self):
        vae = build("hunyuan3d-2", norm_eps=1e-6, final_norm_eps=1e-4, qk_norm_eps=1e-3)
        for name, module in vae.named_modules():
            if isinstance(module, nn.LayerNorm):
                qk = name.endswith(("norm_q", "norm_k"))
                assert module.eps == (1e-3 if qk else 1e-4 if name.endswith("norm_out") else 1e-6), name
        assert [m.normalized_shape for n, m in vae.named_modules() if n.endswith("attn.norm_q")] == [(16,)] * 7

    def test_turbo_head(self):
        head = build("hunyuan3d-2-turbo").geometry
        assert head.proj_latents.weight.shape == (32, 64) and head.cross_block.attn.to_k.weight.shape == (32, 32)
        assert head.cross_block.ff.net[2].weight.shape == (32, 32)
        assert isinstance(head.norm_out, nn.Identity) and isinstance(head.cross_block.attn.norm_q, nn.Identity)

    def test_gelu_is_exact(self):
        block = build().decoder.blocks[0].ff
        x = torch.linspace(-3, 3, 48)[None]
        hidden = block.net[0].proj(x)
        expected = block.net[2](hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))
        assert_close(block(x), expected, atol=1e-6, rtol=0)

    @layouts
    def test_geometry_head_is_what_its_projections_say(self, layout):
        """Attention over `project_key_value` by `project_query` is the whole interaction with the tokens."""
        vae, xyz = build(layout), sample_inputs(layout)["xyz"]
        with torch.no_grad():
            hidden = vae.decode(torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(0)))
            query, (key, value) = vae.project_query(xyz), vae.project_key_value(hidden)
            heads, channels = vae.geometry.cross_block.attn.heads, query.shape[-1]
            assert query.shape == (2, 30, heads, channels) and key.shape == value.shape == (2, 20, heads, channels)
            weights = torch.einsum("bqhd,bnhd->bhqn", query, key).div(channels**0.5).softmax(-1)
            attended = torch.einsum("bhqn,bnhd->bqhd", weights, value).flatten(2)
            block = vae.geometry.cross_block
            tokens = vae.geometry.proj_query(vae.embed(xyz)) + block.attn.to_out[0](attended)
            tokens = tokens + block.ff(block.norm2(tokens))
            expected = vae.geometry.proj_out(vae.geometry.norm_out(tokens))
            assert_close(vae.query(xyz, hidden), expected, atol=1e-5, rtol=0)

    def test_dual_blocks_are_added_residuals_included(self):
        vae, inputs = build("dora", num_encoder_layers=0), sample_inputs("dora")
        for block in (vae.encoder.cross_block, vae.encoder.cross_block_sharp):
            for layer in (block.attn.to_out[0], block.ff.net[2]):
                nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
        seen = []
        vae.encoder.norm_out.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        points, sharp_points = inputs["points"], inputs["sharp_points"]
        index, sharp_index = torch.arange(4).expand(2, 4), torch.arange(3).expand(2, 3)
        vae._encode(points, sharp_points, index, sharp_index)
        queries = vae.encoder.proj_in(vae._embed_points(points[:, :4]))
        sharp_queries = vae.encoder.proj_in_sharp(vae._embed_points(sharp_points[:, :3]))
        assert_close(seen[0], 2 * torch.cat([queries, sharp_queries], dim=1))

    def test_flagged_clouds_are_one_cloud(self):
        vae, inputs = build("hunyuan3d-2"), sample_inputs("hunyuan3d-2")
        points, sharp_points = inputs["points"], inputs["sharp_points"]
        index, sharp_index = torch.arange(5).expand(2, 5), torch.arange(2).expand(2, 2)
        apart = vae._encode(points, sharp_points, index, sharp_index)
        together = vae._encode(
            torch.cat([points, sharp_points], 1), None, torch.cat([index, 120 + sharp_index], 1), None
        )
        assert_close(apart, together)


class TestEncode:
    @pytest.mark.parametrize("layout, uniform", [("dora", 10), ("hunyuan3d-2", 12)])
    def test_tokens_are_shared_out_between_the_clouds(self, layout, uniform):
        inputs = sample_inputs(layout)
        anchors = build(layout)(**inputs).anchors
        for cloud, part in ((inputs["points"], anchors[:, :uniform]), (inputs["sharp_points"], anchors[:, uniform:])):
            assert torch.cdist(part, cloud[..., :3]).amin(-1).max() < 1e-3
            index = farthest_point_sample(cloud[..., :3], part.shape[1])
            assert torch.equal(part, cloud[..., :3].gather(1, index[..., None].expand(-1, -1, 3)))

    @layouts
    @pytest.mark.parametrize("num_tokens", [2, 33])
    def test_any_number_of_tokens(self, layout, num_tokens):
        vae, inputs = build(layout), sample_inputs(layout)
        del inputs["xyz"]
        assert vae.encode(**inputs, num_tokens=num_tokens).latent_dist.mean.shape == (2, num_tokens, 8)
        assert vae.encode(**inputs, return_dict=False)[0].mean.shape == (2, 20, 8)

    def test_only_the_generator_makes_it_random(self):
        vae, points = build(), sample_cloud(120)
        encode = lambda seed: vae.encode(  # noqa: E731
            points, generator=None if seed is None else torch.Generator().manual_seed(seed)
        ).latent_dist.mode()
        assert torch.equal(encode(None), encode(None)) and torch.equal(encode(0), encode(0))
        assert not torch.equal(encode(0), encode(1))

    @layouts
    def test_order_of_the_context_is_immaterial(self, layout):
        vae, inputs = build(layout), sample_inputs(layout)
        generator = torch.Generator().manual_seed(3)
        clouds = [inputs["points"], inputs.get("sharp_points")]
        index = [None if cloud is None else torch.arange(6).expand(2, 6) for cloud in clouds]
        shuffled, moved = [None, None], [None, None]
        for i, cloud in enumerate(clouds):
            if cloud is not None:
                order = torch.randperm(cloud.shape[1], generator=generator)
                shuffled[i], moved[i] = cloud[:, order], order.argsort()[index[i]]
        assert_close(vae._encode(*clouds, *index), vae._encode(*shuffled, *moved), atol=1e-5, rtol=0)

    def test_normals_matter(self):
        vae, points = build(), sample_cloud(120)
        flipped = torch.cat([points[..., :3], -points[..., 3:]], dim=-1)
        assert (vae.encode(points).latent_dist.mean - vae.encode(flipped).latent_dist.mean).abs().max() > 1e-3

    def test_samples_of_a_batch_are_independent(self):
        vae, points = build(), sample_cloud(120)
        moments = vae.encode(points).latent_dist.parameters
        assert_close(moments[1:], vae.encode(points[1:]).latent_dist.parameters, atol=1e-5, rtol=0)


class TestDecodeAndQuery:
    def test_permuting_tokens_permutes_hidden_and_leaves_the_field(self):
        vae, xyz = build(), sample_inputs()["xyz"]
        latents = torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(0))
        order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
        hidden, permuted = vae.decode(latents), vae.decode(latents[:, order])
        assert_close(permuted, hidden[:, order], atol=1e-5, rtol=0)
        assert_close(vae.query(xyz, permuted), vae.query(xyz, hidden), atol=1e-5, rtol=0)

    @layouts
    def test_keys_and_values_once_for_all_chunks(self, layout):
        vae, xyz = build(layout), sample_inputs(layout)["xyz"]
        hidden = vae.decode(torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(0)))
        whole, calls = vae.query(xyz, hidden), []
        for layer in (vae.geometry.cross_block.attn.to_k, vae.geometry.cross_block.attn.to_v):
            layer.register_forward_hook(lambda *_: calls.append(1))
        pair = vae.project_key_value(hidden)
        chunked = torch.cat([vae.query(chunk, pair) for chunk in xyz.split(7, dim=1)], dim=1)
        assert len(calls) == 2
        assert_close(chunked, whole, atol=1e-5, rtol=0)

    @layouts
    def test_slicing_changes_nothing(self, layout):
        vae, inputs = build(layout), sample_inputs(layout)
        run = lambda: vae(**inputs, generator=torch.Generator().manual_seed(0)).to_tuple()  # noqa: E731
        whole, batch_sizes = run(), []
        pair = vae.project_key_value(whole[2])
        for module in (vae.encoder, vae.decoder, vae.geometry):
            module.register_forward_pre_hook(lambda module, args: batch_sizes.append(args[0].shape[0]))
        vae.enable_slicing()
        for a, b in zip(whole, run()):
            assert_close(a, b, atol=1e-5, rtol=0)
        assert_close(vae.query(inputs["xyz"], pair), whole[0], atol=1e-5, rtol=0)
        assert batch_sizes == [1] * 8
        vae.disable_slicing()
        run()
        assert batch_sizes[8:] == [2] * 3

    @pytest.mark.parametrize(
        "scaling, shift", [(0.5, 0.25), ([0.5 + i for i in range(8)], [0.1 * i for i in range(8)])]
    )
    def test_normalised_latents(self, scaling, shift):
        vae = build(scaling_factor=scaling, shift_factor=shift)
        latents = torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(0))
        normalised = vae.normalize_latents(latents)
        assert_close(normalised, (latents - torch.tensor(shift)) * torch.tensor(scaling))
        assert_close(vae.denormalize_latents(normalised), latents)
        assert vae.normalize_latents(latents.bfloat16()).dtype == torch.bfloat16


class TestErrors:
    @pytest.mark.parametrize(
        "config, name",
        [
            ({"encoder_heads": 5}, "encoder_width"),
            ({"decoder_heads": 5}, "decoder_width"),
            ({"geometry_width": 32}, "geometry_width"),
            ({"scaling_factor": [1.0, 2.0]}, "scaling_factor"),
            ({"shift_factor": [0.0]}, "shift_factor"),
            ({"dual_cross_attention": True, "sharp_flag": True}, "sharp_flag"),
            ({"point_channels": 2}, "point_channels"),
            ({"frame": "camera"}, "frame"),
        ],
    )
    def test_config(self, config, name):
        with pytest.raises(ValueError, match=name):
            build(**config)

    @pytest.mark.parametrize(
        "layout, arguments, name",
        [
            ("plain", {"points": sample_cloud(50)[0]}, "points"),
            ("plain", {"points": sample_cloud(50, channels=3)}, "points"),
            ("plain", {"points": sample_cloud(50), "sharp_points": sample_cloud(50)}, "sharp_points"),
            ("plain", {"points": sample_cloud(50), "num_tokens": 51}, "num_tokens"),
            ("plain", {"points": sample_cloud(50), "num_tokens": 0}, "num_tokens"),
            ("dora", {"points": sample_cloud(50)}, "sharp_points"),
            ("dora", {"points": sample_cloud(50), "sharp_points": sample_cloud(9)}, "sharp_points"),
            ("dora", {"points": sample_cloud(50), "sharp_points": sample_cloud(50, batch_size=3)}, "batch size 3"),
            ("hunyuan3d-2", {"points": sample_cloud(50)}, "points"),
        ],
    )
    def test_encode(self, layout, arguments, name):
        with pytest.raises(ValueError, match=name):
            build(layout).encode(**arguments)

    def test_decode_and_query(self):
        vae, hidden = build(), torch.zeros(2, 20, 48)
        for latents in (torch.zeros(20, 8), torch.zeros(2, 20, 9)):
            with pytest.raises(ValueError, match="latents"):
                vae.decode(latents)
        for xyz in (torch.zeros(5, 3), torch.zeros(2, 5, 2), torch.zeros(1, 5, 3)):
            with pytest.raises(ValueError, match="xyz"):
                vae.query(xyz, hidden)
        with pytest.raises(ValueError, match="xyz"):
            vae.project_query(torch.zeros(5, 3))


class TestDiffusersCitizen:
    def test_bases_and_config(self):
        vae = build(scaling_factor=[1.0] * 8, bounds=[-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], frame="view")
        assert isinstance(vae, ModelMixin) and isinstance(vae, ConfigMixin)
        again = VecSetVAE.from_config(json.loads(vae.to_json_string()))
        parameters = set(inspect.signature(VecSetVAE.__init__).parameters) - {"self"}
        assert parameters <= set(vae.config)
        assert all(list(vae.config[k]) == list(again.config[k]) for k in ("scaling_factor", "bounds"))
        assert all(vae.config[k] == again.config[k] for k in parameters - {"scaling_factor", "bounds"})

    def test_flags_name_what_exists(self):
        modules = dict(build().named_modules())
        classes = {type(module).__name__ for module in modules.values()}
        assert {*VecSetVAE._no_split_modules, *VecSetVAE._repeated_blocks} <= classes
        assert set(VecSetVAE._group_offload_block_modules) <= set(dict(build().named_children()))
        for pattern in VecSetVAE._skip_layerwise_casting_patterns:
            assert any(re.search(pattern, name) for name in modules), pattern

    @layouts
    def test_every_attention_is_dispatched_without_a_mask(self, layout, monkeypatch):
        vae = build(layout)
        attentions = [module for module in vae.modules() if isinstance(module, AttentionModuleMixin)]
        assert len(attentions) == 7 + (layout == "dora")
        backends = attention_dispatch._AttentionBackendRegistry._backends
        native = attention_dispatch.AttentionBackendName.NATIVE
        masks, kernels = [], []
        kernel, sdpa = backends[native], nn.functional.scaled_dot_product_attention
        monkeypatch.setitem(backends, native, lambda *a, **k: masks.append(k["attn_mask"]) or kernel(*a, **k))
        monkeypatch.setattr(
            nn.functional, "scaled_dot_product_attention", lambda *a, **k: kernels.append(1) or sdpa(*a, **k)
        )
        vae.set_attention_backend("native")
        vae(**sample_inputs(layout))
        assert len(masks) == len(kernels) == len(attentions) and not any(mask is not None for mask in masks)

    @layouts
    def test_checkpointing_recomputes_every_block_and_keeps_the_gradients(self, layout):
        def gradients(vae):
            vae(**sample_inputs(layout), sample_posterior=False).field.square().sum().backward()
            return [parameter.grad for parameter in vae.parameters() if parameter.grad is not None]

        plain, vae, calls = gradients(build(layout).train()), build(layout).train(), []

        def checkpoint(module, *args):
            calls.append(module)
            return torch.utils.checkpoint.checkpoint(module, *args, use_reentrant=False)

        vae.enable_gradient_checkpointing(checkpoint)
        for a, b in zip(plain, gradients(vae), strict=True):
            assert_close(a, b)
        blocks = [m for m in vae.modules() if type(m).__name__ in VecSetVAE._no_split_modules]
        assert sorted(map(id, calls)) == sorted(map(id, blocks))

    @pytest.mark.parametrize("layout", ["plain", "hunyuan3d-2", "wide-context"])
    def test_fused_projections(self, layout):
        vae, inputs = build(layout), sample_inputs(layout)
        before = vae(**inputs, sample_posterior=False).field
        vae.fuse_qkv_projections()
        called = []
        for name, module in vae.named_modules():
            if name.endswith(("to_qkv", "to_kv")):
                module.register_forward_hook(lambda *_: called.append(1))
        assert_close(vae(**inputs, sample_posterior=False).field, before, atol=1e-5, rtol=0)
        assert len(called) == 7
        vae.unfuse_qkv_projections()
        assert torch.equal(vae(**inputs, sample_posterior=False).field, before)

    def test_offload_hooks_run_for_each_entry(self):
        class Hook:
            def __init__(self):
                self.calls = 0

            def pre_forward(self, module):
                self.calls += 1

        vae = build()
        vae._hf_hook = hook = Hook()
        cloud, xyz, latents = sample_cloud(50), torch.zeros(2, 1, 3), torch.zeros(2, 4, 8)
        hidden = vae.decode(latents)
        for entry, arguments in (
            (vae.encode, (cloud,)),
            (vae.encode_with_anchors, (cloud,)),
            (vae.decode, (latents,)),
            (vae.query, (xyz, hidden)),
            (vae.project_query, (xyz,)),
            (vae.project_key_value, (hidden,)),
        ):
            before = hook.calls
            entry(*arguments)
            assert hook.calls > before, entry

    def test_round_trip(self, tmp_path):
        vae = build("dora")
        vae.save_pretrained(tmp_path)
        again = VecSetVAE.from_pretrained(tmp_path).eval()
        inputs = sample_inputs("dora")
        a, b = (model(**inputs, sample_posterior=False).field for model in (vae, again))
        assert torch.equal(a, b)

    def test_sharded_fp16_variant_round_trip(self, tmp_path):
        vae = build("hunyuan3d-2").half()
        vae.save_pretrained(tmp_path, variant="fp16", max_shard_size="150KB")
        assert (tmp_path / "diffusion_pytorch_model.safetensors.index.fp16.json").is_file()
        again = VecSetVAE.from_pretrained(tmp_path, variant="fp16", dtype=torch.float16)
        assert all(torch.equal(a, b) for a, b in zip(vae.state_dict().values(), again.state_dict().values()))
        assert again.dtype == torch.float16

    @layouts
    def test_bfloat16_is_close_to_float32(self, layout):
        vae, inputs = build(layout), sample_inputs(layout)
        expected = vae(**inputs, sample_posterior=False)
        with torch.autocast("cpu", torch.bfloat16):
            autocast = vae(**inputs, sample_posterior=False)
        half = vae.bfloat16()(**inputs, sample_posterior=False)
        assert half.field.dtype == torch.bfloat16
        for output in (autocast, half):
            assert torch.equal(output.anchors, expected.anchors)
            assert_close(output.field.float(), expected.field, atol=0.05, rtol=0)

    def test_trains_under_bfloat16_autocast(self):
        vae, inputs = build().train(), sample_inputs()
        optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3)
        target = 0.7 - inputs["xyz"].norm(dim=-1, keepdim=True)
        losses = []
        for _ in range(12):
            with torch.autocast("cpu", torch.bfloat16):
                output = vae(**inputs, sample_posterior=False)
                loss = nn.functional.mse_loss(output.field.float(), target) + 1e-4 * output.latent_dist.kl().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]

    def test_no_float64(self):
        vae, seen = build("dora"), []
        for module in vae.modules():
            module.register_forward_hook(
                lambda module, args, out: seen.extend(x.dtype for x in (*args, out) if torch.is_tensor(x))
            )
        vae(**sample_inputs("dora"))
        assert seen and torch.float64 not in seen

    def test_accelerate_can_rebuild_the_output(self):
        vae = Accelerator(mixed_precision="bf16", cpu=True).prepare(build())
        output = vae(**sample_inputs())
        assert isinstance(output, VecSetVAEOutput) and output.anchors.shape == (2, 20, 3)
        assert output.field.dtype == output.latent_dist.mean.dtype == torch.float32

    @pytest.mark.parametrize("layout", ["dora", "hunyuan3d-2-turbo"])
    def test_compiles_to_one_graph(self, layout):
        torch.compiler.reset()
        vae, inputs = build(layout), sample_inputs(layout)
        graphs = []

        def backend(graph, _):
            graphs.append(graph)
            return graph.forward

        compiled = torch.compile(vae, fullgraph=True, backend=backend)
        output, expected = (model(**inputs, sample_posterior=False) for model in (compiled, vae))
        assert_close(output.field, expected.field)
        assert torch.equal(output.anchors, expected.anchors)
        compiled(**inputs)
        assert len(graphs) == 2
        sampling = [n for n in graphs[0].graph.nodes if "farthest_point_sample" in str(n.target)]
        assert len(sampling) == 2  # one node a cloud, whatever the number of tokens
        pair = torch.compile(vae.project_key_value, fullgraph=True, backend=backend)(expected.hidden)
        field = torch.compile(vae.query, fullgraph=True, backend=backend)(inputs["xyz"], pair)
        assert_close(field, expected.field, atol=1e-5, rtol=0)
