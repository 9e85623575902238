"""The rasteriser in plain torch: specification and test oracle of `rasterize`, and a slow backend that runs anywhere.

Same functions, same conventions (see there). Gradients come from autograd. Memory grows with faces x pixels in
`rasterize` (in chunks) and with edges x rows in `antialias`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gen3d.render.raster_types import (
    DEPTH_STEPS,
    EMPTY_KEY,
    MAX_PIXELS,
    MIN_W,
    SUBPIXELS,
    Raster,
    check_attributes,
    check_image,
    check_rasterize_inputs,
    depth_step,
)

__all__ = ["Raster", "antialias", "interpolate", "rasterize", "sample_texture"]

_SHIFT = 1 << 32


def _screen(clip: Tensor, height: int, width: int) -> Tensor:
    """[V, N, 4] clip -> [V, N, 3]: column and row in pixels, NDC depth."""
    ndc = clip[..., :3] / clip[..., 3:]
    return torch.stack(
        [(ndc[..., 0] * 0.5 + 0.5) * width, (0.5 - ndc[..., 1] * 0.5) * height, ndc[..., 2]], dim=-1
    )


def _depth_keys(clip: Tensor, faces: Tensor, height: int, width: int, chunk: int = 64) -> Tensor:
    """[V, H, W] nearest quantised depth * 2^32 + face."""
    limit = MAX_PIXELS * SUBPIXELS
    screen = _screen(clip, height, width)
    snapped = (screen[..., :2] * SUBPIXELS + 0.5).floor().clamp(-limit, limit).long()
    row = torch.arange(height, device=clip.device)[:, None] * SUBPIXELS + SUBPIXELS // 2
    column = torch.arange(width, device=clip.device)[None, :] * SUBPIXELS + SUBPIXELS // 2
    keys = torch.full((clip.shape[0], height, width), EMPTY_KEY, dtype=torch.int64, device=clip.device)
    for start in range(0, faces.shape[0], chunk):
        part = faces[start : start + chunk]
        x, y = snapped[:, part, 0], snapped[:, part, 1]  # [V, F, 3]
        area = (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0]) - (y[..., 1] - y[..., 0]) * (
            x[..., 2] - x[..., 0]
        )
        inside = ((area != 0) & (clip[:, part, 3] >= MIN_W).all(-1))[..., None, None]
        z = torch.zeros((), device=clip.device)
        for corner in range(3):
            a, b = (corner + 1) % 3, (corner + 2) % 3
            along_x = (x[..., b] - x[..., a])[..., None, None]
            along_y = (y[..., b] - y[..., a])[..., None, None]
            weight = along_x * (row - y[..., a, None, None]) - along_y * (column - x[..., a, None, None])
            weight = weight * area.sign()[..., None, None]
            inside = inside & (weight >= 0)
            z = z + weight.float() * screen[:, part[:, corner], 2, None, None]
        step = depth_step(z * (1.0 / area.abs().clamp_min(1).float())[..., None, None])
        inside = inside & (step >= 0) & (step <= DEPTH_STEPS)
        face = torch.arange(start, start + len(part), device=clip.device)[:, None, None]
        keys = torch.minimum(keys, torch.where(inside, step * _SHIFT + face, EMPTY_KEY).amin(dim=1))
    return keys


def rasterize(vertices_clip: Tensor, faces: Tensor, height: int, width: int) -> Raster:
    """The nearest face of every pixel centre. vertices_clip: [V, N, 4]; faces: [M, 3] int64."""
    check_rasterize_inputs(vertices_clip, faces, height, width)
    with torch.no_grad():
        keys = _depth_keys(vertices_clip.detach(), faces, height, width)
    return raster_of(keys, vertices_clip, faces)


def raster_of(keys: Tensor, vertices_clip: Tensor, faces: Tensor) -> Raster:
    """The raster of pixels whose faces are found. keys: [V, H, W] int64, depth step * 2^32 + face or EMPTY_KEY."""
    device, (_, height, width) = keys.device, keys.shape
    hit = keys != EMPTY_KEY
    face_id = torch.where(hit, keys & (_SHIFT - 1), -1)
    corners = faces[face_id.clamp_min(0)] if len(faces) else torch.zeros(*keys.shape, 3, dtype=torch.int64)
    view = torch.arange(keys.shape[0], device=device)[:, None, None, None]
    points = vertices_clip[view, corners]  # [V, H, W, 3, 4]
    x = (torch.arange(width, device=device) + 0.5) / width * 2.0 - 1.0
    y = 1.0 - (torch.arange(height, device=device) + 0.5) / height * 2.0
    p = points[..., 0] - x[None, None, :, None] * points[..., 3]
    q = points[..., 1] - y[None, :, None, None] * points[..., 3]
    weights = torch.stack(
        [
            p[..., (i + 1) % 3] * q[..., (i + 2) % 3] - q[..., (i + 1) % 3] * p[..., (i + 2) % 3]
            for i in range(3)
        ],
        -1,
    )
    total = weights.sum(-1, keepdim=True)
    proper = hit[..., None] & (total.abs() >= 1e-30)
    weights = torch.where(proper, weights / torch.where(proper, total, 1.0), 1.0 / 3.0)
    # Snapping can put a pixel a hair outside; its value is clamped, its gradient is not.
    clamped = weights.detach().clamp_min(0.0)
    clamped = clamped / clamped.sum(-1, keepdim=True)
    barycentric = torch.where(hit[..., None], weights + (clamped - weights.detach()), 0.0)
    depth = (barycentric * points[..., 3]).sum(-1).detach()
    return Raster(face_id.int(), barycentric, depth, faces, keys)


def interpolate(attributes: Tensor, raster: Raster) -> Tensor:
    """Vertex attributes [N, C] or [V, N, C] at every pixel: [V, H, W, C], 0 where nothing is hit."""
    batched = check_attributes(attributes, raster)
    views = raster.face_id.shape[0]
    corners = raster.faces[raster.face_id.clamp_min(0).long()]
    view = torch.arange(views, device=corners.device)[:, None, None, None]
    found = batched.expand(views, -1, -1)[view, corners]
    return (raster.barycentric[..., None] * found).sum(-2)


def sample_texture(texture: Tensor, uv: Tensor) -> Tensor:
    """Bilinear look-up in a texture [Ht, Wt, C] at uv [V, H, W, 2] (origin top left, clamped): [V, H, W, C]."""
    height, width, _ = texture.shape
    x = (uv[..., 0] * width - 0.5).clamp(0.0, width - 1.0)
    y = (uv[..., 1] * height - 0.5).clamp(0.0, height - 1.0)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    fx, fy = (x - left)[..., None], (y - top)[..., None]
    upper = texture[top, left] * (1.0 - fx) + texture[top, right] * fx
    lower = texture[bottom, left] * (1.0 - fx) + texture[bottom, right] * fx
    return upper * (1.0 - fy) + lower * fy


def _side(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (
        c[..., 0] - a[..., 0]
    )


def _border_edges(clip: Tensor, screen: Tensor, edges: Tensor, keys: Tensor, axis: int) -> Tensor:
    """[V, H, W] int64: the edge that bounds the inner of a pixel and its right (axis 0) or lower (axis 1) neighbour.

    That is the outermost silhouette edge between them in front of the outer one's surface. -1 where there is none.
    """
    views, height, width = keys.shape
    a, b, c, d = (screen[:, edges[:, i].clamp_min(0)] for i in range(4))
    facing = _side(a, b, c)
    border = edges[:, 3] < 0
    silhouette = (facing != 0.0) & (border | (facing * _side(a, b, d) > 0.0))
    behind = clip[:, edges.clamp_min(0), 3] < MIN_W
    silhouette &= ~(behind[..., :3].any(-1) | (behind[..., 3] & ~border))
    along, lines, cells = (1, height, width) if axis == 0 else (0, width, height)
    inner_first = ((facing < 0.0) if axis == 0 else (facing > 0.0)) != (b[..., along] > a[..., along])
    line = torch.arange(lines, device=clip.device)
    low = (torch.minimum(a[..., along], b[..., along]) - 0.5).ceil()[..., None]
    high = (torch.maximum(a[..., along], b[..., along]) - 0.5).ceil()[..., None]
    view, edge, index = (silhouette[..., None] & (line >= low) & (line < high)).nonzero(as_tuple=True)
    a, b = a[view, edge], b[view, edge]
    t = (index + 0.5 - a[:, along]) / (b[:, along] - a[:, along])
    position = a[:, axis] + t * (b[:, axis] - a[:, axis])
    cell = (position - 0.5).floor().long()
    fits = (cell >= 0) & (cell + 1 < cells)
    bounded = cell.clamp(0, max(cells - 2, 0))
    row, column = (index, bounded) if axis == 0 else (bounded, index)
    first = keys[view, row, column]
    second = keys[view, (row + axis).clamp_max(height - 1), (column + 1 - axis).clamp_max(width - 1)]
    first_is_inner = inner_first[view, edge]
    inner, outer = torch.where(first_is_inner, first, second), torch.where(first_is_inner, second, first)
    step = depth_step(a[:, 2] + t * (b[:, 2] - a[:, 2]))
    fits = fits & (inner != EMPTY_KEY) & (step >= 0) & (outer // _SHIFT > step)
    distance = torch.where(first_is_inner, 1.5 - (position - cell), position - cell - 0.5).clamp(0.0, 1.0)
    found = torch.full((views * height * width,), EMPTY_KEY, dtype=torch.int64, device=clip.device)
    flat = ((view * height + row) * width + column)[fits]
    offers = (distance * DEPTH_STEPS).long() * _SHIFT + edge
    found = found.scatter_reduce(0, flat, offers[fits], reduce="amin").reshape(views, height, width)
    return torch.where(found == EMPTY_KEY, -1, found & (_SHIFT - 1))


def antialias(image: Tensor, raster: Raster, vertices_clip: Tensor, edges: Tensor) -> Tensor:
    """Blend neighbouring pixels across silhouettes by where the edge passes between their centres.

    image: [V, H, W, C]; vertices_clip: [V, N, 4], those of the raster; edges: [E, 4] from `gen3d.topology.mesh_edges`.
    """
    check_image(image, raster)
    _, height, width = raster.face_id.shape
    screen = _screen(vertices_clip, height, width)
    result = image
    for axis in (0, 1):
        with torch.no_grad():
            found = _border_edges(vertices_clip.detach(), screen.detach(), edges, raster.depth_key, axis)
            ends = screen.detach()[:, edges[:, :2]]
            extent = (ends[:, :, 1] - ends[:, :, 0]).abs()
            # Steep edges act along rows, shallow ones along columns.
            acts = (extent[..., 1] >= extent[..., 0]) == (axis == 0)
            views = torch.arange(len(found), device=found.device)[:, None, None]
            acts = (
                acts[views, found.clamp_min(0)] if len(edges) else torch.zeros_like(found, dtype=torch.bool)
            )
        view, row, column = ((found >= 0) & acts).nonzero(as_tuple=True)
        edge = edges[found[view, row, column]]
        a, b, c = (screen[view, edge[:, i]] for i in range(3))
        along = 1 - axis
        line, centre = (row + 0.5, column + 0.5) if axis == 0 else (column + 0.5, row + 0.5)
        facing = _side(a, b, c)
        inner_first = ((facing < 0.0) if axis == 0 else (facing > 0.0)) != (b[:, along] > a[:, along])
        t = (line - a[:, along]) / (b[:, along] - a[:, along])
        # How far the crossing is past the middle between the centres, towards the second pixel.
        past = a[:, axis] + t * (b[:, axis] - a[:, axis]) - centre - 0.5
        other_row, other_column = row + axis, column + 1 - axis
        change = past[:, None] * (image[view, row, column] - image[view, other_row, other_column])
        inner_spreads = (past > 0.0) == inner_first
        to_second = inner_spreads == inner_first
        target = torch.where(to_second, other_row, row), torch.where(to_second, other_column, column)
        result = result.index_put((view, *target), change, accumulate=True)
    return result
