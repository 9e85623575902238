"""Warp kernels of trilinear look-ups on a CPU; `trilinear` has the same in plain torch, which is the specification.

Legend: K points, C channels.
"""

# Kernel annotations are array specifications for Warp, and kernel code is not Python: a type checker knows neither.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from functools import cache
from typing import Any

import warp as wp

wp.config.log_level = wp.LOG_WARNING
wp.set_module_options({"enable_backward": False, "fast_math": False})

# What belongs to the eight corners of a point: rows, and shares.
CORNERS, WEIGHTS = wp.types.vector(8, wp.int32), wp.types.vector(8, wp.float32)


@wp.kernel
def corners_kernel(
    points: wp.array(dtype=wp.vec3, ndim=1),
    resolution: int,
    corners: wp.array(dtype=wp.int32, ndim=2),
    weights: wp.array(dtype=wp.float32, ndim=2),
):
    """Rows of the corners of each point's cell, and their shares."""
    index = wp.tid()
    scale = 0.5 * float(resolution - 1)
    top = float(resolution - 2)
    at = wp.vec3(
        (points[index][0] + 1.0) * scale, (points[index][1] + 1.0) * scale, (points[index][2] + 1.0) * scale
    )
    x = wp.clamp(wp.floor(at[0]), 0.0, top)
    y = wp.clamp(wp.floor(at[1]), 0.0, top)
    z = wp.clamp(wp.floor(at[2]), 0.0, top)
    u = wp.clamp(at[0] - x, 0.0, 1.0)
    v = wp.clamp(at[1] - y, 0.0, 1.0)
    w = wp.clamp(at[2] - z, 0.0, 1.0)
    r000 = (int(x) * resolution + int(y)) * resolution + int(z)
    r010 = r000 + resolution
    r100 = r000 + resolution * resolution
    r110 = r100 + resolution
    corners[index, 0] = r000
    corners[index, 1] = r000 + 1
    corners[index, 2] = r010
    corners[index, 3] = r010 + 1
    corners[index, 4] = r100
    corners[index, 5] = r100 + 1
    corners[index, 6] = r110
    corners[index, 7] = r110 + 1
    s00 = (1.0 - u) * (1.0 - v)
    s01 = (1.0 - u) * v
    s10 = u * (1.0 - v)
    s11 = u * v
    weights[index, 0] = s00 * (1.0 - w)
    weights[index, 1] = s00 * w
    weights[index, 2] = s01 * (1.0 - w)
    weights[index, 3] = s01 * w
    weights[index, 4] = s10 * (1.0 - w)
    weights[index, 5] = s10 * w
    weights[index, 6] = s11 * (1.0 - w)
    weights[index, 7] = s11 * w


@wp.kernel
def gather_backward_kernel(
    corners: wp.array(dtype=CORNERS, ndim=1),
    weights: wp.array(dtype=WEIGHTS, ndim=1),
    gradient: wp.array(dtype=Any, ndim=1),
    grad_table: wp.array(dtype=Any, ndim=1),
):
    """Each point's gradient to the rows that it was read from, point after point."""
    index = wp.tid()
    rows = corners[index]
    shares = weights[index]
    pull = gradient[index]
    for corner in range(8):
        wp.atomic_add(grad_table, rows[corner], shares[corner] * pull)


@cache
def gather_backward(channels: int) -> tuple[Any, Any]:
    """(the kernel, the element type of gradient and table) for so many channels."""
    kind = wp.types.vector(channels, wp.float32)
    line = wp.array(dtype=kind, ndim=1)
    return wp.overload(gather_backward_kernel, {"gradient": line, "grad_table": line}), kind
