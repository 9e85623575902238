"""Random rays of views, with what they should see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gen3d.views import Views


@dataclass(frozen=True, kw_only=True)
class RayBatch:
    """N rays with what they should see; all ``[N, 3]`` but ``mask [N]`` and ``depth [N]``. depth, normals: as of
    `Views`, where those have them."""

    origins: Tensor
    directions: Tensor
    color: Tensor
    mask: Tensor
    background: Tensor
    depth: Tensor | None
    normals: Tensor | None


def draw_rays(views: Views, count: int, generator: torch.Generator, *, focus: float = 0.5) -> RayBatch:
    """``count`` rays through random pixels; the share ``focus`` of them from within the object's box in its view,
    grown by a twentieth, where there is something to learn."""
    num_views, _, height, width = views.images.shape
    device = generator.device

    def uniform() -> Tensor:
        return torch.rand(count, generator=generator, device=device).to(views.images.device)

    view = (uniform() * num_views).long().clamp_max(num_views - 1)
    focused = torch.arange(count, device=view.device) < round(focus * count)
    whole = torch.tensor([0.0, 1.0, 0.0, 1.0], device=view.device)
    low_x, high_x, low_y, high_y = torch.where(focused[:, None], _boxes(views.masks)[view], whole).unbind(1)
    column = ((low_x + (high_x - low_x) * uniform()) * width).long().clamp_max(width - 1)
    row = ((low_y + (high_y - low_y) * uniform()) * height).long().clamp_max(height - 1)
    origins, directions = views.cameras.pixel_rays(view, row, column, height)
    return RayBatch(
        origins=origins,
        directions=directions,
        color=views.images[view, :, row, column],
        mask=views.masks[view, 0, row, column],
        background=views.backgrounds[view],
        depth=None if views.depth is None else views.depth[view, 0, row, column],
        normals=None if views.normals is None else views.normals[view, :, row, column],
    )


def _boxes(masks: Tensor) -> Tensor:
    """Bounds ``[K, 4]`` (x low, x high, y low, y high) in [0, 1] of masks ``[K, 1, H, W]``, grown a little; the whole
    picture for an empty one."""
    solid = masks[:, 0] > 0.5
    bounds = []
    for axis in (1, 2):
        used = solid.any(dim=axis)
        size = used.shape[1]
        position = torch.arange(size, device=masks.device)
        low = torch.where(used, position, size).amin(dim=1)
        high = torch.where(used, position + 1, 0).amax(dim=1)
        empty = low >= high
        bounds.append(torch.where(empty, 0.0, (low / size - 0.05).clamp_min(0.0)))
        bounds.append(torch.where(empty, 1.0, (high / size + 0.05).clamp_max(1.0)))
    return torch.stack(bounds, dim=1)
