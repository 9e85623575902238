"""Depth and normals as ordinary pictures, which a VAE can encode and a diffusion model can draw, and back.

Legend: V cameras, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gen3d.cameras import Cameras

# Of depth, black is what is not there; what is there has a grey between these, the nearer the brighter.
_FARTHEST, _NEAREST = 0.25, 1.0
_IS_THERE = 0.5 * _FARTHEST
_RADIUS = 1.0  # of the sphere about the origin that figures fit; depth is told within it


def depth_picture(depth: Tensor, mask: Tensor, cameras: Cameras) -> Tensor:
    """Distances along the rays as greys `[V, 3, H, W]` in [0, 1] over black: 1 where the ray could first meet the unit
    sphere, 0.25 where it could last.

    depth: `[V, 1, H, W]` in the world's units. mask: `[V, 1, H, W]` coverage in [0, 1].
    """
    near = _nearest(cameras)
    share = ((depth - near) / (2 * _RADIUS)).clamp(0.0, 1.0)
    return (
        mask * torch.lerp(torch.full_like(share, _NEAREST), torch.full_like(share, _FARTHEST), share)
    ).repeat(1, 3, 1, 1)


def depth_of(pictures: Tensor, cameras: Cameras) -> Tensor:
    """The distances `[V, 1, H, W]` that `depth_picture` drew, 0 where nothing is."""
    grey = pictures.mean(dim=1, keepdim=True)
    share = ((_NEAREST - grey) / (_NEAREST - _FARTHEST)).clamp(0.0, 1.0)
    return torch.where(grey > _IS_THERE, _nearest(cameras) + 2 * _RADIUS * share, torch.zeros_like(grey))


def normals_picture(normals: Tensor, mask: Tensor) -> Tensor:
    """Unit normals in the world's axes as colours `[V, 3, H, W]` in [0, 1], (n + 1) / 2, over a medium grey, which is
    no normal.

    normals: `[V, 3, H, W]`, whatever their length. mask: `[V, 1, H, W]` coverage in [0, 1].
    """
    return 0.5 + 0.5 * mask * torch.nn.functional.normalize(normals, dim=1)


def normals_of(pictures: Tensor) -> Tensor:
    """The normals `[V, 3, H, W]` that `normals_picture` drew, of length 1, 0 where there is none."""
    normals = 2.0 * pictures - 1.0
    length = torch.linalg.vector_norm(normals, dim=1, keepdim=True)
    return torch.where(length > 0.5, normals / length.clamp_min(0.5), torch.zeros_like(normals))


def _nearest(cameras: Cameras) -> Tensor:
    """`[V, 1, 1, 1]` how far the unit sphere is at least."""
    return (torch.linalg.vector_norm(cameras.positions, dim=-1) - _RADIUS).view(-1, 1, 1, 1)
