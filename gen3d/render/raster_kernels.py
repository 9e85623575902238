"""Warp kernels of the mesh rasteriser: one source for CPU and CUDA.

Legend: clip [V, N] homogeneous clip positions (OpenGL: y up, z in [-w, w]); faces [M, 3]; keys [V, H, W] quantised
depth * 2^32 + face. Rows run down. The adjoints are written by hand: it keeps the module quick to compile.
"""

# Kernel annotations are array specifications for Warp, and kernel code is not Python: a type checker knows neither.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import warp as wp

from gen3d.render.raster_types import DEPTH_STEPS, EMPTY_KEY, MAX_PIXELS, MIN_W, SUBPIXELS

# Warp greets and reports compilations at its info level; libraries here stay silent.
wp.config.log_level = wp.LOG_WARNING
wp.set_module_options({"enable_backward": False, "fast_math": False})

_EMPTY = wp.constant(wp.int64(EMPTY_KEY))
_SHIFT = wp.constant(wp.int64(1 << 32))
_STEPS = wp.constant(float(DEPTH_STEPS))
_MAX_DEPTH = wp.constant(wp.int64(DEPTH_STEPS))
_SUB = wp.constant(float(SUBPIXELS))
_STEP = wp.constant(wp.int64(SUBPIXELS))
_HALF = wp.constant(wp.int64(SUBPIXELS // 2))
_LIMIT = wp.constant(float(MAX_PIXELS * SUBPIXELS))
_MIN_W = wp.constant(float(MIN_W))


@wp.func
def screen(p: wp.vec4, height: int, width: int) -> wp.vec3:
    """Clip position -> (column, row) in pixels and NDC depth."""
    return wp.vec3(
        (p[0] / p[3] * 0.5 + 0.5) * float(width), (0.5 - p[1] / p[3] * 0.5) * float(height), p[2] / p[3]
    )


@wp.func
def snap(value: float) -> wp.int64:
    return wp.int64(wp.clamp(wp.floor(value * _SUB + 0.5), -_LIMIT, _LIMIT))


@wp.func
def depth_step(z: float) -> wp.int64:
    return wp.int64(wp.clamp(wp.floor((z * 0.5 + 0.5) * _STEPS), -1.0, 2.0 * _STEPS))


@wp.kernel
def draw_kernel(
    clip: wp.array(dtype=wp.vec4, ndim=2),
    faces: wp.array(dtype=wp.int32, ndim=2),
    strips: int,
    keys: wp.array(dtype=wp.int64, ndim=3),
):
    # A thread scans every strips-th row of its face's bounding box: a GPU shares out large faces this way.
    view, face, strip = wp.tid()
    height = keys.shape[1]
    width = keys.shape[2]
    p0 = clip[view, faces[face, 0]]
    p1 = clip[view, faces[face, 1]]
    p2 = clip[view, faces[face, 2]]
    if wp.min(p0[3], wp.min(p1[3], p2[3])) < _MIN_W:
        return
    s0 = screen(p0, height, width)
    s1 = screen(p1, height, width)
    s2 = screen(p2, height, width)
    x0 = snap(s0[0])
    y0 = snap(s0[1])
    x1 = snap(s1[0])
    y1 = snap(s1[1])
    x2 = snap(s2[0])
    y2 = snap(s2[1])
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    if area == wp.int64(0):
        return
    sign = wp.int64(1)
    if area < wp.int64(0):
        sign = wp.int64(-1)
    # First and last pixel centre inside the bounding box, within the picture.
    left = wp.max(int((wp.min(x0, wp.min(x1, x2)) + _HALF - wp.int64(1)) >> wp.int64(8)), 0)
    right = wp.min(int((wp.max(x0, wp.max(x1, x2)) - _HALF) >> wp.int64(8)), width - 1)
    top = wp.max(int((wp.min(y0, wp.min(y1, y2)) + _HALF - wp.int64(1)) >> wp.int64(8)), 0)
    bottom = wp.min(int((wp.max(y0, wp.max(y1, y2)) - _HALF) >> wp.int64(8)), height - 1)
    if left > right:
        return
    inverse = 1.0 / float(area * sign)
    px = wp.int64(left) * _STEP + _HALF
    row = top + strip
    while row <= bottom:
        py = wp.int64(row) * _STEP + _HALF
        e0 = sign * ((x2 - x1) * (py - y1) - (y2 - y1) * (px - x1))
        e1 = sign * ((x0 - x2) * (py - y2) - (y0 - y2) * (px - x2))
        e2 = sign * ((x1 - x0) * (py - y0) - (y1 - y0) * (px - x0))
        d0 = sign * (y2 - y1) * _STEP
        d1 = sign * (y0 - y2) * _STEP
        d2 = sign * (y1 - y0) * _STEP
        for column in range(left, right + 1):
            if e0 >= wp.int64(0) and e1 >= wp.int64(0) and e2 >= wp.int64(0):
                z = (float(e0) * s0[2] + float(e1) * s1[2] + float(e2) * s2[2]) * inverse
                step = depth_step(z)
                if step >= wp.int64(0) and step <= _MAX_DEPTH:
                    wp.atomic_min(keys, view, row, column, step * _SHIFT + wp.int64(face))
            e0 -= d0
            e1 -= d1
            e2 -= d2
        row += strips


@wp.func
def areas(p0: wp.vec4, p1: wp.vec4, p2: wp.vec4, x: float, y: float) -> wp.vec3:
    """Unnormalised perspective-correct weights at the NDC point (x, y)."""
    x0 = p0[0] - x * p0[3]
    y0 = p0[1] - y * p0[3]
    x1 = p1[0] - x * p1[3]
    y1 = p1[1] - y * p1[3]
    x2 = p2[0] - x * p2[3]
    y2 = p2[1] - y * p2[3]
    return wp.vec3(x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1)


@wp.kernel
def resolve_kernel(
    clip: wp.array(dtype=wp.vec4, ndim=2),
    faces: wp.array(dtype=wp.int32, ndim=2),
    keys: wp.array(dtype=wp.int64, ndim=3),
    face_id: wp.array(dtype=wp.int32, ndim=3),
    barycentric: wp.array(dtype=wp.vec3, ndim=3),
    depth: wp.array(dtype=float, ndim=3),
):
    view, row, column = wp.tid()
    key = keys[view, row, column]
    if key == _EMPTY:
        face_id[view, row, column] = -1
        return
    face = int(key & (_SHIFT - wp.int64(1)))
    face_id[view, row, column] = face
    p0 = clip[view, faces[face, 0]]
    p1 = clip[view, faces[face, 1]]
    p2 = clip[view, faces[face, 2]]
    x = (float(column) + 0.5) / float(keys.shape[2]) * 2.0 - 1.0
    y = 1.0 - (float(row) + 0.5) / float(keys.shape[1]) * 2.0
    weights = areas(p0, p1, p2, x, y)
    total = weights[0] + weights[1] + weights[2]
    if wp.abs(total) < 1.0e-30:
        weights = wp.vec3(1.0, 1.0, 1.0)
        total = 3.0
    weights = weights / total
    # Coverage is decided on snapped corners: without the clamp a sliver could extrapolate its attributes.
    weights = wp.vec3(wp.max(weights[0], 0.0), wp.max(weights[1], 0.0), wp.max(weights[2], 0.0))
    weights = weights / (weights[0] + weights[1] + weights[2])
    barycentric[view, row, column] = weights
    depth[view, row, column] = weights[0] * p0[3] + weights[1] * p1[3] + weights[2] * p2[3]


@wp.func
def add_clip_gradient(
    grad_clip: wp.array(dtype=float, ndim=3), view: int, vertex: int, gx: float, gy: float, gw: float
):
    wp.atomic_add(grad_clip, view, vertex, 0, gx)
    wp.atomic_add(grad_clip, view, vertex, 1, gy)
    wp.atomic_add(grad_clip, view, vertex, 3, gw)


@wp.kernel
def resolve_backward_kernel(
    clip: wp.array(dtype=wp.vec4, ndim=2),
    faces: wp.array(dtype=wp.int32, ndim=2),
    face_id: wp.array(dtype=wp.int32, ndim=3),
    grad_barycentric: wp.array(dtype=wp.vec3, ndim=3),
    grad_clip: wp.array(dtype=float, ndim=3),
):
    view, row, column = wp.tid()
    face = face_id[view, row, column]
    if face < 0:
        return
    g = grad_barycentric[view, row, column]
    if g[0] == 0.0 and g[1] == 0.0 and g[2] == 0.0:
        return
    i0 = faces[face, 0]
    i1 = faces[face, 1]
    i2 = faces[face, 2]
    p0 = clip[view, i0]
    p1 = clip[view, i1]
    p2 = clip[view, i2]
    x = (float(column) + 0.5) / float(face_id.shape[2]) * 2.0 - 1.0
    y = 1.0 - (float(row) + 0.5) / float(face_id.shape[1]) * 2.0
    weights = areas(p0, p1, p2, x, y)
    total = weights[0] + weights[1] + weights[2]
    if wp.abs(total) < 1.0e-30:
        return
    mean = wp.dot(g, weights) / total
    a0 = (g[0] - mean) / total
    a1 = (g[1] - mean) / total
    a2 = (g[2] - mean) / total
    x0 = p0[0] - x * p0[3]
    y0 = p0[1] - y * p0[3]
    x1 = p1[0] - x * p1[3]
    y1 = p1[1] - y * p1[3]
    x2 = p2[0] - x * p2[3]
    y2 = p2[1] - y * p2[3]
    gx0 = a2 * y1 - a1 * y2
    gy0 = a1 * x2 - a2 * x1
    gx1 = a0 * y2 - a2 * y0
    gy1 = a2 * x0 - a0 * x2
    gx2 = a1 * y0 - a0 * y1
    gy2 = a0 * x1 - a1 * x0
    add_clip_gradient(grad_clip, view, i0, gx0, gy0, -x * gx0 - y * gy0)
    add_clip_gradient(grad_clip, view, i1, gx1, gy1, -x * gx1 - y * gy1)
    add_clip_gradient(grad_clip, view, i2, gx2, gy2, -x * gx2 - y * gy2)


@wp.kernel
def interpolate_kernel(
    attributes: wp.array(dtype=float, ndim=3),
    faces: wp.array(dtype=wp.int32, ndim=2),
    face_id: wp.array(dtype=wp.int32, ndim=3),
    barycentric: wp.array(dtype=wp.vec3, ndim=3),
    result: wp.array(dtype=float, ndim=4),
):
    view, row, column = wp.tid()
    face = face_id[view, row, column]
    if face < 0:
        return
    batch = wp.min(view, attributes.shape[0] - 1)
    weights = barycentric[view, row, column]
    i0 = faces[face, 0]
    i1 = faces[face, 1]
    i2 = faces[face, 2]
    for channel in range(attributes.shape[2]):
        result[view, row, column, channel] = (
            weights[0] * attributes[batch, i0, channel]
            + weights[1] * attributes[batch, i1, channel]
            + weights[2] * attributes[batch, i2, channel]
        )


@wp.kernel
def interpolate_backward_kernel(
    attributes: wp.array(dtype=float, ndim=3),
    faces: wp.array(dtype=wp.int32, ndim=2),
    face_id: wp.array(dtype=wp.int32, ndim=3),
    barycentric: wp.array(dtype=wp.vec3, ndim=3),
    grad: wp.array(dtype=float, ndim=4),
    grad_attributes: wp.array(dtype=float, ndim=3),
    grad_barycentric: wp.array(dtype=wp.vec3, ndim=3),
):
    view, row, column = wp.tid()
    face = face_id[view, row, column]
    if face < 0:
        return
    batch = wp.min(view, attributes.shape[0] - 1)
    weights = barycentric[view, row, column]
    i0 = faces[face, 0]
    i1 = faces[face, 1]
    i2 = faces[face, 2]
    total = wp.vec3(0.0, 0.0, 0.0)
    for channel in range(attributes.shape[2]):
        g = grad[view, row, column, channel]
        total += g * wp.vec3(
            attributes[batch, i0, channel], attributes[batch, i1, channel], attributes[batch, i2, channel]
        )
        wp.atomic_add(grad_attributes, batch, i0, channel, g * weights[0])
        wp.atomic_add(grad_attributes, batch, i1, channel, g * weights[1])
        wp.atomic_add(grad_attributes, batch, i2, channel, g * weights[2])
    grad_barycentric[view, row, column] = total
