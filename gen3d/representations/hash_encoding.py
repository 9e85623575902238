"""The multiresolution hash encoding of Instant-NGP (arXiv 2201.05989): positions to features that are learned.

Each level is a grid of corners over the cube [-1, 1]^3. A point's features are the trilinear mix of its cell's eight
corners, level after level. A level's corners have rows of their own while they fit its table; a finer one shares
rows by a hash of the corner.

Legend: K points, L levels, F features a level, T rows of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from gen3d.render.warp_launch import launch
from gen3d.representations.hash_kernels import kernels

_PRIMES = (1, 2654435761, 805459861)
_MASK = (1 << 32) - 1


@dataclass(frozen=True, kw_only=True)
class Level:
    """resolution: cells along an edge. rows: of its table; a power of two where corners share rows."""

    resolution: int
    rows: int

    @property
    def dense(self) -> bool:
        """Whether every corner has a row of its own."""
        return self.rows >= (self.resolution + 1) ** 3


def levels(resolutions: Sequence[int], most_rows: int) -> list[Level]:
    """Levels of such resolutions whose tables have at most `most_rows` rows, a power of two."""
    return [Level(resolution=each, rows=min(most_rows, (each + 1) ** 3)) for each in resolutions]


def geometric(count: int, base: int, finest: int) -> list[int]:
    """`count` resolutions from `base` to `finest`, each by the same factor above the one before."""
    growth = (finest / base) ** (1.0 / max(count - 1, 1))
    return [int(base * growth**index + 1e-6) for index in range(count)]


def encode(points: Tensor, tables: Sequence[Tensor], levels: Sequence[Level]) -> Tensor:
    """Features `[K, L * F]` of `points [K, 3]` from a table `[T, F]` a level, differentiable in the tables alone.
    Beyond the cube, the nearest place on it is meant. Kernels do it in float32, plain torch in other types."""
    if tables[0].dtype != torch.float32:
        return encode_reference(points, tables, levels)
    result = _Encode.apply(points.detach().contiguous(), tuple(levels), *tables)
    assert isinstance(result, Tensor)
    return result


def encode_reference(points: Tensor, tables: Sequence[Tensor], levels: Sequence[Level]) -> Tensor:
    """`encode` in plain torch, in any floating type: the specification."""
    corner = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], device=points.device)
    encoded = []
    for table, level in zip(tables, levels, strict=True):
        at = ((points.detach() + 1.0) * (0.5 * level.resolution)).clamp(0.0, level.resolution)
        cell = at.long().clamp_max(level.resolution - 1)
        fraction = (at - cell)[:, None]
        weights = torch.where(corner.bool(), fraction, 1.0 - fraction).prod(dim=-1)
        rows = table[_rows(cell[:, None] + corner, level)]
        encoded.append((weights[..., None] * rows).sum(dim=1))
    return torch.cat(encoded, dim=1)


def _rows(corners: Tensor, level: Level) -> Tensor:
    """Rows `[...]` of a level's table for `corners [..., 3]` int64."""
    x, y, z = corners.unbind(-1)
    if level.dense:
        side = level.resolution + 1
        return (x * side + y) * side + z
    hashed = [(each * prime) & _MASK for each, prime in zip((x, y, z), _PRIMES, strict=True)]
    return (hashed[0] ^ hashed[1] ^ hashed[2]) & (level.rows - 1)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, levels: Sequence[Level], *tables: Tensor) -> Tensor:
        features = tables[0].shape[1]
        forward, _, kind = kernels(features)
        encoded = points.new_empty(len(points), len(levels), features)
        for index, (table, level) in enumerate(zip(tables, levels, strict=True)):
            about = level.resolution, int(level.dense), index
            launch(
                forward,
                (len(points),),
                points.device,
                (points, wp.vec3),
                (table, kind),
                *about,
                (encoded, kind),
            )
        ctx.save_for_backward(points)
        ctx.levels, ctx.features = levels, features
        return encoded.view(len(points), -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        (points,) = ctx.saved_tensors
        _, backward, kind = kernels(ctx.features)
        gradient = gradients[0].contiguous().view(len(points), len(ctx.levels), ctx.features)
        found = []
        for index, level in enumerate(ctx.levels):
            if not ctx.needs_input_grad[2 + index]:  # it does not learn yet
                found.append(None)
                continue
            grad_table = gradient.new_zeros(level.rows, ctx.features)
            about = level.resolution, int(level.dense), index
            launch(
                backward,
                (len(points),),
                points.device,
                (points, wp.vec3),
                (gradient, kind),
                *about,
                (grad_table, kind),
            )
            found.append(grad_table)
        return None, None, *found
