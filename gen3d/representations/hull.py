"""The visual hull: what silhouettes alone say about a shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.representations.volume import Volume


@torch.no_grad()
def look_up(images: Tensor, cameras: Cameras, points: Tensor) -> Tensor:
    """Pixel values ``[V, C, K]`` of ``images [V, C, H, W]`` where ``points [K, 3]`` appear in them (bilinear)."""
    positions, _ = cameras.project(points)
    found = F.grid_sample(
        images, positions[:, :, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[..., 0]


@torch.no_grad()
def fill_hull(
    volume: Volume, images: Tensor, masks: Tensor, cameras: Cameras, *, tolerance: float = 0.0
) -> None:
    """Make ``volume`` solid wherever every silhouette allows it, in place, coloured by what the views see there.

    images: ``[V, 3, H, W]``; masks: ``[V, 1, H, W]`` in [0, 1]. ``tolerance``: share of the views that may say
    "empty" and be overruled, for views that do not quite agree. The raw density is +-``0.5`` inside and outside, with
    a linear ramp as wide as the silhouettes are soft.
    """
    n = volume.resolution
    axis = torch.linspace(-1.0, 1.0, n, device=volume.device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    covered = look_up(masks, cameras, points)[:, 0]
    ignored = int(tolerance * len(cameras))
    inside = covered.kthvalue(ignored + 1, dim=0).values if ignored else covered.amin(dim=0)
    color = look_up(images, cameras, points).mean(dim=0)
    grid = volume.grid.detach().view(-1, 4)
    grid[:, 0] = inside - 0.5
    grid[:, 1:] = torch.logit(color.T.clamp(0.02, 0.98))
    volume.refresh()
