"""A signed distance and colour, live; its settings and equations stand in `sdf`."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from gen3d.representations.neural_field import NeuralField
from gen3d.representations.sdf import SdfConfig

_EIKONAL_POINTS = 2048
# log(s) is learnt over ten, as in NeuS: a rate that suits the network suits it too.
_SHARPNESS_UNIT = 10.0


class SdfField(NeuralField[SdfConfig]):
    """`value` is the distance to the surface, positive inside: -f. log_sharpness: `[1]`, log(s) / 10."""

    @classmethod
    def _own_tensors(cls, settings: SdfConfig) -> dict[str, Tensor]:
        return {"log_sharpness": torch.tensor([math.log(settings.sharpness) / _SHARPNESS_UNIT])}

    def rates(self, progress: float = 0.0) -> dict[str, float]:
        return super().rates(progress) | {"log_sharpness": self.settings.sharpness_rate}

    @property
    def sharpness(self) -> Tensor:
        """s `[1]`, differentiable."""
        return torch.exp(self.named["log_sharpness"] * _SHARPNESS_UNIT)

    def value(self, raw: Tensor, points: Tensor) -> Tensor:
        return self.settings.sphere_radius - points.norm(dim=-1) - raw

    def density_of(self, value: Tensor) -> Tensor:
        s = self.sharpness
        if self.settings.density == "neus":
            return s * torch.sigmoid(s * value)
        tail = 0.5 * torch.exp(-(s * value).abs())
        return s * torch.where(value > 0, 1.0 - tail, tail)

    def target(self, solid: Tensor) -> Tensor:
        spacing = 2.0 / (solid.shape[0] - 1)
        inside = (solid > 0.5).cpu().numpy()
        if inside.all() or not inside.any():
            return torch.full_like(solid, 1.0 if inside.all() else -1.0)
        distance = np.asarray(distance_transform_edt(inside)) - np.asarray(distance_transform_edt(~inside))
        far = torch.from_numpy(distance.astype(np.float32)).to(solid)
        # The nearest place across the surface is a whole step away from the last one before it.
        far = (far - 0.5 * far.sign()) * spacing
        return torch.where((solid > 0.0) & (solid < 1.0), (solid - 0.5) * spacing, far)

    def surface_grid(self, resolution: int, level: float | None) -> tuple[np.ndarray, float]:
        return self.value_grid(resolution), 0.0

    def regularisers(self, generator: torch.Generator) -> dict[str, Tensor]:
        losses, settings = super().regularisers(generator), self.settings
        if not (settings.eikonal or settings.curvature):
            return losses
        points, step = self._anywhere(_EIKONAL_POINTS, generator), self.detail
        low, high = self.around(points)
        if settings.eikonal:
            length = ((high - low) / (2.0 * step)).norm(dim=-1)
            losses["eikonal"] = settings.eikonal * (length - 1.0).square().mean()
        if settings.curvature:
            middle = self.value_at(points)
            bend = ((low + high).sum(dim=-1) - 6.0 * middle) / step
            losses["curvature"] = settings.curvature * bend.square().mean()
        return losses
