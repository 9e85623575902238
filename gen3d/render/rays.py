"""Differentiable quadrature along rays through a field, evaluating only samples that can be seen.

Legend: N rays, S samples a ray, K samples kept. Distances are along unit directions, in world units.
A sample is dropped when its cell is empty, or when what certainly lies before it has already stopped the light. Both
are told by `Field.density_bounds`, so the result equals the full sum to within `_SKIP` a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.representations.base import Field, RayRender, Rendered, Samples, Shade

_SKIP = 5e-4  # optical thickness below which a sample is empty
_OPAQUE = 7.0  # optical depth beyond which nothing is seen: exp(-7) is below one part in a thousand


def near_far(origins: Tensor, directions: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays `[N, 3]` enter and leave the box `low`..`high [3]`; both `[N]`, equal where they miss."""
    # A component of exactly zero would make 0 * inf on a face of the box.
    safe = torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    first, second = (low - origins) / safe, (high - origins) / safe
    near = torch.minimum(first, second).amax(dim=-1).clamp_min(0.0)
    far = torch.maximum(first, second).amin(dim=-1)
    return near, torch.maximum(near, far)


def render_rays(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    background: Tensor,
    *,
    num_samples: int,
    generator: torch.Generator | None = None,
    shade: Shade | None = None,
    normals: bool = False,
) -> RayRender:
    """Render rays `origins`, `directions [N, 3]` (unit) over `background [C]` or `[N, C]`; `normals` asks for those.

    With a `generator` each sample lies anywhere in its bin (for training); without, in the middle; or where the field
    itself chooses (`Field.samples`). Differentiable in the field's tensors and in `background`, not in the rays.
    """
    samples = field.samples(origins, directions, num_samples, generator)
    if samples is None:
        samples = _binned(field, origins, directions, num_samples, generator)
    ray, points, t, step = samples.kept[:, 0], samples.points, samples.t, samples.step
    flat = _flat(samples.kept, num_samples)
    density, color = field.density_and_color(points)
    if shade is not None:
        color = shade(field, points, color)
    thickness = density * (
        step.index_select(0, ray) if step.ndim == 1 else step.view(-1).index_select(0, flat)
    )
    dense = thickness.new_zeros(t.numel()).index_copy(0, flat, thickness).view(t.shape)
    transmittance = torch.exp(dense - dense.cumsum(dim=1))
    weights = transmittance * -torch.expm1(-dense)
    opacity = weights.sum(dim=1)
    shares = weights.view(-1).index_select(0, flat)[:, None]
    color = shares * color
    through = (1.0 - opacity)[:, None] * background
    rgb = color.new_zeros(len(t), color.shape[1]).index_add(0, ray, color) + through
    depth = (weights * t).sum(dim=1)
    facing = None
    if normals:
        parts = shares * field.normals_at(points)
        facing = parts.new_zeros(len(t), 3).index_add(0, ray, parts)
    seen = RayRender(
        rgb=rgb,
        opacity=opacity,
        depth=depth,
        weights=weights,
        t=t,
        step=step,
        kept=samples.kept,
        points=points,
        directions=directions,
        normals=facing,
    )
    if generator is not None:
        field.saw(seen)
    return seen


@torch.no_grad()
def _binned(
    field: Field, origins: Tensor, directions: Tensor, num_samples: int, generator: torch.Generator | None
) -> Samples:
    """One sample in each of `num_samples` bins of equal length, less those that cannot be seen."""
    count, device = origins.shape[0], origins.device
    low, high = field.bounds()
    near, far = near_far(origins, directions, low, high)
    step = (far - near) / num_samples
    offset = torch.full((count, num_samples), 0.5, device=device)
    if generator is not None:
        offset = torch.rand(count, num_samples, generator=generator, device=generator.device).to(device)
    t = near[:, None] + step[:, None] * (torch.arange(num_samples, device=device) + offset)
    points = origins[:, None] + directions[:, None] * t[..., None]
    kept = visible(field, points, step[:, None])
    points = points.view(-1, 3).index_select(0, _flat(kept, num_samples))
    return Samples(t=t, step=step, kept=kept, points=points)


def _flat(kept: Tensor, num_samples: int) -> Tensor:
    """`(ray, sample)` `[K, 2]` as one number of all samples: looking up by one is much faster than by two."""
    return kept[:, 0] * num_samples + kept[:, 1]


@torch.no_grad()
def visible(field: Field, points: Tensor, step: Tensor) -> Tensor:
    """Which samples at `points [N, S, 3]`, from near to far, are worth a look: int64 `[K, 2]`, (ray, sample). step: the
    length of each, `[N, 1]` or `[N, S]`."""
    least, greatest = field.density_bounds(points)
    before = (least * step).cumsum(dim=1)
    return ((greatest * step > _SKIP) & (before - least * step < _OPAQUE)).nonzero()


def render_field(
    field: Field,
    cameras: Cameras,
    size: int,
    background: Tensor,
    *,
    generator: torch.Generator | None,
    shade: Shade | None,
    normals: bool = False,
) -> Rendered:
    """Whole pictures `size` x `size` by V cameras over `background [V, C]`, with gradients."""
    origins, directions = cameras.rays(size, size)
    background = background.to(origins.device)
    rays = render_rays(
        field,
        origins.reshape(-1, 3),
        directions.reshape(-1, 3),
        background.repeat_interleave(size * size, 0),
        num_samples=field.num_samples,
        generator=generator,
        shade=shade,
        normals=normals,
    )

    def pixels(values: Tensor) -> Tensor:
        return values.view(len(cameras), size, size, -1).permute(0, 3, 1, 2)

    return Rendered(
        images=pixels(rays.rgb),
        opacity=pixels(rays.opacity),
        depth=pixels(rays.depth),
        normals=None if rays.normals is None else pixels(rays.normals),
        rays=rays,
    )


@torch.no_grad()
def picture(
    field: Field,
    cameras: Cameras,
    size: int,
    background: Tensor,
    *,
    num_samples: int,
    shade: Shade | None = None,
    normals: bool = False,
) -> Rendered:
    """Whole pictures without gradients, a few rays at a time, over `background [V, C]`; colours lie in [0, 1]."""
    origins, directions = cameras.rays(size, size)
    views, background = len(cameras), background.to(origins.device)
    widths = {"rgb": background.shape[1], "opacity": 1, "depth": 1} | ({"normals": 3} if normals else {})
    made = {
        name: torch.empty(views, size * size, width, device=origins.device) for name, width in widths.items()
    }
    for view in range(views):
        for rows in torch.arange(size * size, device=origins.device).split(16384):
            rendered = render_rays(
                field,
                origins[view].reshape(-1, 3)[rows],
                directions[view].reshape(-1, 3)[rows],
                background[view],
                num_samples=num_samples,
                shade=shade,
                normals=normals,
            )
            for name, values in made.items():
                values[view, rows] = getattr(rendered, name).view(len(rows), -1)
    pixels = {
        name: v.view(views, size, size, -1).permute(0, 3, 1, 2).contiguous() for name, v in made.items()
    }
    return Rendered(
        images=pixels["rgb"].clamp(0.0, 1.0) if pixels["rgb"].shape[1] == 3 else pixels["rgb"],
        opacity=pixels["opacity"].clamp(0.0, 1.0),
        depth=pixels["depth"],
        normals=pixels.get("normals"),
    )
