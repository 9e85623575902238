"""Score distillation sampling (DreamFusion, arXiv 2209.14988): gradient w(t) (eps_hat - eps)."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from gen3d.distillation.config import Weighting
from gen3d.distillation.inject import broadcast


def sds_weight(alpha: Tensor, sigma: Tensor, weighting: Weighting = "sds") -> Tensor:
    """w(t) for signal level ``alpha`` and noise level ``sigma`` (variance preserving), same shape.

    sds: sigma^2. uniform: 1. fantasia3d: alpha sigma^2 (arXiv 2303.13873).
    """
    if weighting == "sds":
        return sigma.square()
    if weighting == "uniform":
        return torch.ones_like(sigma)
    if weighting == "fantasia3d":
        return alpha * sigma.square()
    raise ValueError(f"weighting must be one of {', '.join(get_args(Weighting))}, got {weighting!r}")


def sds_gradient(
    eps_hat: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, *, weighting: Weighting = "sds"
) -> Tensor:
    """Gradient in latent space, shape of ``noise [B, ...]``; give it to ``inject``.

    eps_hat: predicted noise, guidance applied. alpha, sigma: ``[B]`` or scalars, levels at each item's timestep.
    """
    return broadcast(sds_weight(alpha, sigma, weighting), noise) * (eps_hat - noise)
