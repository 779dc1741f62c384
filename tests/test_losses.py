# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The terms of the VAE's loss on fields that are known exactly, and through the VAE with second derivatives."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from diffusers_vilearn.losses import HybridLoss, LossWeights, alignment_loss, eikonal_loss, normal_loss
from diffusers_vilearn.models import VecSetVAE
from diffusers_vilearn.models.visibility_adaptor import VisibilityAdaptor

RADIUS, TRUNCATION = 0.7, 0.05
CONFIG = {
    "latent_channels": 4,
    "num_tokens": 12,
    "num_freqs": 3,
    "encoder_width": 16,
    "encoder_heads": 2,
    "num_encoder_layers": 1,
    "decoder_width": 16,
    "decoder_heads": 2,
    "num_decoder_layers": 2,
    "truncation": 0.1,
}
EVERYTHING = LossWeights(alignment=0.5, anchor=0.3, anchor_latent=0.1)


def sphere_directions(count=400):
    directions = torch.randn(1, count, 3, generator=torch.Generator().manual_seed(0))
    return directions / directions.norm(dim=-1, keepdim=True)


def sphere_field(xyz, radius=RADIUS, centre=(0.0, 0.0, 0.0), stretch=1.0):
    """The exact scaled field of a sphere, positive inside; `stretch` other than 1 makes it no distance."""
    distance = radius - (xyz - torch.tensor(centre)).norm(dim=-1)
    return (stretch * distance / TRUNCATION).clamp(-1, 1)


def gradient_of(field, xyz):
    xyz = xyz.clone().requires_grad_(True)
    return torch.autograd.grad(field(xyz).sum(), xyz)[0]


def band_points():
    """Points nearer to the sphere than the truncation, on both sides."""
    offset = torch.linspace(-0.99, 0.99, 400)[None, :, None] * TRUNCATION
    return (RADIUS + offset) * sphere_directions()


def test_the_gradient_terms_vanish_for_the_exact_field():
    normals = sphere_directions()
    assert normal_loss(gradient_of(sphere_field, RADIUS * normals), normals).item() < 1e-6
    assert eikonal_loss(gradient_of(sphere_field, band_points()), TRUNCATION).item() < 1e-6


def test_the_normal_term_is_the_angle_to_the_true_normal():
    normals = sphere_directions()
    inverted = gradient_of(lambda xyz: -sphere_field(xyz), RADIUS * normals)
    assert normal_loss(inverted, normals).item() == pytest.approx(2, abs=1e-5)
    moved = gradient_of(lambda xyz: sphere_field(xyz, centre=(0.02, 0.0, 0.0)), RADIUS * normals)
    farther = gradient_of(lambda xyz: sphere_field(xyz, centre=(0.04, 0.0, 0.0)), RADIUS * normals)
    assert 1e-5 < normal_loss(moved, normals) < normal_loss(farther, normals)
    steeper = gradient_of(lambda xyz: sphere_field(xyz, stretch=0.3), RADIUS * normals)
    assert normal_loss(steeper, normals).item() < 1e-6, "the length of the gradient is not its business"
    unit = -moved / moved.norm(dim=-1, keepdim=True)
    assert_close((unit - normals).square().sum(dim=-1).mean() / 2, normal_loss(moved, normals))


def test_the_eikonal_term_measures_length_in_units_of_the_truncation():
    points = band_points()
    for stretch in (0.5, 0.8):
        stretched = gradient_of(lambda xyz: sphere_field(xyz, stretch=stretch), points)  # noqa: B023
        assert eikonal_loss(stretched, TRUNCATION).item() == pytest.approx((1 - stretch) ** 2, rel=1e-4)
    turned = gradient_of(lambda xyz: -sphere_field(xyz), points)
    assert eikonal_loss(turned, TRUNCATION).item() < 1e-6, "the direction of the gradient is not its business"
    wrong_units = eikonal_loss(gradient_of(sphere_field, points), 2 * TRUNCATION)
    assert wrong_units.item() == pytest.approx(1, rel=1e-4)


def test_beyond_the_band_the_true_field_breaks_the_eikonal_equation():
    outside = (RADIUS + 1.5 * TRUNCATION) * sphere_directions()
    assert eikonal_loss(gradient_of(sphere_field, outside), TRUNCATION).item() == 1


def test_alignment_compares_directions():
    features = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    assert alignment_loss(3 * features, features).item() < 1e-6
    assert alignment_loss(-features, features).item() == pytest.approx(2, abs=1e-5)


def make_loss(weights=EVERYTHING, **changes):
    torch.manual_seed(0)
    vae = VecSetVAE(**(CONFIG | changes))
    adaptor = VisibilityAdaptor(16, 6, num_layers=2, heads=2, queries="rays") if weights.alignment else None
    anchor_head = nn.Linear(16, 3) if weights.anchor else None
    return HybridLoss(vae, weights, vae.config.truncation, adaptor, anchor_head)


def make_batch(batch_size=2):
    generator = torch.Generator().manual_seed(1)

    def uniform(*shape):
        return 2 * torch.rand(batch_size, *shape, generator=generator) - 1

    return {
        "points": uniform(40, 6),
        "sharp_points": uniform(30, 6),
        "xyz": uniform(25, 3),
        "field": uniform(25, 1),
        "posterior_noise": torch.randn(batch_size, 12, 4, generator=generator),
        "surface_xyz": uniform(9, 3),
        "surface_normals": nn.functional.normalize(uniform(9, 3), dim=-1),
        "band_xyz": uniform(11, 3),
        "alignment_queries": uniform(8, 6),
        "alignment_features": uniform(8, 6),
    }


