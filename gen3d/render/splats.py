"""3D Gaussian splatting (arXiv 2308.04079): anisotropic Gaussians, projected, sorted, and laid over each other.

A Gaussian of covariance S = R diag(s)^2 R^T is seen as one of covariance C = J W S W^T J^T + 0.3 px^2 in the picture
(EWA, J the perspective's slope at its centre), and takes alpha = opacity exp(-d^T C^-1 d / 2) of what a pixel sees; a
pixel is sum_i f_i alpha_i prod_{j<i} (1 - alpha_j) over the splats from near to far, for colours and other features f.

`project` and `tiles` are plain torch. `composite` runs on Warp (CPU and CUDA, one source) or on gsplat's CUDA kernels
(`pip install gsplat`), and `splats_reference.composite` is its specification. float32. On a CPU the same input gives
the same bytes; on CUDA gradients do not, for the order of sums differs.

Legend: V views, N splats, C features, S x S pixels. Cameras as of `gen3d.cameras`; rows run down.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch
import torch.nn.functional as F
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from gen3d.cameras import Cameras
from gen3d.render import splat_kernels as kernels
from gen3d.render.splat_types import LEAST_ALPHA, LOW_PASS, NEAR, Projected
from gen3d.render.warp_launch import launch

Backend = Literal["auto", "warp", "gsplat"]

# Pixels along a tile's edge. A CPU wastes less time on splats that miss with small ones; a GPU wants a block's worth.
_CPU_TILE, _GPU_TILE = 8, 16
# Where the perspective's slope is taken of splats outside the picture, in half widths of it: farther out it explodes.
_SLOPE_UP_TO = 1.3


def rotation_matrices(rotations: Tensor) -> Tensor:
    """`[N, 3, 3]` of quaternions `[N, 4]` in the order w, x, y, z, of any length but zero."""
    w, x, y, z = F.normalize(rotations, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).view(-1, 3, 3)


def project(
    means: Tensor,
    scales: Tensor,
    rotations: Tensor,
    opacities: Tensor,
    cameras: Cameras,
    size: int,
    *,
    antialias: bool = False,
) -> Projected:
    """What pictures of `size` pixels along an edge see of splats; differentiable, in any floating type.

    means: `[N, 3]` in the world. scales: `[N, 3]` standard deviations along the splat's own axes, in world units.
    rotations: `[N, 4]` quaternions (w, x, y, z) from those axes to the world's. opacities: `[N]` in [0, 1].
    antialias: a splat that the low-pass makes larger becomes fainter by as much (Mip-Splatting, arXiv 2311.16493), so
    that it looks the same at any number of pixels; without, as the paper and most viewers have it.
    """
    c2w, half = cameras.c2w.to(means), size / 2
    tan = torch.tan(torch.deg2rad(cameras.fovy_deg.to(means)) / 2)[:, None]
    focal = half / tan
    axes = (
        c2w[:, :3, :3].transpose(1, 2) * means.new_tensor([1.0, -1.0, -1.0])[:, None]
    )  # right, down, forward
    x, y, z = torch.einsum("vij,vnj->ivn", axes, means[None] - c2w[:, None, :3, 3])
    depth = z
    z = z.clamp_min(NEAR)
    limit = _SLOPE_UP_TO * tan
    spread = rotation_matrices(rotations) * scales[:, None]
    right, down, forward = torch.einsum("vij,njk->ivnk", axes, spread)
    slope_x, slope_y = (torch.minimum(torch.maximum(part / z, -limit), limit)[..., None] for part in (x, y))
    zoom = (focal / z)[..., None]
    across, along = zoom * (right - slope_x * forward), zoom * (down - slope_y * forward)
    raw = [(across * across).sum(-1), (across * along).sum(-1), (along * along).sum(-1)]
    xx, xy, yy = raw[0] + LOW_PASS, raw[1], raw[2] + LOW_PASS
    seen = opacities.expand_as(depth)
    if antialias:
        shrunk = (raw[0] * raw[2] - xy * xy).clamp_min(1e-12) / (xx * yy - xy * xy)
        seen = seen * shrunk.sqrt()
    return Projected(
        centres=torch.stack([focal * x / z + half, focal * y / z + half], dim=-1),
        covariances=torch.stack([xx, xy, yy], dim=-1),
        opacities=seen,
        depth=depth,
    )


@torch.no_grad()
def tiles(seen: Projected, size: int, tile: int) -> tuple[Tensor, Tensor]:
    """Which splats may reach each tile of `tile` x `tile` pixels: starts `[V * T + 1]` and, between them, the splats
    from near to far `[P]`, both int32; T tiles a picture, row by row."""
    views, count = seen.depth.shape
    across = -(-size // tile)
    by_depth = seen.depth.argsort(dim=1, stable=True)
    # Where alpha falls below what is looked at: nothing outside this box is touched.
    reach = 2.0 * torch.log((seen.opacities / LEAST_ALPHA).clamp_min(1.0))
    radius = (reach[..., None] * seen.covariances[..., 0::2]).sqrt() + 1e-3
    low = ((seen.centres - radius) / tile).floor().clamp(0, across)
    high = ((seen.centres + radius) / tile).floor().clamp(-1, across - 1)
    extent = (high - low + 1).clamp_min(0).long()
    hidden = (reach <= 0) | (seen.depth <= NEAR)
    extent[hidden] = 0
    low, extent = (
        part.gather(1, by_depth[..., None].expand_as(part)).flatten(0, 1) for part in (low.long(), extent)
    )
    number = extent.prod(dim=-1)
    which = torch.arange(views * count, device=number.device).repeat_interleave(number)
    within = torch.arange(len(which), device=number.device) - (number.cumsum(0) - number)[which]
    width = extent[which, 0]
    row, column = low[which, 1] + within // width, low[which, 0] + within % width
    number_of_tile = (which // count * across + row) * across + column
    sorted_tiles, place = number_of_tile.int().sort(stable=True)
    edges = torch.arange(views * across * across + 1, device=number.device, dtype=torch.int32)
    starts = torch.searchsorted(sorted_tiles, edges, out_int32=True)
    return starts, by_depth.flatten()[which[place]].int()


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, splats: Tensor, starts: Tensor, order: Tensor, size: int, tile: int
    ) -> tuple[Tensor, ...]:
        shape, device = (splats.shape[0], size, size), splats.device
        result = splats.new_zeros(*shape, splats.shape[2] - 6)
        remaining = splats.new_empty(shape)
        last = torch.empty(shape, dtype=torch.int32, device=device)
        inputs = (splats, wp.float32), (starts, wp.int32), (order, wp.int32), tile
        results = (result, wp.float32), (remaining, wp.float32), (last, wp.int32)
        launch(kernels.composite_kernel, shape, device, *inputs, *results)
        ctx.save_for_backward(splats, starts, order, remaining, last)
        ctx.tile = tile
        return result, remaining

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        splats, starts, order, remaining, last = ctx.saved_tensors
        grad_splats = torch.zeros_like(splats)
        inputs = (splats, wp.float32), (starts, wp.int32), (order, wp.int32), ctx.tile
        drawn = (remaining, wp.float32), (last, wp.int32)
        gradients = [(each.contiguous(), wp.float32) for each in (*grads, grad_splats)]
        launch(
            kernels.composite_backward_kernel,
            tuple(remaining.shape),
            splats.device,
            *inputs,
            *drawn,
            *gradients,
        )
        return grad_splats, None, None, None, None


def composite(
    seen: Projected, features: Tensor, size: int, *, backend: Backend = "auto"
) -> tuple[Tensor, Tensor]:
    """Sums of `features [V, N, C]` `[V, S, S, C]`, and what passes every splat `[V, S, S]` in [0, 1]; differentiable in
    features and all of `seen` but the depth."""
    kind = chosen_backend(backend, seen.depth.device)
    tile = _CPU_TILE if seen.depth.device.type == "cpu" else _GPU_TILE
    starts, order = tiles(seen, size, tile)
    if kind == "gsplat":
        return _with_gsplat(seen, features, size, tile, starts, order)
    result, remaining = _Composite.apply(  # pyright: ignore[reportGeneralTypeIssues]
        seen.packed(features).contiguous(), starts, order, size, tile
    )
    return result, remaining


def chosen_backend(backend: Backend, device: torch.device) -> Literal["warp", "gsplat"]:
    """What `auto` stands for on a device. ValueError where gsplat is asked for and cannot be had."""
    there = importlib.util.find_spec("gsplat") is not None
    if backend == "gsplat":
        if not there:
            raise ValueError(
                "gaussians backend gsplat needs the package gsplat; pip install gsplat, or use warp"
            )
        if device.type != "cuda":
            raise ValueError(
                f"gaussians backend gsplat needs device=cuda, got {device.type}; use warp or auto"
            )
    return "gsplat" if there and device.type == "cuda" and backend != "warp" else "warp"


def _with_gsplat(
    seen: Projected, features: Tensor, size: int, tile: int, starts: Tensor, order: Tensor
) -> tuple[Tensor, Tensor]:
    """`composite` by gsplat's kernels, which let a splat take 0.999 of the light where ours stop at 0.99."""
    from gsplat import rasterize_to_pixels  # pyright: ignore[reportMissingImports]

    views, count = seen.depth.shape
    across = -(-size // tile)
    view = torch.searchsorted(
        starts[across * across :: across * across].contiguous(),
        torch.arange(len(order), device=order.device, dtype=torch.int32),
        right=True,
    )
    colors, alphas = rasterize_to_pixels(
        seen.centres.contiguous(),
        seen.conics().contiguous(),
        features.contiguous(),
        seen.opacities.contiguous(),
        size,
        size,
        tile,
        starts[:-1].view(views, across, across).contiguous(),
        (view * count + order).int(),
    )
    return colors, 1.0 - alphas[..., 0]
