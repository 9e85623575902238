"""Warp kernels of the mesh rasteriser: one source for CPU and CUDA.

Legend: clip [V, N] homogeneous clip positions (OpenGL: y up, z in [-w, w]); faces [M, 3]; keys [V, H, W] quantised
depth * 2^32 + face. Rows run down. The adjoints are written by hand: it keeps the module quick to compile.
"""

# Kernel annotations are array specifications for Warp, and kernel code is not Python: a type checker knows neither.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import TypeAlias

import warp as wp

from gen3d.render.raster_types import DEPTH_STEPS, EMPTY_KEY, MAX_PIXELS, MIN_W, SUBPIXELS

# Warp greets and reports compilations at its info level; libraries here stay silent.
wp.config.log_level = wp.LOG_WARNING
wp.set_module_options({"enable_backward": False, "fast_math": False})

# What the arrays of all kernels hold.
Clip: TypeAlias = wp.array(dtype=wp.vec4, ndim=2)
Indices: TypeAlias = wp.array(dtype=wp.int32, ndim=2)
Keys: TypeAlias = wp.array(dtype=wp.int64, ndim=3)
Pairs: TypeAlias = wp.array(dtype=wp.int64, ndim=4)
FaceIds: TypeAlias = wp.array(dtype=wp.int32, ndim=3)
Weights: TypeAlias = wp.array(dtype=wp.vec3, ndim=3)
Table: TypeAlias = wp.array(dtype=float, ndim=3)
Pictures: TypeAlias = wp.array(dtype=float, ndim=4)

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
def corners(faces: Indices, face: int) -> wp.vec3i:
    """The vertices of a face."""
    return wp.vec3i(faces[face, 0], faces[face, 1], faces[face, 2])


@wp.func
def snap(value: float) -> wp.int64:
    return wp.int64(wp.clamp(wp.floor(value * _SUB + 0.5), -_LIMIT, _LIMIT))


@wp.func
def depth_step(z: float) -> wp.int64:
    return wp.int64(wp.clamp(wp.floor((z * 0.5 + 0.5) * _STEPS), -1.0, 2.0 * _STEPS))


@wp.kernel
def draw_kernel(clip: Clip, faces: Indices, strips: int, keys: Keys):
    # A thread scans every strips-th row of its face's bounding box: a GPU shares out large faces this way.
    view, face, strip = wp.tid()
    height = keys.shape[1]
    width = keys.shape[2]
    i = corners(faces, face)
    p0 = clip[view, i[0]]
    p1 = clip[view, i[1]]
    p2 = clip[view, i[2]]
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
def pixel_centre(row: int, column: int, height: int, width: int) -> wp.vec2:
    """The centre of a pixel in NDC."""
    return wp.vec2(
        (float(column) + 0.5) / float(width) * 2.0 - 1.0, 1.0 - (float(row) + 0.5) / float(height) * 2.0
    )


@wp.func
def seen_from(at: wp.vec2, p: wp.vec4) -> wp.vec2:
    """Where a corner lies from an NDC point, times the corner's w."""
    return wp.vec2(p[0] - at[0] * p[3], p[1] - at[1] * p[3])


@wp.func
def areas(q0: wp.vec2, q1: wp.vec2, q2: wp.vec2) -> wp.vec3:
    """Unnormalised perspective-correct weights of a face's corners, `seen_from` the point."""
    return wp.vec3(
        q1[0] * q2[1] - q1[1] * q2[0], q2[0] * q0[1] - q2[1] * q0[0], q0[0] * q1[1] - q0[1] * q1[0]
    )


