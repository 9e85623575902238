"""Whether views agree on where a surface is: depth and normals that most others contradict are not believed.

Legend: V views, H x W pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.views import Views


@torch.no_grad()
def believed(views: Views, *, tolerance: float = 0.08, most: float = 0.25) -> Views:
    """The same views without the depth that more than the share `most` of the others contradict, and without the
    normals there and those that face away from their camera.

    A view contradicts a point that it sees through: where it sees nothing but background, or something that lies more
    than `tolerance` (world units) behind the point. What lies in front of a point only hides it.
    """
    if views.depth is None:
        known = views.masks > 0.0
        depth = None
    else:
        known = contradicted(views, tolerance) <= most
        depth = views.depth * known
    if views.normals is None:
        return replace(views, depth=depth)
    _, directions = views.cameras.rays(*views.masks.shape[-2:])
    faces_away = (views.normals * directions.movedim(-1, 1)).sum(dim=1, keepdim=True) > 0.0
    return replace(views, depth=depth, normals=views.normals * (known & ~faces_away))


def contradicted(views: Views, tolerance: float) -> Tensor:
    """For each pixel `[V, 1, H, W]` the share of the other views, of those in whose pictures its point lies, that see
    through it; 0 where no depth is known."""
    assert views.depth is not None
    count, _, height, width = views.depth.shape
    origins, directions = views.cameras.rays(height, width)
    points = origins + directions * views.depth.movedim(1, -1)
    layers = torch.cat([views.depth, views.masks], dim=1)
    shares = []
    for index in range(count):
        mine = points[index].reshape(-1, 3)
        positions, _ = views.cameras.project(mine)
        seen = F.grid_sample(layers, positions[:, :, None], mode="nearest", align_corners=False)[..., 0]
        distance = torch.linalg.vector_norm(mine - views.cameras.positions[:, None], dim=-1)
        through = torch.where(seen[:, 0] > 0.0, seen[:, 0] - distance > tolerance, seen[:, 1] < 0.05)
        looks = (positions.abs() < 1.0).all(dim=-1)
        looks[index] = False
        total = looks.sum(dim=0)
        shares.append((through & looks).sum(dim=0) / total.clamp_min(1))
    return torch.stack(shares).view_as(views.depth) * (views.depth > 0.0)
