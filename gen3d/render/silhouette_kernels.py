"""Warp kernels of silhouette antialiasing; `raster_kernels` has the legend.

A silhouette edge is one whose faces lie on the same side of it in the picture. It crosses the line between two pixel
centres at some fraction; the visible border there is the outermost crossing that lies in front of the outer pixel's
surface. The pixel on the inner side then takes part s - 1/2 of its colour over to the other, or the other way round.
Steep edges act along rows and shallow ones along columns, so each stretch of border counts once and the sum of a mask
is its area. The gradient of that motion reaches the edge's two vertices, however small the faces are.

pairs [V, 2, H, W]: for each pixel and its right (0) or lower (1) neighbour, distance of the crossing from the outer
centre * 2^62 + edge.
"""

# Kernel annotations are array specifications for Warp, and kernel code is not Python: a type checker knows neither.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import warp as wp

from gen3d.render.raster_kernels import (
    _EMPTY,
    _MIN_W,
    _SHIFT,
    _STEPS,
    Clip,
    Indices,
    Keys,
    Pairs,
    Pictures,
    Table,
    add_clip_gradient,
    depth_step,
    screen,
)

wp.set_module_options({"enable_backward": False, "fast_math": False})


@wp.func
def side(a: wp.vec3, b: wp.vec3, c: wp.vec3) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


@wp.func
def put_pair(
    keys: Keys,
    pairs: Pairs,
    view: int,
    axis: int,
    line: int,
    position: float,
    inner_first: bool,
    z: float,
    edge: int,
):
    """Offer an edge that crosses a row (axis 0) or column (axis 1) at this position in pixels."""
    cell = int(wp.floor(position - 0.5))
    row = line
    column = cell
    if axis == 1:
        row = cell
        column = line
    if row < 0 or column < 0 or row + axis >= keys.shape[1] or column + 1 - axis >= keys.shape[2]:
        return
    inner = keys[view, row, column]
    outer = keys[view, row + axis, column + 1 - axis]
    distance = 1.5 - (position - float(cell))
    if not inner_first:
        swap = inner
        inner = outer
        outer = swap
        distance = position - float(cell) - 0.5
    step = depth_step(z)
    if inner != _EMPTY and step >= wp.int64(0) and outer / _SHIFT > step:
        order = wp.int64(wp.clamp(distance, 0.0, 1.0) * _STEPS)
        wp.atomic_min(pairs, view, axis, row, column, order * _SHIFT + wp.int64(edge))


@wp.kernel
def find_pairs_kernel(clip: Clip, edges: Indices, keys: Keys, pairs: Pairs):
    view, edge = wp.tid()
    height = keys.shape[1]
    width = keys.shape[2]
    pa = clip[view, edges[edge, 0]]
    pb = clip[view, edges[edge, 1]]
    pc = clip[view, edges[edge, 2]]
    if wp.min(pa[3], wp.min(pb[3], pc[3])) < _MIN_W:
        return
    a = screen(pa, height, width)
    b = screen(pb, height, width)
    facing = side(a, b, screen(pc, height, width))
    if facing == 0.0:
        return
    if edges[edge, 3] >= 0:
        pd = clip[view, edges[edge, 3]]
        if pd[3] < _MIN_W:
            return
        if facing * side(a, b, screen(pd, height, width)) <= 0.0:
            return
    inner_first = (facing < 0.0) != (b[1] > a[1])
    start = wp.max(int(wp.ceil(wp.min(a[1], b[1]) - 0.5)), 0)
    stop = wp.min(int(wp.ceil(wp.max(a[1], b[1]) - 0.5)), height)
    for row in range(start, stop):
        t = (float(row) + 0.5 - a[1]) / (b[1] - a[1])
        put_pair(
            keys, pairs, view, 0, row, a[0] + t * (b[0] - a[0]), inner_first, a[2] + t * (b[2] - a[2]), edge
        )
    inner_first = (facing > 0.0) != (b[0] > a[0])
    start = wp.max(int(wp.ceil(wp.min(a[0], b[0]) - 0.5)), 0)
    stop = wp.min(int(wp.ceil(wp.max(a[0], b[0]) - 0.5)), width)
    for column in range(start, stop):
        t = (float(column) + 0.5 - a[0]) / (b[0] - a[0])
        put_pair(
            keys,
            pairs,
            view,
            1,
            column,
            a[1] + t * (b[1] - a[1]),
            inner_first,
            a[2] + t * (b[2] - a[2]),
            edge,
        )


