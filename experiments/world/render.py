"""The world's own renderer: cone-marched signed distance fields with soft shading, in batched torch.

Cones first: blocks of pixels march together and stop where their cone may touch something, so that only pixels near
a surface march on their own. Coverage comes from how near, in pixels, a ray passes: silhouettes are antialiased at
one ray a pixel.

Legend: S scenes, V cameras a scene, N rays. Images are sRGB in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.world.sdf import Field
from gen3d.cameras import Cameras

# Points evaluated at once: small enough for a core's cache, large enough to hide the cost of a call.
_CHUNK = 16384
_LEVELS = (8, 4, 2)
REACH = 1.15  # radius of the ball about the origin in which scenes are looked for; they fit the unit sphere


@dataclass(frozen=True, kw_only=True, slots=True)
class Light:
    """Key light direction (world, towards the light) and the shares of light; they need not sum to 1.

    key: soft directional light. sky: light from above. fill: light from the camera. ambient: light from everywhere.
    specular: strength of highlights.
    occlusion: how much crevices darken, 0 to 1.
    """

    direction: tuple[float, float, float] = (0.45, 0.8, 0.6)
    key: float = 0.42
    sky: float = 0.26
    fill: float = 0.22
    ambient: float = 0.17
    specular: float = 0.05
    occlusion: float = 0.65


@dataclass(frozen=True, slots=True)
class _Lights:
    """The lights of S scenes, as in `Light`: direction `[S, 3]` of length 1, the rest `[S, 1]`."""

    direction: Tensor
    key: Tensor
    sky: Tensor
    fill: Tensor
    ambient: Tensor
    specular: Tensor
    occlusion: Tensor

    @staticmethod
    def of(lights: Sequence[Light], device: torch.device) -> _Lights:
        names = ("key", "sky", "fill", "ambient", "specular", "occlusion")
        shares = {n: torch.tensor([[getattr(each, n)] for each in lights], device=device) for n in names}
        direction = torch.tensor([each.direction for each in lights], device=device)
        return _Lights(torch.nn.functional.normalize(direction, dim=-1), **shares)


@dataclass(frozen=True, slots=True)
class Rendering:
    """What the cameras see; leading axes `[V]`, or `[S, V]` for several scenes.

    images `[V, 3, H, W]` sRGB over the background; mask `[V, 1, H, W]` coverage; depth `[V, 1, H, W]` along the
    ray, 0 where nothing is hit; normals `[V, 3, H, W]` in the world, 0 where nothing is hit; albedo like images,
    without light.
    """

    images: Tensor
    mask: Tensor
    depth: Tensor
    normals: Tensor
    albedo: Tensor


def srgb_to_linear(x: Tensor) -> Tensor:
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(x: Tensor) -> Tensor:
    return torch.where(x <= 0.0031308, x * 12.92, 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


@torch.no_grad()
def render(
    field: Field,
    cameras: Cameras,
    size: int,
    background: Tensor,
    light: Light | Sequence[Light],
    reach: float | Tensor = REACH,
) -> Rendering:
    """Render every scene of `field` from its own V cameras (`cameras` holds S*V, scene by scene), on their device.

    background: `[S, 3]` sRGB. light: one for all, or one a scene. reach: radius of the ball about the origin that holds
    all there is, one for all or `[S]`. Returns arrays with leading axes `[S, V]`.
    """
    num_scenes = field.num_scenes
    if len(cameras) % num_scenes:
        raise ValueError(f"cameras must be a multiple of the {num_scenes} scenes, got {len(cameras)}")
    if size % _LEVELS[0]:
        raise ValueError(f"size must be a multiple of {_LEVELS[0]} pixels, got {size}")
    views = len(cameras) // num_scenes
    lights = _Lights.of([light] * num_scenes if isinstance(light, Light) else light, cameras.device)
    if isinstance(reach, Tensor):
        reach = reach.to(cameras.device)[:, None]
    origins, directions = cameras.rays(size, size)
    origins = origins.reshape(num_scenes, -1, 3)
    directions = directions.reshape(num_scenes, -1, 3)
    # A pixel's footprint a unit along the ray, near enough constant over these narrow views.
    pixel = 2 * torch.tan(torch.deg2rad(cameras.fovy_deg) / 2) / size
    pixel = pixel.view(num_scenes, views, 1).expand(-1, -1, size * size).reshape(num_scenes, -1)

    start, alive = _cone_march(field, cameras, size, num_scenes, reach)
    shape = (num_scenes, views, size, size)
    rays = _gather(alive, origins, directions, pixel, start)
    index, valid, o, d, pix, t = rays
    t, gap = _march(field, o, d, pix, t, reach)
    coverage = (0.5 - gap).clamp(0, 1) * valid

    # Shade only what is seen. Points go onto the surface first: thin paint would be missed half a pixel below it.
    seen = coverage > 0
    slot, seen_valid, o, d, t = _gather(seen, o, d, t)
    points = o + d * t[..., None]
    color, albedo, normals, depth = _shade(field, points, o, d, lights)

    def scatter(values: Tensor, channels: int) -> Tensor:
        inner = torch.zeros(num_scenes, index.shape[1] + 1, channels, device=values.device)
        inner.scatter_(1, _dump(slot, seen_valid, index.shape[1])[..., None].expand(-1, -1, channels), values)
        outer = torch.zeros(num_scenes, views * size * size + 1, channels, device=values.device)
        where = _dump(index, valid, views * size * size)[..., None].expand(-1, -1, channels)
        outer.scatter_(1, where, inner[:, :-1])
        return outer[:, :-1].view(*shape, channels).permute(0, 1, 4, 2, 3).contiguous()

    mask = torch.zeros(num_scenes, views * size * size + 1, device=coverage.device)
    mask.scatter_(1, _dump(index, valid, views * size * size), coverage)
    mask = mask[:, :-1].view(*shape)[:, :, None]
    over = background.view(num_scenes, 1, 3, 1, 1)

    def composite(values: Tensor) -> Tensor:
        return torch.lerp(over.expand_as(values), values, mask)

    return Rendering(
        images=composite(scatter(color, 3)),
        mask=mask,
        depth=scatter(depth[..., None], 1),
        normals=scatter(normals, 3),
        albedo=composite(scatter(albedo, 3)),
    )


def _gather(keep: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Compact `[S, N]` rays to those kept: index and valid `[S, M]`, then each value; M fits the fullest."""
    count = int(keep.sum(1).max()) if keep.numel() else 0
    if keep.shape[0] == 1:
        index = keep[0].nonzero()[:, 0][None]
        valid = torch.ones_like(index, dtype=torch.bool)
    else:
        index = torch.argsort(keep.to(torch.uint8), dim=1, descending=True, stable=True)[:, :count]
        valid = keep.gather(1, index)
    picked = [
        v.gather(1, index[..., None].expand(-1, -1, v.shape[-1]) if v.ndim == 3 else index) for v in values
    ]
    return (index, valid, *picked)


