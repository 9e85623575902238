"""Warp kernels of the multiresolution hash encoding: one source for CPU and CUDA.

Legend: K points, L levels, F features a level, T rows of a table. A kernel handles one level: its table then stays in
the cache while all points read it. `hash_encoding` has the same in plain torch, which is the specification.
"""

# Kernel annotations are array specifications for Warp, and kernel code is not Python: a type checker knows neither.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import warp as wp

wp.config.log_level = wp.LOG_WARNING
wp.set_module_options({"enable_backward": False, "fast_math": False})

Points: TypeAlias = wp.array(dtype=wp.vec3, ndim=1)

# The primes of Instant-NGP's hash; x is left as it is, so that neighbours along it lie together.
_Y = wp.constant(wp.uint32(2654435761))
_Z = wp.constant(wp.uint32(805459861))


@wp.func
def row_of(x: int, y: int, z: int, resolution: int, rows: int, dense: int) -> int:
    """The row of a level's table that holds the corner (x, y, z)."""
    if dense != 0:
        return (x * (resolution + 1) + y) * (resolution + 1) + z
    return int((wp.uint32(x) ^ (wp.uint32(y) * _Y) ^ (wp.uint32(z) * _Z)) & wp.uint32(rows - 1))


@wp.func
def place(point: wp.vec3, resolution: int) -> wp.vec3:
    """A point of [-1, 1]^3 in cells; beyond the cube, the nearest place on it."""
    scale = 0.5 * float(resolution)
    top = float(resolution)
    return wp.vec3(
        wp.clamp((point[0] + 1.0) * scale, 0.0, top),
        wp.clamp((point[1] + 1.0) * scale, 0.0, top),
        wp.clamp((point[2] + 1.0) * scale, 0.0, top),
    )


@wp.kernel
def encode_kernel(
    points: Points,
    table: wp.array(dtype=Any, ndim=1),
    resolution: int,
    dense: int,
    level: int,
    encoded: wp.array(dtype=Any, ndim=2),
):
    index = wp.tid()
    at = place(points[index], resolution)
    x = wp.min(int(at[0]), resolution - 1)
    y = wp.min(int(at[1]), resolution - 1)
    z = wp.min(int(at[2]), resolution - 1)
    u = at[0] - float(x)
    v = at[1] - float(y)
    w = at[2] - float(z)
    rows = table.shape[0]
    c000 = table[row_of(x, y, z, resolution, rows, dense)]
    c001 = table[row_of(x, y, z + 1, resolution, rows, dense)]
    c010 = table[row_of(x, y + 1, z, resolution, rows, dense)]
    c011 = table[row_of(x, y + 1, z + 1, resolution, rows, dense)]
    c100 = table[row_of(x + 1, y, z, resolution, rows, dense)]
    c101 = table[row_of(x + 1, y, z + 1, resolution, rows, dense)]
    c110 = table[row_of(x + 1, y + 1, z, resolution, rows, dense)]
    c111 = table[row_of(x + 1, y + 1, z + 1, resolution, rows, dense)]
    low = (c000 * (1.0 - w) + c001 * w) * (1.0 - v) + (c010 * (1.0 - w) + c011 * w) * v
    high = (c100 * (1.0 - w) + c101 * w) * (1.0 - v) + (c110 * (1.0 - w) + c111 * w) * v
    encoded[index, level] = low * (1.0 - u) + high * u


@wp.kernel
def encode_backward_kernel(
    points: Points,
    gradient: wp.array(dtype=Any, ndim=2),
    resolution: int,
    dense: int,
    level: int,
    grad_table: wp.array(dtype=Any, ndim=1),
):
    index = wp.tid()
    g = gradient[index, level]
    at = place(points[index], resolution)
    x = wp.min(int(at[0]), resolution - 1)
    y = wp.min(int(at[1]), resolution - 1)
    z = wp.min(int(at[2]), resolution - 1)
    u = at[0] - float(x)
    v = at[1] - float(y)
    w = at[2] - float(z)
    rows = grad_table.shape[0]
    low = g * (1.0 - u)
    high = g * u
    low0 = low * (1.0 - v)
    low1 = low * v
    high0 = high * (1.0 - v)
    high1 = high * v
    wp.atomic_add(grad_table, row_of(x, y, z, resolution, rows, dense), low0 * (1.0 - w))
    wp.atomic_add(grad_table, row_of(x, y, z + 1, resolution, rows, dense), low0 * w)
    wp.atomic_add(grad_table, row_of(x, y + 1, z, resolution, rows, dense), low1 * (1.0 - w))
    wp.atomic_add(grad_table, row_of(x, y + 1, z + 1, resolution, rows, dense), low1 * w)
    wp.atomic_add(grad_table, row_of(x + 1, y, z, resolution, rows, dense), high0 * (1.0 - w))
    wp.atomic_add(grad_table, row_of(x + 1, y, z + 1, resolution, rows, dense), high0 * w)
    wp.atomic_add(grad_table, row_of(x + 1, y + 1, z, resolution, rows, dense), high1 * (1.0 - w))
    wp.atomic_add(grad_table, row_of(x + 1, y + 1, z + 1, resolution, rows, dense), high1 * w)


@cache
def kernels(features: int) -> tuple[Any, Any, Any]:
    """(forward, backward, the element type) for so many features a level."""
    kind = {1: wp.float32, 2: wp.vec2, 4: wp.vec4}.get(features) or wp.types.vector(features, wp.float32)
    line, square = wp.array(dtype=kind, ndim=1), wp.array(dtype=kind, ndim=2)
    forward = wp.overload(encode_kernel, {"table": line, "encoded": square})
    backward = wp.overload(encode_backward_kernel, {"gradient": square, "grad_table": line})
    return forward, backward, kind
