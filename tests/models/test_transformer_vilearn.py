# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from diffusers import ContextParallelConfig, FirstBlockCacheConfig, LayerSkipConfig, ParallelConfig, apply_layer_skip
from peft import LoraConfig

from diffusers_vilearn import ViLearnTransformer3DModel
from diffusers_vilearn.models import transformer_vilearn
from diffusers_vilearn.models.transformer_vilearn import (
    VILEARN_LARGE,
    VILEARN_SMALL,
    VISIBILITY_ENCODINGS,
    ViLearnVisibilityEmbed,
)

TINY = {
    "in_channels": 4,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "joint_attention_dim": 12,
}
BATCH, TOKENS, IMAGE_TOKENS = 2, 9, 5
BY_MASK = ("va_rope", "va_lpe", "va_rope_lpe")


def build(encoding="va_rope", seed=0, **config):
    """A small model whose visibility vectors and gates are large enough to matter."""
    torch.manual_seed(seed)
    model = ViLearnTransformer3DModel(**{**TINY, "visibility_encoding": encoding, **config})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("pos_embed") or "scale_shift_table" in name:
                parameter.normal_()
    return model.eval()


def with_weights_of(model, **config):
    """The same weights under another configuration; visibility vectors are dropped if the other has none."""
    other = ViLearnTransformer3DModel.from_config(model.config, **config)
    assert not other.load_state_dict(model.state_dict(), strict=False).missing_keys
    return other.eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(BATCH, TOKENS, TINY["in_channels"], generator=generator),
        "encoder_hidden_states": torch.randn(BATCH, IMAGE_TOKENS, TINY["joint_attention_dim"], generator=generator),
        "timestep": torch.tensor([700.0, 31.5]),
        "visible_mask": torch.tensor([[1, 0, 0, 1, 1, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0, 0, 0, 0]]).bool(),
    }


@torch.no_grad()
def run(model, inputs, **changes):
    return model(**{**inputs, **changes}).sample


@pytest.fixture
def attention_calls(monkeypatch):
    """(query, key, value) of every attention the model computes, each (batch, tokens, heads, head_dim)."""
    calls = []
    dispatch = transformer_vilearn.dispatch_attention_fn

    def record(query, key, value, **kwargs):
        calls.append((query, key, value))
        return dispatch(query, key, value, **kwargs)

    monkeypatch.setattr(transformer_vilearn, "dispatch_attention_fn", record)
    return calls


def rotated(x, positions, theta=10000.0):
    """RoPE as complex numbers: channels (i, i + head_dim / 2) of `x` turned by positions * theta^(-2i / head_dim)."""
    head_dim = x.shape[-1]
    frequencies = theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = positions[:, :, None, None] * frequencies
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


# Size


@pytest.mark.parametrize(("preset", "millions"), [(VILEARN_SMALL, 394.1), (VILEARN_LARGE, 1130.7)])
@pytest.mark.parametrize("encoding", VISIBILITY_ENCODINGS)
def test_sizes_of_the_paper(preset, millions, encoding):
    with torch.device("meta"):
        model = ViLearnTransformer3DModel.from_config(preset, visibility_encoding=encoding)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions
    assert model.config.visible_fraction == 1 / 3 and model.config.frame == "canonical"


# Visibility-aware positional encoding


def test_va_rope_scales_cross_class_logits_by_0_467_at_head_dim_96():
    frequencies = 10000.0 ** (-torch.arange(0, 96, 2) / 96)
    assert torch.cos(50 * frequencies).mean().item() == pytest.approx(0.467, abs=5e-4)

    embed = ViLearnVisibilityEmbed(1, 96, "va_rope", visible_position=0, invisible_position=50, rope_theta=10000.0)
    tokens = 4000
    x = torch.randn(1, tokens, 1, 96, generator=torch.Generator().manual_seed(0))
    (cos, sin), _ = embed(torch.zeros(1, tokens, dtype=torch.bool), tokens, x.device)
    invisible = transformer_vilearn._apply_rotary_emb(x, (cos, sin))
    # tokens that are alike in content: query of a visible one, key of an invisible one
    ratio = (x * invisible).sum(-1) / (x * x).sum(-1)
    assert ratio.mean().item() == pytest.approx(0.467, abs=5e-3)