@wp.kernel
def resolve_kernel(
    clip: Clip, faces: Indices, keys: Keys, face_id: FaceIds, barycentric: Weights, depth: Table
):
    view, row, column = wp.tid()
    key = keys[view, row, column]
    if key == _EMPTY:
        face_id[view, row, column] = -1
        return
    face = int(key & (_SHIFT - wp.int64(1)))
    face_id[view, row, column] = face
    i = corners(faces, face)
    p0 = clip[view, i[0]]
    p1 = clip[view, i[1]]
    p2 = clip[view, i[2]]
    at = pixel_centre(row, column, keys.shape[1], keys.shape[2])
    weights = areas(seen_from(at, p0), seen_from(at, p1), seen_from(at, p2))
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
def add_clip_gradient(grad_clip: Table, view: int, vertex: int, gx: float, gy: float, gw: float):
    wp.atomic_add(grad_clip, view, vertex, 0, gx)
    wp.atomic_add(grad_clip, view, vertex, 1, gy)
    wp.atomic_add(grad_clip, view, vertex, 3, gw)


@wp.kernel
def resolve_backward_kernel(clip: Clip, faces: Indices, face_id: FaceIds, grad: Weights, grad_clip: Table):
    view, row, column = wp.tid()
    face = face_id[view, row, column]
    if face < 0:
        return
    g = grad[view, row, column]
    if g[0] == 0.0 and g[1] == 0.0 and g[2] == 0.0:
        return
    i = corners(faces, face)
    at = pixel_centre(row, column, face_id.shape[1], face_id.shape[2])
    q0 = seen_from(at, clip[view, i[0]])
    q1 = seen_from(at, clip[view, i[1]])
    q2 = seen_from(at, clip[view, i[2]])
    weights = areas(q0, q1, q2)
    total = weights[0] + weights[1] + weights[2]
    if wp.abs(total) < 1.0e-30:
        return
    mean = wp.dot(g, weights) / total
    a0 = (g[0] - mean) / total
    a1 = (g[1] - mean) / total
    a2 = (g[2] - mean) / total
    gx0 = a2 * q1[1] - a1 * q2[1]
    gy0 = a1 * q2[0] - a2 * q1[0]
    gx1 = a0 * q2[1] - a2 * q0[1]
    gy1 = a2 * q0[0] - a0 * q2[0]
    gx2 = a1 * q0[1] - a0 * q1[1]
    gy2 = a0 * q1[0] - a1 * q0[0]
    add_clip_gradient(grad_clip, view, i[0], gx0, gy0, -at[0] * gx0 - at[1] * gy0)
    add_clip_gradient(grad_clip, view, i[1], gx1, gy1, -at[0] * gx1 - at[1] * gy1)
    add_clip_gradient(grad_clip, view, i[2], gx2, gy2, -at[0] * gx2 - at[1] * gy2)


@wp.kernel
def interpolate_kernel(
    attributes: Table, faces: Indices, face_id: FaceIds, barycentric: Weights, result: Pictures
):
    view, row, column = wp.tid()
    face = face_id[view, row, column]
    if face < 0:
        return
    batch = wp.min(view, attributes.shape[0] - 1)
    weights = barycentric[view, row, column]
    i = corners(faces, face)
    for channel in range(attributes.shape[2]):
        result[view, row, column, channel] = (
            weights[0] * attributes[batch, i[0], channel]
            + weights[1] * attributes[batch, i[1], channel]
            + weights[2] * attributes[batch, i[2], channel]
        )


@wp.kernel
def interpolate_backward_kernel(
    attributes: Table,
    faces: Indices,
    face_id: FaceIds,
    barycentric: Weights,
    grad: Pictures,
    grad_attributes: Table,
    grad_barycentric: Weights,
):
    view, row, column = wp.tid()
    face = face_id[view, row, column]
    if face < 0:
        return
    total = wp.vec3(0.0, 0.0, 0.0)
    batch = wp.min(view, attributes.shape[0] - 1)
    weights = barycentric[view, row, column]
    i = corners(faces, face)
    for channel in range(attributes.shape[2]):
        g = grad[view, row, column, channel]
        total += g * wp.vec3(
            attributes[batch, i[0], channel],
            attributes[batch, i[1], channel],
            attributes[batch, i[2], channel],
        )
        wp.atomic_add(grad_attributes, batch, i[0], channel, g * weights[0])
        wp.atomic_add(grad_attributes, batch, i[1], channel, g * weights[1])
        wp.atomic_add(grad_attributes, batch, i[2], channel, g * weights[2])
    grad_barycentric[view, row, column] = total
