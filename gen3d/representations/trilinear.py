"""Trilinear look-ups in a dense grid of rows, differentiable in the grid.

The grid is a table `[R^3, C]`, its rows indexed `[x, y, z]`, the first on -1 and the last on 1 of each axis. On a CPU
in float32 Warp's kernels do what costs plain torch most of the time, to the last bit the same: axes of eight corners
and of a few channels are too small for it.

Legend: K points, C channels, R rows along an edge.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import warp as wp
from torch import Tensor

from gen3d.render.warp_launch import launch
from gen3d.representations.trilinear_kernels import CORNERS, WEIGHTS, corners_kernel, gather_backward


class _Gather(torch.autograd.Function):
    """Weighted sums of table rows; the gradient goes to the table alone."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(corners, weights)
        ctx.table_shape = table.shape
        return F.embedding_bag(corners, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:
        corners, weights = ctx.saved_tensors
        grad = grad_outputs[0]
        grad_table = grad.new_zeros(ctx.table_shape)
        if not _has_kernels(grad):
            return scatter_reference(grad_table, corners, weights, grad), None, None
        kernel, row = gather_backward(grad.shape[1])
        inputs = (corners, CORNERS), (weights, WEIGHTS), (grad.contiguous(), row)
        launch(kernel, (len(grad),), grad.device, *inputs, (grad_table, row))
        return grad_table, None, None


def sample(table: Tensor, points: Tensor, resolution: int) -> Tensor:
    """Values `[K, C]` at `points [K, 3]`, differentiable in the table. Beyond the cube the nearest face's value
    holds."""
    if not (_has_kernels(points) and _has_kernels(table)):
        return _gather(table, *corners_reference(points, resolution))
    corners = torch.empty(len(points), 8, dtype=torch.int32)
    weights = torch.empty(len(points), 8)
    results = (corners, wp.int32), (weights, wp.float32)
    located = points.detach().contiguous()
    launch(corners_kernel, (len(points),), points.device, (located, wp.vec3), resolution, *results)
    return _gather(table, corners, weights)


def corners_reference(points: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Rows `[K, 8]` (int64) of the corners of each point's cell and their shares `[K, 8]`, in plain torch: the
    specification."""
    scaled = (points + 1.0) * (0.5 * (resolution - 1))
    cell = scaled.floor().clamp_(0, resolution - 2)
    fraction, cell, n = (scaled - cell).clamp_(0.0, 1.0), cell.long(), resolution
    base = (cell[:, 0] * n + cell[:, 1]) * n + cell[:, 2]
    offsets = torch.tensor([0, 1, n, n + 1, n * n, n * n + 1, n * n + n, n * n + n + 1], device=points.device)
    both = torch.stack([1.0 - fraction, fraction], dim=-1)
    weights = both[:, 0, :, None, None] * both[:, 1, None, :, None] * both[:, 2, None, None, :]
    return base[:, None] + offsets, weights.reshape(-1, 8)


def scatter_reference(table: Tensor, corners: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """`table` with `values [K, C]` added to the rows of their corners, by their shares, in plain torch."""
    rows = (weights[:, :, None] * values[:, None, :]).view(-1, values.shape[-1])
    return table.index_add_(0, corners.view(-1), rows)


def _gather(table: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    result = _Gather.apply(table, corners, weights)
    assert isinstance(result, Tensor)
    return result


def _has_kernels(tensor: Tensor) -> bool:
    """On CUDA the order of their sums would differ from run to run."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32
