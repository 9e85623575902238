"""The weight w(t) of a distillation gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Weighting = Literal["sds", "uniform", "fantasia3d"]


def weight(alpha: Tensor, sigma: Tensor, weighting: Weighting) -> Tensor:
    """w(t) for signal level `alpha` and noise level `sigma`, in their shape.

    sds: sigma^2 (1 - alphas_cumprod where the variance is preserved). uniform: 1. fantasia3d: alpha sigma^2 (arXiv
    2303.13873).
    """
    if weighting == "sds":
        return sigma.square()
    if weighting == "uniform":
        return sigma.new_ones(sigma.shape)
    if weighting == "fantasia3d":
        return alpha * sigma.square()
    raise ValueError(f"weighting must be one of {', '.join(get_args(Weighting))}, got {weighting!r}")
