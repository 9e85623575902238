"""A density and colour on a hash grid, live; its settings and equation stand in `hashgrid`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.representations.hashgrid import SOLID, HashgridConfig
from gen3d.representations.neural_field import NeuralField

_LARGEST = 15.0  # beyond which the exponential's gradient grows no more
_SMOOTH_POINTS = 2048


class _TruncatedExp(torch.autograd.Function):
    """exp, whose gradient stays finite (Instant-NGP's)."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor) -> Tensor:
        ctx.save_for_backward(raw)
        return torch.exp(raw.clamp_max(80.0))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        (raw,) = ctx.saved_tensors
        return gradients[0] * torch.exp(raw.clamp_max(_LARGEST))


class HashField(NeuralField[HashgridConfig]):
    """`value` is what the activation is applied to, over `density_scale`."""

    def value(self, raw: Tensor, points: Tensor) -> Tensor:
        settings = self.settings
        squared = points.square().sum(dim=-1)
        if settings.blob == "magic3d":
            blob = 1.0 - squared.sqrt() / settings.blob_radius
        else:
            blob = torch.exp(squared / (-2.0 * settings.blob_radius**2))
        return raw + settings.blob_strength * blob

    def density_of(self, value: Tensor) -> Tensor:
        raw = self.settings.density_scale * value
        if self.settings.density_activation == "softplus":
            return F.softplus(raw)
        density = _TruncatedExp.apply(raw)
        assert isinstance(density, Tensor)
        return density

    def value_of(self, density: float) -> float:
        """The value where the density is that: the inverse of `density_of`."""
        if self.settings.density_activation == "exp":
            return math.log(density) / self.settings.density_scale
        return (density + math.log(-math.expm1(-density))) / self.settings.density_scale

    def target(self, solid: Tensor) -> Tensor:
        return max(self.value_of(SOLID), 5.0 / self.settings.density_scale) * (2.0 * solid - 1.0)

    def surface_grid(self, resolution: int, level: float | None) -> tuple[np.ndarray, float]:
        assert level is not None
        return self.value_grid(resolution), self.value_of(level)

    def regularisers(self, generator: torch.Generator) -> dict[str, Tensor]:
        losses = super().regularisers(generator)
        if self.settings.smoothness:
            low, high = self.around(self._anywhere(_SMOOTH_POINTS, generator))
            losses["smoothness"] = self.settings.smoothness * (high - low).square().mean()
        return losses