def _dump(index: Tensor, valid: Tensor, last: int) -> Tensor:
    """Send rays that only pad the batch to a spare slot at the end."""
    return torch.where(valid, index, last)


def _chunked_sdf(field: Field, points: Tensor) -> Tensor:
    chunk = max(_CHUNK // field.num_scenes, 1024) if points.device.type == "cpu" else points.shape[1]
    return torch.cat([field.sdf(p) for p in points.split(max(chunk, 1), dim=1)], dim=1)


def _ball(origins: Tensor, directions: Tensor, reach: float | Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the ball that holds everything; they leave before they enter when they miss it."""
    b = (origins * directions).sum(-1)
    disc = b * b - (origins * origins).sum(-1) + reach * reach
    root = disc.clamp(min=0).sqrt()
    return (-b - root).clamp(min=0), torch.where(disc > 0, -b + root, -1.0)


def _cone_march(
    field: Field, cameras: Cameras, size: int, num_scenes: int, reach: float | Tensor
) -> tuple[Tensor, Tensor]:
    """A safe starting distance for every pixel and whether its cone may touch anything: both `[S, V * H * W]`."""
    start = alive = None
    for block in _LEVELS:
        n = size // block
        origins, directions = (r.reshape(num_scenes, -1, 3) for r in cameras.rays(n, n))
        enter, leave = _ball(origins, directions, reach)
        # Half the block's diagonal, and half a pixel more for the soft edge.
        slope = torch.tan(torch.deg2rad(cameras.fovy_deg) / 2) / n * math.sqrt(2) * (1 + 1 / block)
        slope = slope.view(num_scenes, -1, 1).expand(-1, -1, n * n).reshape(num_scenes, -1)
        t = enter if start is None else torch.maximum(enter, _upsample(start, n).reshape_as(enter))
        go = (leave > t) if alive is None else (leave > t) & _upsample(alive, n).reshape_as(t)
        for _ in range(12):
            index, valid, o, d, tt, s, end = _gather(go, origins, directions, t, slope, leave)
            if not index.shape[1]:
                break
            room = _chunked_sdf(field, o + d * tt[..., None]) - s * tt
            blocked = room <= 0
            moved = torch.where(blocked, tt, tt + room.clamp(min=0) * 0.9 / (1 + s))
            t = t.scatter(1, index, torch.where(valid, moved, tt))
            go = go.scatter(1, index, valid & ~blocked & (moved < end) & (room > 0.3 * s * tt))
        start, alive = t.view(-1, n, n), (t < leave).view(-1, n, n)
    assert start is not None
    assert alive is not None
    return _upsample(start, size).reshape(num_scenes, -1), _upsample(alive, size).reshape(num_scenes, -1)


def _upsample(values: Tensor, n: int) -> Tensor:
    """Nearest-neighbour enlargement of `[B, m, m]` to `[B, n, n]`."""
    k = n // values.shape[-1]
    return values.repeat_interleave(k, 1).repeat_interleave(k, 2)


def _march(
    field: Field, o: Tensor, d: Tensor, pixel: Tensor, t: Tensor, reach: float | Tensor
) -> tuple[Tensor, Tensor]:
    """March single rays: distance along the ray at the hit or the closest pass, and the gap there in pixels.

    The ray stops half a pixel below the surface: there it is covered for certain.
    """
    gap = torch.full_like(t, math.inf)
    best = t.clone()
    _, leave = _ball(o, d, reach)
    go = torch.ones_like(t, dtype=torch.bool)
    for _ in range(48):
        index, valid, oo, dd, tt, pix, least, at, end = _gather(go, o, d, t, pixel, gap, best, leave)
        if not index.shape[1]:
            break
        footprint = pix * tt
        here = _chunked_sdf(field, oo + dd * tt[..., None]) / footprint
        nearer = here < least
        gap = gap.scatter(1, index, torch.where(nearer & valid, here, least))
        best = best.scatter(1, index, torch.where(nearer & valid, tt, at))
        step = ((here + 0.5) * 0.95).clamp(min=0.5) * footprint
        moved = tt + step
        t = t.scatter(1, index, torch.where(valid, moved, tt))
        go = go.scatter(1, index, valid & (here > -0.48) & (moved < end))
    return best, gap


def _shade(
    field: Field, points: Tensor, o: Tensor, d: Tensor, light: _Lights
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour (sRGB), albedo (sRGB), normal and depth at `points [S, N, 3]`."""
    chunk = max(_CHUNK // field.num_scenes, 1024) if points.device.type == "cpu" else max(points.shape[1], 1)
    parts = [
        _shade_chunk(field, p, q, r, light)
        for p, q, r in zip(points.split(chunk, 1), o.split(chunk, 1), d.split(chunk, 1), strict=True)
    ]
    color, albedo, normals, depth = (torch.cat(v, dim=1) for v in zip(*parts, strict=True))
    return color, albedo, normals, depth


def _shade_chunk(
    field: Field, points: Tensor, o: Tensor, d: Tensor, light: _Lights
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    normals = field.normals(points)
    points = points - normals * field.sdf(points)[..., None]
    _, albedo = field.sdf_and_albedo(points)
    depth = ((points - o) * d).sum(-1)

    # Ambient occlusion: how much less room there is along the normal than over a plane.
    taken = torch.zeros_like(depth)
    for reach in (0.1, 0.2, 0.36):
        taken = taken + (reach - field.sdf(points + normals * reach)).clamp(min=0) / reach / 3
    open_sky = 1 - light.occlusion * taken.clamp(0, 1)

    # Wrapped diffuse: softer than Lambert where the surface turns away.
    diffuse = (((normals @ light.direction[..., None])[..., 0] + 0.35) / 1.35).clamp(min=0)
    sky = 0.5 + 0.5 * normals[..., 1]
    facing = -(normals * d).sum(-1).clamp(max=0)
    half = torch.nn.functional.normalize(light.direction[:, None] - d, dim=-1)
    shine = light.specular * (normals * half).sum(-1).clamp(min=0) ** 24
    brightness = (light.key * diffuse + light.sky * sky + light.fill * facing + light.ambient) * open_sky
    color = srgb_to_linear(albedo) * brightness[..., None] + (shine * open_sky)[..., None]
    return linear_to_srgb(color.clamp(0, 1)), albedo, normals, depth
