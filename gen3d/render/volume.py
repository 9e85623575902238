"""Differentiable quadrature along rays through a Volume, evaluating only samples that can be seen.

Legend: N rays, S samples a ray, K samples kept. Distances are along unit directions, in world units.
A sample is dropped when its cell is empty, or when what certainly lies before it has already stopped the light. Both
are read from ``Volume.cell_range``, so the result equals the full sum to within ``_SKIP`` a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.representations.volume import Volume

_SKIP = 5e-4  # optical thickness below which a sample is empty
_OPAQUE = 7.0  # optical depth beyond which nothing is seen: exp(-7) is below one part in a thousand


@dataclass(frozen=True, kw_only=True, slots=True)
class RayRender:
    """What N rays see.

    rgb: ``[N, 3]`` sRGB in [0, 1], background included. opacity: ``[N]`` in [0, 1]. depth: ``[N]`` expected distance
    times opacity (0 where nothing is hit). weights, t: ``[N, S]`` share of each sample in its ray's colour, and its
    distance. step: ``[N]`` length of a sample. kept: ``[K, 2]`` (ray, sample) of the evaluated samples; points
    ``[K, 3]``.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    weights: Tensor
    t: Tensor
    step: Tensor
    kept: Tensor
    points: Tensor


def near_far(origins: Tensor, directions: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays ``[N, 3]`` enter and leave the box ``low``..``high [3]``; both ``[N]``, equal where they miss."""
    # A component of exactly zero would make 0 * inf on a face of the box.
    safe = torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    first, second = (low - origins) / safe, (high - origins) / safe
    near = torch.minimum(first, second).amax(dim=-1).clamp_min(0.0)
    far = torch.maximum(first, second).amin(dim=-1)
    return near, torch.maximum(near, far)


def render_rays(
    volume: Volume,
    origins: Tensor,
    directions: Tensor,
    background: Tensor,
    *,
    num_samples: int = 48,
    generator: torch.Generator | None = None,
) -> RayRender:
    """Render rays ``origins``, ``directions [N, 3]`` (unit) over ``background [3]`` or ``[N, 3]``.

    With a ``generator`` each sample lies anywhere in its bin (for training); without, in the middle. Differentiable
    in the volume's grid and in ``background``, not in the rays.
    """
    count, device = origins.shape[0], origins.device
    with torch.no_grad():
        low, high = volume.bounds()
        near, far = near_far(origins, directions, low, high)
        step = (far - near) / num_samples
        offset = torch.full((count, num_samples), 0.5, device=device)
        if generator is not None:
            offset = torch.rand(count, num_samples, generator=generator, device=generator.device).to(device)
        t = near[:, None] + step[:, None] * (torch.arange(num_samples, device=device) + offset)
        points = origins[:, None] + directions[:, None] * t[..., None]
        least, greatest = volume.cell_density[volume.cells(points)].unbind(-1)
        before = (least * step[:, None]).cumsum(dim=1)
        kept = ((greatest * step[:, None] > _SKIP) & (before - least * step[:, None] < _OPAQUE)).nonzero()
        ray, sample = kept.unbind(1)
        points = points[ray, sample]
    raw = volume.sample(points)
    thickness = volume.density_of(raw[:, 0]) * step[ray]
    dense = thickness.new_zeros(count, num_samples).index_put((ray, sample), thickness)
    transmittance = torch.exp(dense - dense.cumsum(dim=1))
    weights = transmittance * -torch.expm1(-dense)
    opacity = weights.sum(dim=1)
    color = weights[ray, sample, None] * torch.sigmoid(raw[:, 1:])
    rgb = color.new_zeros(count, 3).index_add(0, ray, color) + (1.0 - opacity)[:, None] * background
    depth = (weights * t).sum(dim=1)
    return RayRender(
        rgb=rgb, opacity=opacity, depth=depth, weights=weights, t=t, step=step, kept=kept, points=points
    )


@torch.no_grad()
def render_views(
    volume: Volume,
    cameras: Cameras,
    height: int,
    width: int,
    background: Tensor,
    *,
    num_samples: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Whole pictures without gradients: images ``[V, 3, H, W]`` sRGB in [0, 1] and opacity masks ``[V, 1, H, W]``.

    background: ``[3]`` or one colour a view ``[V, 3]``. ``num_samples`` None takes one sample a voxel.
    """
    origins, directions = cameras.rays(height, width)
    views = origins.shape[0]
    background = background.to(origins.device).expand(views, 3)
    images = torch.empty(views, height * width, 3, device=origins.device)
    masks = torch.empty(views, height * width, device=origins.device)
    for view in range(views):
        for rows in torch.arange(height * width, device=origins.device).split(16384):
            rendered = render_rays(
                volume,
                origins[view].reshape(-1, 3)[rows],
                directions[view].reshape(-1, 3)[rows],
                background[view],
                num_samples=num_samples or volume.resolution,
            )
            images[view, rows], masks[view, rows] = rendered.rgb, rendered.opacity
    images = images.view(views, height, width, 3).permute(0, 3, 1, 2).clamp(0.0, 1.0)
    return images.contiguous(), masks.view(views, 1, height, width).clamp(0.0, 1.0)
