"""An analytic coloured scene with an exact answer, ray traced: stands in for a generator of views in tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import Cameras

Field = Callable[[Tensor], Tensor]
BACKGROUND = (0.75, 0.75, 0.75)


def sdf(points: Tensor) -> Tensor:
    """A box with a ball on top: signed distance ``[...]`` of ``points [..., 3]``."""
    q = (points - points.new_tensor([0.0, -0.3, 0.0])).abs() - points.new_tensor([0.45, 0.35, 0.45])
    box = q.clamp_min(0.0).norm(dim=-1) + q.amax(dim=-1).clamp_max(0.0)
    ball = (points - points.new_tensor([0.0, 0.35, 0.0])).norm(dim=-1) - 0.4
    return torch.minimum(box, ball)


def albedo(points: Tensor) -> Tensor:
    """Blue box, red ball; sRGB ``[..., 3]``."""
    top = (points - points.new_tensor([0.0, 0.35, 0.0])).norm(dim=-1, keepdim=True) < 0.42
    return torch.where(top, points.new_tensor([0.85, 0.15, 0.1]), points.new_tensor([0.15, 0.3, 0.8]))


@torch.no_grad()
def views(cameras: Cameras, size: int = 64, supersample: int = 2) -> Tensor:
    """Shaded views ``[V, 3, H, W]`` over ``BACKGROUND``, antialiased by supersampling."""
    return trace(cameras, size, supersample, sdf, albedo)


@torch.no_grad()
def trace(cameras: Cameras, size: int, supersample: int, sdf: Field, albedo: Field) -> Tensor:
    """``size`` pixel views of any signed distance and colour, by sphere tracing."""
    origins, directions = cameras.rays(size * supersample, size * supersample)
    shape = directions.shape[:3]
    origins, directions = origins.reshape(-1, 3), directions.reshape(-1, 3)
    t = origins.norm(dim=-1) - 1.1
    for _ in range(48):
        t = t + sdf(origins + directions * t[:, None])
    points = origins + directions * t[:, None]
    hit = (sdf(points).abs() < 5e-3) & (t < origins.norm(dim=-1) + 1.2)
    step = torch.eye(3) * 1e-3
    normal = F.normalize(torch.stack([sdf(points + e) - sdf(points - e) for e in step], dim=-1), dim=-1)
    light = F.normalize(torch.tensor([0.4, 0.8, 0.5]), dim=0)
    shade = 0.55 + 0.45 * (normal @ light).clamp_min(0.0)
    color = torch.where(hit[:, None], albedo(points) * shade[:, None], torch.tensor(BACKGROUND))
    image = color.view(*shape, 3).permute(0, 3, 1, 2)
    return F.avg_pool2d(image, supersample).clamp(0.0, 1.0)
