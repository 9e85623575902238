"""Splats laid over each other in plain torch: every splat at every pixel. Slow; the specification of `splats`."""

from __future__ import annotations

import torch
from torch import Tensor

from gen3d.render.splat_types import CLOSED, LEAST_ALPHA, MOST_ALPHA, NEAR, Projected


def composite(seen: Projected, features: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """As `splats.composite`, in any floating type."""
    axis = torch.arange(size, dtype=features.dtype, device=features.device) + 0.5
    row, column = torch.meshgrid(axis, axis, indexing="ij")
    pixels = torch.stack([column, row], dim=-1).view(-1, 1, 2)
    results, remaining = [], []
    for view in range(len(features)):
        order = seen.depth[view].argsort(stable=True)
        order = order[seen.depth[view, order] > NEAR]
        x, y = (pixels - seen.centres[view, order]).unbind(-1)
        a, b, c = seen.conics()[view, order].unbind(-1)
        alpha = seen.opacities[view, order] * torch.exp(-0.5 * (a * x * x + c * y * y) - b * x * y)
        alpha = alpha.clamp_max(MOST_ALPHA)
        alpha = torch.where(alpha < LEAST_ALPHA, 0.0, alpha)
        after = (1.0 - alpha).cumprod(dim=1)
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
        drawn = after >= CLOSED
        results.append((torch.where(drawn, before * alpha, 0.0) @ features[view, order]).view(size, size, -1))
        remaining.append(torch.where(drawn, 1.0 - alpha, 1.0).prod(dim=1).view(size, size))
    return torch.stack(results), torch.stack(remaining)