def plain(batch):
    return {name: value for name, value in batch.items() if name != "sharp_points"}


def test_the_gradient_of_a_query_is_its_slope():
    vae = make_loss().vae
    xyz = make_batch()["xyz"]
    hidden = vae.decode(torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0)))
    field, gradient = vae.query_with_gradient(xyz, hidden)
    assert_close(field, vae.query(xyz, hidden))
    step = 1e-2
    for axis in range(3):
        offset = step * torch.eye(3)[axis]
        slope = (vae.query(xyz + offset, hidden) - vae.query(xyz - offset, hidden))[..., 0] / (2 * step)
        assert_close(gradient[..., axis], slope, rtol=0.02, atol=0.02 * gradient.abs().max().item())
    with torch.no_grad():
        field, again = vae.query_with_gradient(xyz, hidden)
    assert_close(again, gradient)
    assert not field.requires_grad and not again.requires_grad
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use `torch.no_grad`"):
        vae.query_with_gradient(xyz, hidden)


def test_slicing_and_prepared_keys_leave_the_gradient_as_it_is():
    vae = make_loss().vae
    xyz, hidden = make_batch()["xyz"], torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    _, expected = vae.query_with_gradient(xyz, hidden)
    assert_close(vae.query_with_gradient(xyz, vae.project_key_value(hidden))[1], expected)
    vae.use_slicing = True
    assert_close(vae.query_with_gradient(xyz, hidden)[1], expected)


@pytest.mark.parametrize("term", ["normal", "eikonal"])
def test_the_terms_on_gradients_have_the_right_derivative(term):
    zero = dict.fromkeys(vars(LossWeights()), 0.0)
    loss_of = make_loss(LossWeights(**(zero | {term: 1.0})))
    vae = loss_of.vae.double()
    batch = plain({name: value.double() for name, value in make_batch().items()})
    loss_of(batch)[0].backward()
    trained = {name: value for name, value in vae.named_parameters() if value.grad is not None}
    assert {name.split(".")[0] for name in trained} == {"encoder", "quant", "post_quant", "decoder", "geometry"}
    expected = sum(value.grad.square().sum() for value in trained.values()).sqrt()
    directions = {name: value.grad / expected for name, value in trained.items()}
    values = []
    for step in (1e-3, -2e-3):  # forward, then back across the start
        with torch.no_grad():
            for name, value in trained.items():
                value.add_(step * directions[name])
        values.append(loss_of(batch)[0].item())
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(expected.item(), rel=5e-3)


@pytest.mark.parametrize("changes", [{}, {"dual_cross_attention": True}])
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(changes):
    loss_of = make_loss(**changes)
    batch = make_batch() if changes else plain(make_batch())
    results = []
    for _ in range(2):
        loss_of.vae.zero_grad()
        loss, _ = loss_of(batch)
        loss.backward()
        results.append([loss.detach(), *(value.grad.clone() for value in loss_of.vae.parameters())])
        loss_of.vae.enable_gradient_checkpointing()
    assert len(results[0]) > 50
    for whole, recomputed in zip(*results):
        assert_close(recomputed, whole)


def test_every_term_counts_with_its_weight():
    batch = plain(make_batch())
    total, terms = make_loss()(batch)
    assert set(terms) == set(vars(EVERYTHING))
    assert_close(total, sum(vars(EVERYTHING)[name] * term for name, term in terms.items()))
    scaled, _ = make_loss()(batch, kl_scale=0.1)
    assert_close(total - scaled, 0.9 * EVERYTHING.kl * terms["kl"], rtol=1e-3, atol=1e-6)


# What a term reads of a batch, and nothing else does.
OWN_DATA = {
    "normal": {"surface_xyz", "surface_normals"},
    "eikonal": {"band_xyz"},
    "alignment": {"alignment_queries", "alignment_features"},
}


@pytest.mark.parametrize("off", list(vars(LossWeights())))
def test_a_term_of_weight_zero_is_not_computed(off):
    weights = LossWeights(**(vars(EVERYTHING) | {off: 0.0}))
    batch = {name: value for name, value in plain(make_batch()).items() if name not in OWN_DATA.get(off, ())}
    total, terms = make_loss(weights)(batch)
    assert set(terms) == set(vars(EVERYTHING)) - {off}
    total.backward()


def test_any_number_of_tokens_trains():
    loss_of = make_loss(dual_cross_attention=True)
    for num_tokens in (4, 9, 12):
        total, terms = loss_of(make_batch(), num_tokens=num_tokens)
        total.backward()
        assert all(term.isfinite() for term in terms.values())
    with pytest.raises(ValueError, match="`num_tokens` is 80"):
        loss_of(make_batch(), num_tokens=80)


def test_wrong_weights_are_refused():
    with pytest.raises(ValueError, match="`normal` is -1"):
        LossWeights(normal=-1)
    with pytest.raises(ValueError, match="`kl` is nan"):
        LossWeights(kl=float("nan"))
    vae = make_loss().vae
    with pytest.raises(ValueError, match="`adaptor` is missing"):
        HybridLoss(vae, LossWeights(alignment=0.5), 0.1)
    with pytest.raises(ValueError, match="`adaptor` is given"):
        HybridLoss(vae, LossWeights(), 0.1, VisibilityAdaptor(16, 6, heads=2))
    with pytest.raises(ValueError, match="`anchor_head` is missing"):
        HybridLoss(vae, LossWeights(anchor=0.3), 0.1)
