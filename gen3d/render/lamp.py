"""Light on a field as it is optimised: a point light, of which a prior sees the shape (DreamFusion, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.representations.base import HasNormals


@dataclass(frozen=True, kw_only=True, eq=False)
class Lamp:
    """A `gen3d.render.rays.Shade`. position: [3], world. ambient: light from everywhere, in [0, 1], beside 1 - ambient
    from the lamp. textureless: the surface is white, whatever its colour."""

    position: Tensor
    ambient: float = 0.1
    textureless: bool = False

    def __call__(self, lit: HasNormals, points: Tensor, color: Tensor) -> Tensor:
        towards = F.normalize(self.position - points, dim=-1)
        facing = (lit.normals_at(points) * towards).sum(dim=-1, keepdim=True).clamp_min(0.0)
        light = self.ambient + (1.0 - self.ambient) * facing
        return light * (torch.ones_like(color) if self.textureless else color)


def near_camera(camera: Cameras, generator: torch.Generator, *, ambient: float, textureless: bool) -> Lamp:
    """A lamp beside one camera, as far from the origin as it is."""
    shift = torch.randn(3, generator=generator, device=generator.device).to(camera.device)
    position = camera.positions[0]
    distance = position.norm()
    beside = F.normalize(F.normalize(position, dim=-1) + 0.5 * shift / 3**0.5, dim=-1) * distance
    return Lamp(position=beside, ambient=ambient, textureless=textureless)
