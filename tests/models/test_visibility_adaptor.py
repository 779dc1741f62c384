# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The visibility alignment regulariser: it reaches the VAE, and the VAE answers it."""

import pytest
import torch

from diffusers_vilearn.losses import HybridLoss, LossWeights, alignment_loss
from diffusers_vilearn.models import VecSetVAE
from diffusers_vilearn.models.visibility_adaptor import VisibilityAdaptor

CONFIG = {
    "latent_channels": 8,
    "num_tokens": 16,
    "num_freqs": 3,
    "encoder_width": 32,
    "encoder_heads": 2,
    "num_encoder_layers": 1,
    "decoder_width": 32,
    "decoder_heads": 2,
    "num_decoder_layers": 1,
}
ONLY_ALIGNMENT = LossWeights(l1=0, l2=0, normal=0, eikonal=0, kl=0, alignment=1.0)
layouts = pytest.mark.parametrize(("queries", "num_layers"), [("points", 1), ("rays", 2)])


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return VecSetVAE(**CONFIG)


def make_batch(channels):
    """Four shapes; the feature at a query depends on the query and on the shape."""
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(4, 64, 6, generator=generator)
    queries = torch.rand(4, 24, channels, generator=generator) * 2 - 1
    mixing = torch.randn(4, channels, 12, generator=generator)
    return {
        "points": points,
        "xyz": points[:, :1, :3],
        "field": torch.zeros(4, 1, 1),
        "alignment_queries": queries,
        "alignment_features": torch.einsum("bqc,bcf->bqf", queries, mixing),
    }


@layouts
def test_it_reaches_the_whole_vae_but_the_geometry_head(vae, queries, num_layers):
    adaptor = VisibilityAdaptor(32, 12, num_layers=num_layers, heads=2, queries=queries)
    batch = make_batch({"points": 3, "rays": 6}[queries])
    loss, terms = HybridLoss(vae, ONLY_ALIGNMENT, vae.config.truncation, adaptor)(batch)
    assert set(terms) == {"alignment"} and adaptor(batch["alignment_queries"], torch.zeros(4, 5, 32)).shape[2] == 12
    loss.backward()
    for name, parameter in vae.named_parameters():
        reached = parameter.grad is not None and parameter.grad.abs().max() > 0
        assert reached != name.startswith("geometry"), name
    assert all(parameter.grad.abs().max() > 0 for parameter in adaptor.parameters())


@layouts
def test_a_vae_learns_to_answer_a_frozen_adaptor(vae, queries, num_layers):
    adaptor = VisibilityAdaptor(32, 12, num_layers=num_layers, heads=2, queries=queries).requires_grad_(False)
    loss_of = HybridLoss(vae, ONLY_ALIGNMENT, vae.config.truncation, adaptor)
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    batch = make_batch({"points": 3, "rays": 6}[queries])
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss, _ = loss_of(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.1


def test_tokens_have_no_order_and_other_tokens_give_other_answers(vae):
    adaptor = VisibilityAdaptor(32, 12, num_layers=2, heads=2)
    generator = torch.Generator().manual_seed(0)
    queries, hidden = torch.rand(1, 5, 3, generator=generator), torch.randn(1, 9, 32, generator=generator)
    answer = adaptor(queries, hidden)
    torch.testing.assert_close(adaptor(queries, hidden.flip(1)), answer)
    assert alignment_loss(adaptor(queries, -hidden), answer) > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 3}, "`num_layers` is 3"),
        ({"heads": 5}, "`heads` is 5"),
        ({"queries": "pixels"}, "`queries` is 'pixels'"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VisibilityAdaptor(32, 12, **options)