def test_va_rope_leaves_same_class_logits_equal_to_none(inputs, attention_calls):
    model = build("va_rope")
    run(model, inputs)
    run(with_weights_of(model, visibility_encoding="none"), inputs)
    num_blocks = TINY["num_layers"] + TINY["num_single_layers"]
    logits, plain = (
        torch.einsum("bqhd,bkhd->bhqk", query, key)
        for query, key, _ in (attention_calls[0], attention_calls[num_blocks])
    )
    visible = torch.cat([torch.ones(BATCH, IMAGE_TOKENS).bool(), inputs["visible_mask"]], dim=1)
    same = (visible[:, :, None] == visible[:, None, :])[:, None].expand_as(logits)
    torch.testing.assert_close(logits[same], plain[same])
    assert (logits[~same] - plain[~same]).abs().mean() > 0.1 * plain[~same].abs().mean()


@pytest.mark.parametrize("encoding", VISIBILITY_ENCODINGS)
def test_encoding_acts_on_queries_and_keys_of_double_blocks_only(encoding, inputs, attention_calls):
    model = build(encoding)
    given = []
    blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
    for block in blocks:
        block.attn.register_forward_pre_hook(lambda module, args: given.append(args))
    run(model, inputs)

    mask = inputs["visible_mask"]
    positions = torch.where(mask, 0.0, 50.0)
    if encoding == "rope":  # ranks, visible tokens first
        positions = torch.stack([torch.cat([row.nonzero(), (~row).nonzero()])[:, 0].argsort() for row in mask]).float()
    for block, args, (query, key, value) in zip(blocks, given, attention_calls, strict=True):
        attn, double = block.attn, block in model.transformer_blocks
        heads = (model.config.num_attention_heads, model.config.attention_head_dim)
        expected_query, expected_key, expected_value = (
            norm(projection(args[0]).unflatten(-1, heads))
            for norm, projection in ((attn.norm_q, attn.to_q), (attn.norm_k, attn.to_k), (lambda x: x, attn.to_v))
        )
        if double and encoding in ("va_lpe", "va_rope_lpe"):
            vectors = torch.where(
                mask[..., None], model.pos_embed.visible_embedding, model.pos_embed.invisible_embedding
            ).unflatten(-1, heads)
            expected_query, expected_key = expected_query + vectors, expected_key + vectors
        if double and encoding in ("va_rope", "va_rope_lpe", "rope"):
            expected_query, expected_key = rotated(expected_query, positions), rotated(expected_key, positions)
        torch.testing.assert_close(query[:, -TOKENS:], expected_query)
        torch.testing.assert_close(key[:, -TOKENS:], expected_key)
        torch.testing.assert_close(value[:, -TOKENS:], expected_value)

        if not double:  # shape tokens only
            assert len(args) == 1 and query.shape[1] == key.shape[1] == value.shape[1] == TOKENS
            continue
        expected_key = attn.norm_added_k(attn.add_k_proj(args[1]).unflatten(-1, heads))
        if encoding in ("va_lpe", "va_rope_lpe"):
            expected_key = expected_key + model.pos_embed.visible_embedding.unflatten(-1, heads)
        torch.testing.assert_close(key[:, :-TOKENS], expected_key)
        torch.testing.assert_close(value[:, :-TOKENS], attn.add_v_proj(args[1]).unflatten(-1, heads))


@pytest.mark.parametrize("encoding", [*BY_MASK, "none"])
def test_permuting_tokens_with_their_mask_permutes_the_output(encoding, inputs):
    model = build(encoding)
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(2))
    permuted = {name: inputs[name][:, order] for name in ("hidden_states", "visible_mask")}
    torch.testing.assert_close(run(model, inputs, **permuted), run(model, inputs)[:, order])


def test_rope_over_the_sorted_sequence_is_not_permutation_equivariant(inputs):
    model = build("rope")
    permuted = {name: inputs[name].flip(1) for name in ("hidden_states", "visible_mask")}
    assert not torch.allclose(run(model, inputs, **permuted), run(model, inputs).flip(1), atol=1e-3)


def test_rope_sorts_visible_tokens_first_and_keeps_the_order_without_a_mask(inputs):
    model = build("rope")
    order = inputs["visible_mask"].float().argsort(dim=1, descending=True, stable=True)
    in_order = inputs["hidden_states"].gather(1, order[..., None].expand_as(inputs["hidden_states"]))
    plain = run(model, inputs, hidden_states=in_order, visible_mask=None)
    sorted_output = run(model, inputs).gather(1, order[..., None].expand_as(plain))
    torch.testing.assert_close(plain, sorted_output)


