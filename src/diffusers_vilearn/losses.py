# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What a `VecSetVAE` is trained on: TripoSG's hybrid loss, and the visibility alignment regulariser of ViLearn.

    L = L1 + L2 + λ_n L_normal + λ_e L_eikonal + λ_kl KL  [+ λ_a L_alignment + anchors]

TripoSG (arXiv:2502.06608, its VAE's training): λ_n = 10, λ_e = 0.1, λ_kl = 0.001.

The field f is a signed distance d, **positive inside**, clamped to [-τ, τ] and divided by the truncation τ. So its
gradient ∇f = ∇d / τ points inwards and is 1/τ long where |d| < τ (the band), and is zero beyond: normals are compared
on the surface, d = 0, and the eikonal equation ‖∇d‖ = 1 inside the band only. Gradients are taken with respect to the
query positions, in object units.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .models.autoencoder_vecset import DiagonalGaussianDistribution


def normal_loss(gradient: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    """1 − cos(−∇f, n), the mean over surface points; in [0, 2] (TripoSG).

    Half of the squared distance between the unit vectors is the same number.

    Args:
        gradient (`torch.Tensor` of shape `(batch, points, 3)`): ∇f at surface points, of any length.
        normals (`torch.Tensor` of shape `(batch, points, 3)`): Outward unit normals there.
    """
    return (1 - F.cosine_similarity(-gradient.float(), normals.float(), dim=-1)).mean()


def eikonal_loss(gradient: torch.Tensor, truncation: float) -> torch.Tensor:
    """(τ‖∇f‖ − 1)², the mean over points inside the band (TripoSG; Gropp et al. 2020).

    Args:
        gradient (`torch.Tensor` of shape `(batch, points, 3)`): ∇f at points closer to the surface than τ.
        truncation (`float`): τ in object units.
    """
    return (truncation * gradient.float().norm(dim=-1) - 1).square().mean()


def alignment_loss(predicted: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """1 − cos between predicted and true patch features, the mean over visible points (ViLearn, supplement D).

    Args:
        predicted (`torch.Tensor` of shape `(batch, points, channels)`): Of the `VisibilityAdaptor`.
        features (`torch.Tensor` of shape `(batch, points, channels)`): DINOv2 patch tokens at the points' pixels.
    """
    return (1 - F.cosine_similarity(predicted.float(), features.float(), dim=-1)).mean()


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; a term of weight 0 is not computed.

    Args:
        l1, l2 (`float`): Absolute and squared error of f.
        normal (`float`): Of `normal_loss`.
        eikonal (`float`): Of `eikonal_loss`.
        kl (`float`): Divergence of the posterior from the standard normal, nats per latent number.
        alignment (`float`): Of `alignment_loss`; 0.1, 0.5 or 1 in the paper's supplement.
        anchor (`float`): Squared error of a linear map from each decoder token to the surface point that it was
            queried from. Removes an early plateau of small models.
        anchor_latent (`float`): Squared distance of the first three latent channels from twice that point.
    """

    l1: float = 1.0
    l2: float = 1.0
    normal: float = 10.0
    eikonal: float = 0.1
    kl: float = 1e-3
    alignment: float = 0.0
    anchor: float = 0.0
    anchor_latent: float = 0.0

    def __post_init__(self):
        for name, weight in vars(self).items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"`{name}` is {weight}, a weight must be a finite number of at least 0.")

    @property
    def need_gradient(self) -> bool:
        """Whether a term is on the gradient of the field."""
        return self.normal > 0 or self.eikonal > 0


class HybridLoss:
    """The training objective of a VAE.

    Args:
        vae (`VecSetVAE`): The model that is trained, wrapped for many processes or not.
        weights (`LossWeights`): Of the terms.
        truncation (`float`): τ of the VAE's field in object units.
        adaptor (`VisibilityAdaptor`, *optional*): Needed for the alignment term, and only for it.
        anchor_head (`nn.Linear`, *optional*): From `decoder_width` to 3; needed for the anchor term, and only for it.
    """

    def __init__(
        self,
        vae: nn.Module,
        weights: LossWeights,
        truncation: float,
        adaptor: nn.Module | None = None,
        anchor_head: nn.Module | None = None,
    ):
        for name, head, weight in (
            ("adaptor", adaptor, weights.alignment),
            ("anchor_head", anchor_head, weights.anchor),
        ):
            if (weight > 0) != (head is not None):
                raise ValueError(
                    f"`{name}` is {'missing' if head is None else 'given'} and the weight of its term is {weight};"
                    " both must be there, or neither."
                )
        self.vae = vae
        self.weights = weights
        self.truncation = truncation
        self.adaptor = adaptor
        self.anchor_head = anchor_head

    def __call__(
        self, batch: dict[str, torch.Tensor], num_tokens: int | None = None, kl_scale: float = 1.0
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch, and its terms by name, before they are weighted.

        Args:
            batch: Of `FieldSamples`; with `alignment_features` (batch, queries, channels) for the alignment term.
            num_tokens (`int`, *optional*): Shape tokens of this batch; None takes the config's.
            kl_scale (`float`): Factor of the KL term's weight, to let it grow at first.
        """
        weights = self.weights
        # Normals are asked on the surface, the eikonal equation in the band; both in one query.
        clouds = {"surface_xyz": weights.normal, "band_xyz": weights.eikonal}
        clouds = [batch[name] for name, weight in clouds.items() if weight]
        output = self.vae(
            batch["points"],
            batch["xyz"],
            batch.get("sharp_points"),
            num_tokens,
            gradient_xyz=torch.cat(clouds, dim=1) if clouds else None,
        )
        posterior = DiagonalGaussianDistribution(output.moments)
        terms = {}
        if weights.l1:
            terms["l1"] = F.l1_loss(output.field.float(), batch["field"])
        if weights.l2:
            terms["l2"] = F.mse_loss(output.field.float(), batch["field"])
        if weights.normal:
            on_surface = output.gradient[:, : batch["surface_xyz"].shape[1]]
            terms["normal"] = normal_loss(on_surface, batch["surface_normals"])
        if weights.eikonal:
            in_band = output.gradient[:, -batch["band_xyz"].shape[1] :]
            terms["eikonal"] = eikonal_loss(in_band, self.truncation)
        if weights.kl:
            terms["kl"] = posterior.kl().mean()
        if weights.alignment:
            predicted = self.adaptor(batch["alignment_queries"], output.hidden)
            terms["alignment"] = alignment_loss(predicted, batch["alignment_features"])
        if weights.anchor:
            terms["anchor"] = F.mse_loss(self.anchor_head(output.hidden).float(), output.anchors)
        if weights.anchor_latent:
            terms["anchor_latent"] = F.mse_loss(posterior.mean[..., :3].float(), 2 * output.anchors)
        scales = vars(weights) | {"kl": kl_scale * weights.kl}
        return sum(scales[name] * term for name, term in terms.items()), terms
