"""The visual hull: what silhouettes alone say about a shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.views import Views


@torch.no_grad()
def look_up(images: Tensor, cameras: Cameras, points: Tensor) -> Tensor:
    """Pixel values `[V, C, K]` of `images [V, C, H, W]` where `points [K, 3]` appear in them (bilinear)."""
    positions, _ = cameras.project(points)
    found = F.grid_sample(
        images, positions[:, :, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[..., 0]


@torch.no_grad()
def hull(points: Tensor, views: Views, *, tolerance: float = 0.0) -> tuple[Tensor, Tensor]:
    """How far inside every silhouette `points [K, 3]` lie, `[K]` in [0, 1] with one half on the outline, and the mean
    colour `[K, 3]` that the views show there. `tolerance`: share of the views that may say "empty" and be overruled,
    for views that do not quite agree."""
    covered = look_up(views.masks, views.cameras, points)[:, 0]
    ignored = int(tolerance * len(views))
    inside = covered.kthvalue(ignored + 1, dim=0).values if ignored else covered.amin(dim=0)
    return inside, look_up(views.images, views.cameras, points).mean(dim=0).T