@pytest.mark.parametrize("encoding", VISIBILITY_ENCODINGS)
def test_image_tokens_are_a_set(encoding, inputs):
    model = build(encoding)
    flipped = run(model, inputs, encoder_hidden_states=inputs["encoder_hidden_states"].flip(1))
    torch.testing.assert_close(flipped, run(model, inputs))


@pytest.mark.parametrize("encoding", [*BY_MASK, "rope"])
def test_the_mask_matters(encoding, inputs):
    model = build(encoding)
    assert not torch.allclose(run(model, inputs), run(model, inputs, visible_mask=~inputs["visible_mask"]), atol=1e-3)


@pytest.mark.parametrize("encoding", [*BY_MASK, "rope"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float_masks_of_zeros_and_ones_equal_bool_masks(encoding, dtype, inputs):
    model = build(encoding)
    assert torch.equal(run(model, inputs, visible_mask=inputs["visible_mask"].to(dtype)), run(model, inputs))


def test_partly_visible_tokens_stand_in_between(inputs):
    """v = 0.5 between positions 0 and 50 is position 25, and the mean of the two learned vectors."""
    half = {"visible_mask": inputs["visible_mask"].float().clamp(min=0.5)}
    rope = build("va_rope")
    torch.testing.assert_close(
        run(rope, inputs, **half), run(with_weights_of(rope, invisible_position=25), inputs), rtol=1e-4, atol=1e-5
    )
    lpe = build("va_lpe")
    expected = run(lpe, inputs, **half)
    with torch.no_grad():
        lpe.pos_embed.invisible_embedding.add_(lpe.pos_embed.visible_embedding).div_(2)
    torch.testing.assert_close(run(lpe, inputs), expected)


def test_only_the_distance_of_positions_matters(inputs):
    model = build("va_rope")
    assert torch.equal(
        run(model, inputs), run(with_weights_of(model, visible_position=7, invisible_position=57), inputs)
    )


def test_batch_rows_do_not_see_each_other(inputs):
    model = build("va_rope_lpe")
    rows = [run(model, {name: value[i : i + 1] for name, value in inputs.items()}) for i in range(BATCH)]
    torch.testing.assert_close(torch.cat(rows), run(model, inputs))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"visibility_encoding": "sinusoidal"}, "visibility_encoding"),
        ({"qk_norm": "layer_norm"}, "qk_norm"),
        ({"attention_head_dim": 15}, "attention_head_dim"),
        ({"num_layers": 0}, "num_layers"),
        ({"visible_fraction": 1.5}, "visible_fraction"),
        ({"frame": "camera"}, "frame"),
    ],
)
def test_configuration_errors_name_the_argument(config, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ViLearnTransformer3DModel(**{**TINY, **config})


@pytest.mark.parametrize("encoding", BY_MASK)
@pytest.mark.parametrize(
    "mask",
    [None, torch.ones(BATCH, TOKENS + 1).bool(), torch.ones(TOKENS).bool(), torch.ones(BATCH, TOKENS).long()],
    ids=["missing", "tokens", "batch", "dtype"],
)
def test_mask_errors(encoding, mask, inputs):
    with pytest.raises(ValueError, match="`visible_mask`"):
        run(build(encoding), inputs, visible_mask=mask)


def test_none_ignores_the_mask(inputs):
    model = build("none")
    assert torch.equal(run(model, inputs), run(model, inputs, visible_mask=None))


# Training


def test_gradients_reach_every_parameter(inputs):
    model = build("va_rope_lpe").train()
    model(**inputs).sample.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_training_starts_calm():
    """At initialisation the output is small beside the unit scale of the target, yet not dead."""
    torch.manual_seed(0)
    model = ViLearnTransformer3DModel(**{**TINY, "num_attention_heads": 8})
    x = torch.randn(4, 64, 4)
    with torch.no_grad():
        output = model(x, torch.randn(4, 8, 12), torch.full((4,), 500.0), torch.zeros(4, 64).bool()).sample
    assert 0 < output.std() < 0.5


def test_gradient_checkpointing_is_called_and_changes_nothing(inputs):
    model = build("va_rope_lpe").train()
    plain = model(**inputs).sample
    plain.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    called = []

    def checkpoint(module, *args):
        called.append(module)
        return torch.utils.checkpoint.checkpoint(module, *args, use_reentrant=False)

    model.enable_gradient_checkpointing(checkpoint)
    output = model(**inputs).sample
    output.square().sum().backward()
    assert called == [*model.transformer_blocks, *model.single_transformer_blocks]
    assert torch.equal(output, plain)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], msg=name)

    called.clear()
    run(model, inputs)
    assert called == []


