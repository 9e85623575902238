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
    colour `[K, 3]` that the views show there. Where distances are known, what is seen through is empty too (space
    carving), which opens the hollows that no silhouette tells of.

    tolerance: share of the views that may say "empty" and be overruled, for views that do not quite agree."""
    inside = look_up(views.masks, views.cameras, points)[:, 0]
    if views.depth is not None:
        inside = torch.minimum(inside, _behind(points, views.depth, views.cameras))
    ignored = int(tolerance * len(views))
    least = inside.kthvalue(ignored + 1, dim=0).values if ignored else inside.amin(dim=0)
    return least, look_up(views.images, views.cameras, points).mean(dim=0).T


def _behind(points: Tensor, depth: Tensor, cameras: Cameras) -> Tensor:
    """Whether `points [K, 3]` lie behind what each view sees of `depth [V, 1, H, W]`, `[V, K]` in [0, 1], with one half
    on its surface, softened over two pixels; 1 where nothing is known."""
    positions, _ = cameras.project(points)
    # The nearest pixel: between two of them there may be a leap, and half way down a leap nothing is.
    seen = F.grid_sample(depth, positions[:, :, None], mode="nearest", align_corners=False)[:, 0, :, 0]
    distance = torch.linalg.vector_norm(points - cameras.positions[:, None], dim=-1)
    pixel = 2.0 * distance * torch.tan(torch.deg2rad(cameras.fovy_deg) / 2.0)[:, None] / depth.shape[-2]
    return torch.where(seen > 0.0, (0.5 + (distance - seen) / (4.0 * pixel)).clamp(0.0, 1.0), 1.0)