@wp.func
def crossing(
    clip: Clip,
    edges: Indices,
    view: int,
    edge: int,
    axis: int,
    row: int,
    column: int,
    height: int,
    width: int,
) -> wp.vec4:
    """Shift (positive: the inner colour spreads), +1 if the first pixel is inner else -1 (0: not this axis' edge),
    position along the edge, slope."""
    a = screen(clip[view, edges[edge, 0]], height, width)
    b = screen(clip[view, edges[edge, 1]], height, width)
    c = screen(clip[view, edges[edge, 2]], height, width)
    facing = side(a, b, c)
    along = 1 - axis
    line = float(row) + 0.5
    centre = float(column) + 0.5
    inner_first = (facing < 0.0) != (b[1] > a[1])
    if axis == 1:
        line = float(column) + 0.5
        centre = float(row) + 0.5
        inner_first = (facing > 0.0) != (b[0] > a[0])
    t = (line - a[along]) / (b[along] - a[along])
    s = a[axis] + t * (b[axis] - a[axis]) - centre
    slope = (b[axis] - a[axis]) / (b[along] - a[along])
    if wp.abs(b[1] - a[1]) >= wp.abs(b[0] - a[0]):
        if axis == 1:
            return wp.vec4(0.0, 0.0, 0.0, 0.0)
    elif axis == 0:
        return wp.vec4(0.0, 0.0, 0.0, 0.0)
    if inner_first:
        return wp.vec4(s - 0.5, 1.0, t, slope)
    return wp.vec4(0.5 - s, -1.0, t, slope)


@wp.func
def blended(row: int, column: int, axis: int, cross: wp.vec4) -> wp.vec2i:
    """The pixel whose colour changes: the first if the inner colour leaves it, or enters it from the second."""
    if (cross[0] > 0.0) == (cross[1] < 0.0):
        return wp.vec2i(row, column)
    return wp.vec2i(row + axis, column + 1 - axis)


@wp.kernel
def blend_kernel(clip: Clip, edges: Indices, pairs: Pairs, image: Pictures, result: Pictures):
    view, axis, row, column = wp.tid()
    key = pairs[view, axis, row, column]
    if key == _EMPTY:
        return
    edge = int(key & (_SHIFT - wp.int64(1)))
    cross = crossing(clip, edges, view, edge, axis, row, column, image.shape[1], image.shape[2])
    if cross[1] == 0.0:
        return
    other_row = row + axis
    other_column = column + 1 - axis
    target = blended(row, column, axis, cross)
    for channel in range(image.shape[3]):
        change = (
            cross[0]
            * cross[1]
            * (image[view, row, column, channel] - image[view, other_row, other_column, channel])
        )
        wp.atomic_add(result, view, target[0], target[1], channel, change)


@wp.kernel
def blend_backward_kernel(
    clip: Clip,
    edges: Indices,
    pairs: Pairs,
    image: Pictures,
    grad: Pictures,
    grad_image: Pictures,
    grad_clip: Table,
):
    view, axis, row, column = wp.tid()
    key = pairs[view, axis, row, column]
    if key == _EMPTY:
        return
    height = image.shape[1]
    width = image.shape[2]
    edge = int(key & (_SHIFT - wp.int64(1)))
    cross = crossing(clip, edges, view, edge, axis, row, column, height, width)
    if cross[1] == 0.0:
        return
    other_row = row + axis
    other_column = column + 1 - axis
    shift = cross[0]
    target = blended(row, column, axis, cross)
    # d(target) / d(position of the crossing) = first - second, whichever of them is inner.
    g = float(0.0)  # noqa: UP018 (a plain literal would be a constant to Warp)
    for channel in range(image.shape[3]):
        push = grad[view, target[0], target[1], channel]
        g += push * (image[view, row, column, channel] - image[view, other_row, other_column, channel])
        wp.atomic_add(grad_image, view, row, column, channel, shift * cross[1] * push)
        wp.atomic_add(grad_image, view, other_row, other_column, channel, -shift * cross[1] * push)
    t = cross[2]
    # The crossing moves with the ends, by their weights; sliding along the other axis moves it by the slope.
    push_x = g
    push_y = -g * cross[3]
    if axis == 1:
        push_x = -g * cross[3]
        push_y = g
    for end in range(2):
        vertex = edges[edge, end]
        p = clip[view, vertex]
        weight = 1.0 - t
        if end == 1:
            weight = t
        gx = weight * push_x * 0.5 * float(width) / p[3]
        gy = -weight * push_y * 0.5 * float(height) / p[3]
        add_clip_gradient(grad_clip, view, vertex, gx, gy, -(gx * p[0] + gy * p[1]) / p[3])