@pytest.mark.parametrize("encoding", VISIBILITY_ENCODINGS)
def test_bfloat16_autocast_is_close_to_float32(encoding, inputs):
    model = build(encoding)
    with torch.autocast("cpu", torch.bfloat16):
        output = run(model, inputs)
    expected = run(model, inputs)
    assert (output - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, inputs):
    model = build("va_rope_lpe")
    expected = run(model, inputs)
    half = {name: x.to(dtype) if name.endswith("hidden_states") else x for name, x in inputs.items()}
    output = run(model.to(dtype), half)
    assert output.dtype == dtype
    assert (output.float() - expected).norm() < 0.05 * expected.norm()


def test_neighbouring_timesteps_differ_in_bfloat16(inputs):
    """bfloat16 holds 8 bits: 999 and 1000 must not become one before the sinusoids."""
    model = build().to(torch.bfloat16)
    half = {name: x.bfloat16() if name.endswith("hidden_states") else x for name, x in inputs.items()}
    outputs = [run(model, half, timestep=torch.full((BATCH,), t)) for t in (999.0, 1000.0)]
    assert not torch.equal(*outputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_timestep_stays_in_float32(dtype, tmp_path, inputs):
    """Of weights loaded in half precision, the shared timestep block and every table are the saved ones."""
    model = build("va_rope_lpe")
    model.save_pretrained(tmp_path)
    loaded = ViLearnTransformer3DModel.from_pretrained(tmp_path, dtype=dtype)
    assert loaded.dtype == dtype
    kept = {name for name, parameter in loaded.named_parameters() if parameter.dtype == torch.float32}
    assert kept == {name for name in model.state_dict() if "adaln_single" in name or "scale_shift_table" in name}

    embedded = []
    for one in (model, loaded):
        one.adaln_single.register_forward_hook(lambda module, args, output: embedded.append(output))
    half = {name: x.to(dtype) if name.endswith("hidden_states") else x for name, x in inputs.items()}
    expected, output = run(model, inputs), run(loaded, half)
    assert all(torch.equal(one, other) for one, other in zip(*embedded, strict=True))
    assert output.dtype == dtype
    assert (output.float() - expected).norm() < 0.05 * expected.norm()


def test_modulation_is_rounded_once():
    table = torch.full((1, 1), 1.0)
    temb = torch.full((1, 6, 1), 2**-8 + 2**-12)  # bfloat16 makes 2**-8 of it, and then 1 of the sum, a tie
    (modulation,) = transformer_vilearn._modulation(table, temb, torch.bfloat16)
    assert modulation.dtype == torch.bfloat16
    assert modulation.item() == 1 + 2**-7


@pytest.mark.parametrize("encoding", VISIBILITY_ENCODINGS)
def test_nothing_is_computed_in_float64(encoding, inputs):
    seen = []

    class Dtypes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            output = function(*args, **(kwargs or {}))
            leaves = torch.utils._pytree.tree_leaves(output)
            seen.extend(str(function) for x in leaves if torch.is_tensor(x) and x.dtype == torch.float64)
            return output

    model = build(encoding)
    with Dtypes():
        run(model, inputs)
    assert seen == []


# diffusers


@pytest.mark.parametrize("encoding", VISIBILITY_ENCODINGS)
def test_compiles_to_one_graph(encoding, inputs):
    model = build(encoding)
    expected = run(model, inputs)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(compiled, inputs), expected)


def test_repeated_blocks_compile(inputs):
    model = build()
    expected = run(model, inputs)
    torch.compiler.reset()
    model.compile_repeated_blocks(fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(model, inputs), expected)


def test_save_and_load(tmp_path, inputs):
    model = build("va_rope_lpe", visible_fraction=0.41, frame="view")
    model.save_pretrained(tmp_path)
    again = ViLearnTransformer3DModel.from_pretrained(tmp_path)
    assert torch.equal(run(again, inputs), run(model, inputs))
    assert (again.config.visible_fraction, again.config.frame) == (0.41, "view")


