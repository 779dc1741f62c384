# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook

from diffusers_vilearn.models.autoencoder_vecset import VecSetVAE
from diffusers_vilearn.visibility import group_visible_tokens, inference_visible_mask

TOKENS = 24


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return VecSetVAE(
        latent_channels=4,
        num_tokens=TOKENS,
        encoder_width=32,
        encoder_heads=4,
        num_encoder_layers=1,
        decoder_width=48,
        decoder_heads=3,
        num_decoder_layers=2,
        qk_norm=True,
    ).eval()


@pytest.fixture(scope="module")
def latents():
    return torch.randn(3, TOKENS, 4, generator=torch.Generator().manual_seed(1))


def random_points(*shape, seed=2):
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def naive_votes(vae, latents, points):
    """The whole (batch, heads, points, tokens) attention at once: votes of every token, (batch, tokens)."""
    with torch.no_grad():
        query = vae.project_query(points).transpose(1, 2).double()
        key = vae.project_key_value(vae.decode(latents))[0].transpose(1, 2).double()
        attention = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, dim=-1).mean(1)
    return torch.nn.functional.one_hot(attention.argmax(-1), latents.shape[1]).sum(1)


@pytest.mark.parametrize("chunk_size", [1, 37, 100, 1000])
def test_equals_the_whole_attention_at_once(vae, latents, chunk_size):
    points = random_points(3, 100)
    votes = naive_votes(vae, latents, points)
    mask = group_visible_tokens(vae, latents, points, chunk_size=chunk_size)
    assert mask.dtype == torch.bool and mask.shape == (3, TOKENS)
    assert torch.equal(mask, votes > 0)
    assert 0 < mask.sum() < mask.numel()


def test_ragged_points_equal_one_sample_at_a_time(vae, latents):
    ragged = [random_points(count, seed=count) for count in (5, 60, 1)]
    together = group_visible_tokens(vae, latents, ragged)
    for mask, sample, points in zip(together, latents, ragged, strict=True):
        assert torch.equal(mask, group_visible_tokens(vae, sample[None], points[None])[0])
    assert together[2].sum() == 1


def test_order_and_repetition_of_points(vae, latents):
    points = random_points(3, 50)
    mask = group_visible_tokens(vae, latents, points)
    assert torch.equal(mask, group_visible_tokens(vae, latents, points.flip(1)))
    assert torch.equal(mask, group_visible_tokens(vae, latents, points.repeat(1, 2, 1)))


def test_the_mask_follows_the_tokens(vae, latents):
    points = random_points(3, 50)
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(3))
    mask = group_visible_tokens(vae, latents, points)
    assert torch.equal(mask[:, order], group_visible_tokens(vae, latents[:, order], points))


def test_min_votes(vae, latents):
    points = random_points(3, 120)
    votes = naive_votes(vae, latents, points)
    for min_votes in (1, 2, 5):
        assert torch.equal(group_visible_tokens(vae, latents, points, min_votes=min_votes), votes >= min_votes)
    # 120 points over 24 tokens
    assert torch.equal(group_visible_tokens(vae, latents, points, min_votes="balanced"), votes >= 5)
    # the threshold counts each sample's own points, and is never below one vote
    ragged = [points[0], points[1, :30], points[2, :7]]
    balanced = group_visible_tokens(vae, latents, ragged, min_votes="balanced")
    expected = [naive_votes(vae, sample[None], p[None])[0] for sample, p in zip(latents, ragged, strict=True)]
    for mask, count, needed in zip(balanced, expected, (5, 2, 1), strict=True):
        assert torch.equal(mask, count >= needed)


def test_half_precision_points_are_not_needed_for_a_half_precision_vae(vae, latents):
    points = random_points(1, 200)
    half = VecSetVAE.from_config(vae.config)
    half.load_state_dict(vae.state_dict())
    mask = group_visible_tokens(half.to(torch.bfloat16).eval(), latents[:1], points)
    assert (mask == group_visible_tokens(vae, latents[:1], points)).float().mean() > 0.8


@pytest.mark.parametrize("offload", [cpu_offload, cpu_offload_with_hook])
def test_an_offloaded_vae_makes_the_same_masks(vae, latents, offload):
    points = random_points(3, 40)
    other = VecSetVAE.from_config(vae.config)
    other.load_state_dict(vae.state_dict())
    offload(other.eval(), torch.device("cpu"))
    assert torch.equal(group_visible_tokens(other, latents, points), group_visible_tokens(vae, latents, points))


def test_no_graph_is_kept_and_the_attention_is_never_whole(vae, latents):
    """No tensor of points x tokens (let alone x heads) is ever allocated."""
    largest = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            output = function(*args, **(kwargs or {}))
            largest.extend(x.numel() for x in torch.utils._pytree.tree_leaves(output) if torch.is_tensor(x))
            return output

    with Largest():
        mask = group_visible_tokens(vae, latents[:1], random_points(1, 5000), chunk_size=64)
    assert not mask.requires_grad
    assert max(largest) < 5000 * TOKENS


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"latents": torch.zeros(TOKENS, 4)}, "latents"),
        ({"latents": torch.full((3, TOKENS, 4), float("nan"))}, "`latents` holds numbers that are not finite"),
        ({"visible_points": random_points(2, 5)}, "visible_points"),
        ({"visible_points": [random_points(5), random_points(5), random_points(0)]}, r"visible_points\[2\]"),
        ({"visible_points": torch.zeros(3, 5, 4)}, r"visible_points\[0\]"),
        ({"visible_points": torch.full((3, 5, 3), float("nan"))}, r"visible_points\[0\]"),
        ({"min_votes": 0}, "min_votes"),
        ({"min_votes": 1.5}, "min_votes"),
        ({"min_votes": "many"}, "min_votes"),
        ({"chunk_size": 0}, "chunk_size"),
    ],
)
def test_errors_name_the_argument(vae, latents, change, name):
    arguments = {"latents": latents, "visible_points": random_points(3, 5), **change}
    with pytest.raises(ValueError, match=name):
        group_visible_tokens(vae, **arguments)


@pytest.mark.parametrize(
    ("tokens", "fraction", "visible"),
    [(2048, 1 / 3, 683), (4096, 1 / 3, 1365), (256, 1 / 3, 85), (2048, 0.25, 512), (7, 0.0, 0), (7, 1.0, 7)],
)
def test_inference_split(tokens, fraction, visible):
    mask = inference_visible_mask(tokens, fraction)
    assert mask.shape == (tokens,) and mask.dtype == torch.bool
    assert mask[:visible].all() and not mask[visible:].any()


def test_inference_split_defaults_to_a_third():
    assert inference_visible_mask(2048).sum() == 683


@pytest.mark.parametrize(("tokens", "fraction", "name"), [(0, 0.5, "num_tokens"), (8, 1.1, "visible_fraction")])
def test_inference_split_errors(tokens, fraction, name):
    with pytest.raises(ValueError, match=name):
        inference_visible_mask(tokens, fraction)
