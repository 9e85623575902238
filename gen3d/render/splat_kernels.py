"""Warp kernels of the splat renderer: one source for CPU and CUDA.

Legend: splats [V, N, 6 + C], what each picture sees of each splat: centre (column, row) in pixels, the conic (a, b, c)
of its exponent a x^2 / 2 + b x y + c y^2 / 2, opacity, C features. starts [V * tiles + 1], order [P]: the splats that
may reach each tile, from near to far. Rows run down. The adjoint is written by hand: it keeps the module quick to
compile, and needs one number a pixel where a tape would keep one a splat and pixel.
"""

# Kernel annotations are array specifications for Warp, and kernel code is not Python: a type checker knows neither.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import TypeAlias

import warp as wp

from gen3d.render.splat_types import CLOSED, LEAST_ALPHA, MOST_ALPHA

# Warp greets and reports compilations at its info level; libraries here stay silent.
wp.config.log_level = wp.LOG_WARNING
wp.set_module_options({"enable_backward": False, "fast_math": False})

Splats: TypeAlias = wp.array(dtype=float, ndim=3)
Numbers: TypeAlias = wp.array(dtype=wp.int32, ndim=1)
Features: TypeAlias = wp.array(dtype=float, ndim=4)
Pixels: TypeAlias = wp.array(dtype=float, ndim=3)
Places: TypeAlias = wp.array(dtype=wp.int32, ndim=3)

_LEAST = wp.constant(float(LEAST_ALPHA))
_MOST = wp.constant(float(MOST_ALPHA))
_CLOSED = wp.constant(float(CLOSED))
_FAINT = wp.constant(5.6)  # an exponent beyond which even an opaque splat is below LEAST_ALPHA


@wp.func
def tile_of(view: int, row: int, column: int, height: int, width: int, tile: int) -> int:
    """The number of the tile that a pixel lies in."""
    across = (width + tile - 1) // tile
    down = (height + tile - 1) // tile
    return (view * down + row // tile) * across + column // tile


@wp.kernel
def composite_kernel(
    splats: Splats,
    starts: Numbers,
    order: Numbers,
    tile: int,
    result: Features,
    remaining: Pixels,
    last: Places,
):
    view, row, column = wp.tid()
    channels = splats.shape[2] - 6
    at = tile_of(view, row, column, remaining.shape[1], remaining.shape[2], tile)
    x = float(column) + 0.5
    y = float(row) + 0.5
    left = wp.float32(1.0)
    end = starts[at + 1]
    through = wp.int32(0)
    k = starts[at]
    while k < end:
        i = order[k]
        dx = x - splats[view, i, 0]
        dy = y - splats[view, i, 1]
        power = (
            0.5 * (splats[view, i, 2] * dx * dx + splats[view, i, 4] * dy * dy) + splats[view, i, 3] * dx * dy
        )
        k += 1
        if power < _FAINT:
            alpha = wp.min(splats[view, i, 5] * wp.exp(-power), _MOST)
            if alpha >= _LEAST:
                rest = left * (1.0 - alpha)
                if rest < _CLOSED:
                    k = end
                else:
                    share = left * alpha
                    for channel in range(channels):
                        result[view, row, column, channel] += share * splats[view, i, 6 + channel]
                    left = rest
                    through = k
    remaining[view, row, column] = left
    last[view, row, column] = through


@wp.kernel
def composite_backward_kernel(
    splats: Splats,
    starts: Numbers,
    order: Numbers,
    tile: int,
    remaining: Pixels,
    last: Places,
    grad: Features,
    grad_remaining: Pixels,
    grad_splats: Splats,
):
    view, row, column = wp.tid()
    k = last[view, row, column]
    if k == 0:
        return
    channels = splats.shape[2] - 6
    at = tile_of(view, row, column, remaining.shape[1], remaining.shape[2], tile)
    x = float(column) + 0.5
    y = float(row) + 0.5
    left = remaining[view, row, column]
    # What is lost of the light from behind, and of the background's, when a splat takes more: times its 1 - alpha.
    behind = left * grad_remaining[view, row, column]
    first = starts[at]
    while k > first:
        k -= 1
        i = order[k]
        dx = x - splats[view, i, 0]
        dy = y - splats[view, i, 1]
        a = splats[view, i, 2]
        b = splats[view, i, 3]
        c = splats[view, i, 4]
        power = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        if power < _FAINT:
            fall = wp.exp(-power)
            alpha = splats[view, i, 5] * fall
            clamped = alpha > _MOST
            alpha = wp.min(alpha, _MOST)
            if alpha >= _LEAST:
                left = left / (1.0 - alpha)
                share = left * alpha
                pull = wp.float32(0.0)
                for channel in range(channels):
                    g = grad[view, row, column, channel]
                    pull += g * splats[view, i, 6 + channel]
                    wp.atomic_add(grad_splats, view, i, 6 + channel, share * g)
                if not clamped:
                    g_alpha = left * pull - behind / (1.0 - alpha)
                    g_power = -alpha * g_alpha
                    wp.atomic_add(grad_splats, view, i, 0, -g_power * (a * dx + b * dy))
                    wp.atomic_add(grad_splats, view, i, 1, -g_power * (b * dx + c * dy))
                    wp.atomic_add(grad_splats, view, i, 2, g_power * 0.5 * dx * dx)
                    wp.atomic_add(grad_splats, view, i, 3, g_power * dx * dy)
                    wp.atomic_add(grad_splats, view, i, 4, g_power * 0.5 * dy * dy)
                    wp.atomic_add(grad_splats, view, i, 5, g_alpha * fall)
                behind += share * pull