def test_half_precision_shards(tmp_path):
    model = build("va_lpe").to(torch.float16)
    model.save_pretrained(tmp_path, variant="fp16", max_shard_size="40KB")
    assert len(list(tmp_path.glob("*-of-*.safetensors"))) > 1
    again = ViLearnTransformer3DModel.from_pretrained(tmp_path, variant="fp16", dtype=torch.float16)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name].to(value.dtype)), name


def test_lora(tmp_path, inputs):
    model = build()
    plain = run(model, inputs)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"]
    torch.manual_seed(3)
    model.add_adapter(LoraConfig(r=2, lora_alpha=8, target_modules=targets, init_lora_weights=False))
    adapted = run(model, inputs)
    assert not torch.allclose(adapted, plain, atol=1e-3)
    torch.testing.assert_close(run(model, inputs, attention_kwargs={"scale": 0.0}), plain)
    torch.testing.assert_close(run(model, inputs), adapted)

    model.save_lora_adapter(tmp_path)
    again = with_weights_of(build())
    again.load_lora_adapter(tmp_path, prefix=None, weight_name="pytorch_lora_weights.safetensors")
    torch.testing.assert_close(run(again, inputs), adapted)

    model.fuse_lora()
    torch.testing.assert_close(run(model, inputs), adapted, rtol=1e-4, atol=1e-5)
    model.unfuse_lora()
    model.disable_adapters()
    torch.testing.assert_close(run(model, inputs), plain, rtol=1e-4, atol=1e-5)


def test_fused_projections_change_nothing(inputs):
    model = build("va_rope_lpe")
    expected = run(model, inputs)
    model.fuse_qkv_projections()
    assert all(block.attn.fused_projections for block in model.transformer_blocks)
    torch.testing.assert_close(run(model, inputs), expected)
    model.unfuse_qkv_projections()
    assert torch.equal(run(model, inputs), expected)


def test_first_block_cache_skips_the_rest(inputs, attention_calls):
    model = build()
    expected = run(model, inputs)
    model.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    with model.cache_context("denoise"):
        torch.testing.assert_close(run(model, inputs), expected)
        attention_calls.clear()
        nearby = run(model, inputs, timestep=inputs["timestep"] - 1)
        assert len(attention_calls) == 1
    assert (nearby - expected).norm() < 0.1 * expected.norm()
    model.disable_cache()
    torch.testing.assert_close(run(model, inputs), expected)


def test_outputs_and_unknown_attention_kwargs(inputs):
    model = build()
    with torch.no_grad():
        (sample,) = model(**inputs, return_dict=False)
    assert sample.shape == inputs["hidden_states"].shape
    assert torch.equal(sample, run(model, inputs))
    with pytest.raises(TypeError, match="nonsense"):
        run(model, inputs, attention_kwargs={"nonsense": 1})


def test_sequence_rope_refuses_context_parallelism(inputs):
    model = build("rope")
    model._parallel_config = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=2))
    with pytest.raises(ValueError, match="context parallelism"):
        run(model, inputs)


@pytest.mark.parametrize("fqn", ["transformer_blocks", "single_transformer_blocks"])
@pytest.mark.parametrize("image_tokens", [IMAGE_TOKENS, TOKENS])
def test_a_block_that_guiders_skip_is_as_if_it_were_not_there(inputs, fqn, image_tokens):
    embeds = torch.randn(BATCH, image_tokens, TINY["joint_attention_dim"])
    model, without = build(), build()
    del getattr(without, fqn)[0]
    expected = run(without, inputs, encoder_hidden_states=embeds)
    assert not torch.allclose(run(model, inputs, encoder_hidden_states=embeds), expected, atol=1e-3)
    apply_layer_skip(model, LayerSkipConfig(indices=[0], fqn=fqn))
    torch.testing.assert_close(run(model, inputs, encoder_hidden_states=embeds), expected)


@pytest.mark.parametrize("options", [{"skip_attention": False, "skip_attention_scores": True}, {}])
@pytest.mark.parametrize("fqn", ["transformer_blocks", "single_transformer_blocks"])
def test_attention_that_guiders_perturb_or_skip(inputs, fqn, options):
    model = build()
    plain = run(model, inputs)
    apply_layer_skip(model, LayerSkipConfig(indices=[0], fqn=fqn, skip_ff=False, **options))
    perturbed = run(model, inputs)
    assert torch.isfinite(perturbed).all() and not torch.allclose(perturbed, plain, atol=1e-3)
