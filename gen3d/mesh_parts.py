"""The parts of a file's mesh: checked, with textures that do not repeat, and joined into one mesh.

A `Mesh` has one texture, which ends at its border; files have several, which repeat. Each part here is a mesh.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gen3d.asset import Material, Mesh
from gen3d.color import linear_to_srgb, srgb_to_linear
from gen3d.files import MAX_TEXTURE
from gen3d.texture import texture_to_vertex_colors

MAX_FACES = 4_000_000
"""The most triangles that are read from one file."""
# Longest side of the box around a mesh, in the file's units: squares and their products are float32's further on.
_SIDES = (1e-6, 1e9)
# Float32 leaves a thousand times this share of it between neighbouring numbers.
_FARTHEST = 1e4
# How far beyond its border a UV may lie and be meant to lie on it.
_ROUNDING = 1e-5
# Texels of its own border around each texture on a common one, and the longest side of that.
_GUTTER = 4
_MAX_COMMON = 4096


def check_size(num_vertices: int, num_faces: int) -> None:
    """Refuse what is too large to work with, before it is made."""
    if num_faces > MAX_FACES or num_vertices > 3 * MAX_FACES:
        raise ValueError(
            f"it has {num_vertices:,} vertices and {num_faces:,} triangles, up to {3 * MAX_FACES:,} and {MAX_FACES:,} "
            "are read; simplify it"
        )


def make_part(
    vertices: np.ndarray,
    faces: np.ndarray,
    *,
    normals: np.ndarray | None = None,
    uvs: np.ndarray | None = None,
    colors: np.ndarray | Tensor | None = None,
    material: Material,
) -> Mesh:
    """A mesh of what a file holds: [N, 3], [M, 3], and at the vertices [N, 3], [N, 2], [N, 3] or more (sRGB in [0, 1]).

    Normals of the wrong number, or that are not finite, are left out; UVs without a texture likewise.

    Raises:
        ValueError: coordinates, faces, UVs or colours are not what they must be.
    """
    check_size(len(vertices), len(faces))
    vertices = np.asarray(vertices, dtype=np.float64)
    broken = int((~np.isfinite(vertices)).any(axis=1).sum())
    if broken:
        raise ValueError(f"{broken:,} of its {len(vertices):,} vertices are NaN or infinite")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ValueError(
            f"its faces name vertices {faces.min()} to {faces.max()} of {len(vertices):,} (from 0)"
        )
    if len(vertices) and np.abs(vertices).max() > _SIDES[1]:
        raise ValueError(f"a coordinate is {np.abs(vertices).max():g}, up to {_SIDES[1]:g} is read")
    if normals is not None and (normals.shape != vertices.shape or not np.isfinite(normals).all()):
        normals = None
    if material.base_color_texture is None:
        uvs = None
    elif uvs is None or len(uvs) != len(vertices):
        raise ValueError("it has a texture and no texture coordinates for it")
    if colors is not None:
        colors = torch.as_tensor(colors[:, :3], dtype=torch.float32)
        if not bool(((colors >= 0.0) & (colors <= 1.0)).all()):
            raise ValueError(
                f"its vertex colours reach from {colors.min():g} to {colors.max():g}; they must lie in 0..1"
            )

    def tensor(values: np.ndarray | None) -> Tensor | None:
        return None if values is None else torch.from_numpy(np.array(values, dtype=np.float32))

    return Mesh(
        torch.from_numpy(vertices.astype(np.float32)),
        torch.from_numpy(np.array(faces, dtype=np.int64)).reshape(-1, 3),
        tensor(normals),
        tensor(uvs),
        colors,
        material,
    )


def without_degenerate_faces(mesh: Mesh) -> Mesh:
    """The mesh without faces of fewer than three different points, and without vertices that no face has.

    A face whose three points lie on a line stays: a closed surface may need it.
    """
    corners = mesh.vertices[mesh.faces]
    same = (corners == corners.roll(1, dims=1)).all(dim=2).any(dim=1)
    faces = mesh.faces[~same]
    used = torch.zeros(mesh.num_vertices, dtype=torch.bool)
    used[faces] = True
    if bool(used.all()):
        return mesh.replace(faces=faces)
    return mesh.replace(
        vertices=mesh.vertices[used],
        faces=(used.cumsum(0) - 1)[faces],
        normals=None if mesh.normals is None else mesh.normals[used],
        uvs=None if mesh.uvs is None else mesh.uvs[used],
        vertex_colors=None if mesh.vertex_colors is None else mesh.vertex_colors[used],
    )


def check_extent(mesh: Mesh) -> None:
    """Refuse a mesh without triangles, without area, and one that float32 cannot hold where it lies."""
    if mesh.num_faces == 0:
        raise ValueError("it holds no triangle with three different corners")
    corners = mesh.vertices.double()[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1).sum()
    side = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max())
    reach = float(mesh.vertices.abs().max())
    if not _SIDES[0] <= side <= _SIDES[1]:
        raise ValueError(
            f"its longest side is {side:g}, from {_SIDES[0]:g} to {_SIDES[1]:g} can be worked with"
        )
    if float(area) == 0.0:
        raise ValueError("all its triangles lie on a line")
    if reach > _FARTHEST * side:
        raise ValueError(f"its longest side is {side:g} and it lies {reach:g} from the origin; move it there")


def unrolled(mesh: Mesh) -> Mesh:
    """The mesh of a texture that repeats outside [0, 1] as one whose UVs lie within, and which looks the same.

    Faces are moved by whole textures; a texture that goes several times over one face becomes a larger one.
    """
    texture = mesh.material.base_color_texture
    if texture is None or mesh.uvs is None:
        return mesh
    corners = mesh.uvs.double()[mesh.faces]
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    inside = (low >= -_ROUNDING) & (high <= 1.0 + _ROUNDING)
    if bool(inside.all()):
        return mesh
    moved = torch.where(inside, 0.0, low.floor())
    repeats = ((high - moved).amax(dim=0) - _ROUNDING).ceil().clamp_min(1.0)
    height, width = texture.shape[:2]
    if float(repeats[0]) * width > MAX_TEXTURE or float(repeats[1]) * height > MAX_TEXTURE:
        raise ValueError(
            f"its texture of {width} x {height} goes {repeats[0]:g} x {repeats[1]:g} times over a face, which together "
            f"is over {MAX_TEXTURE} a side; bake it"
        )
    # A vertex whose faces are moved differently becomes several.
    keys = torch.cat([mesh.faces.reshape(-1, 1), moved.long().repeat_interleave(3, dim=0)], dim=1)
    rows, faces = torch.unique(keys, dim=0, return_inverse=True)
    index = rows[:, 0]
    uvs = (mesh.uvs.double()[index] - rows[:, 1:]) / repeats
    texture = texture.repeat(int(repeats[1]), int(repeats[0]), 1)
    return Mesh(
        mesh.vertices[index],
        faces.reshape(-1, 3),
        None if mesh.normals is None else mesh.normals[index],
        uvs.float(),
        None if mesh.vertex_colors is None else mesh.vertex_colors[index],
        dataclasses.replace(mesh.material, base_color_texture=texture),
    )


def join(parts: Sequence[Mesh]) -> Mesh:
    """All parts as one mesh of one material.

    Several textures, and the colours of parts without one, are put side by side on a common texture. Colours at the
    vertices cannot be: where a part has them, every part gets them, and a texture is looked up there. Normals stay if
    every part has them; metallic and roughness if all are the same.
    """
    textured = any(part.material.base_color_texture is not None for part in parts)
    if any(part.vertex_colors is not None for part in parts):
        parts = [_painted(part) for part in parts]
    elif textured:
        parts = _on_common_texture(parts)
    elif len({part.material.base_color for part in parts}) > 1:
        parts = [_painted(part) for part in parts]
    first = parts[0].material
    if any(
        (part.material.metallic, part.material.roughness) != (first.metallic, first.roughness)
        for part in parts
    ):
        first = Material(first.base_color_texture, first.base_color)
    offsets = np.cumsum([0, *(part.num_vertices for part in parts)])

    def joined(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else torch.cat(values)

    return Mesh(
        torch.cat([part.vertices for part in parts]),
        torch.cat([part.faces + int(offset) for part, offset in zip(parts, offsets, strict=False)]),
        joined("normals"),
        joined("uvs"),
        joined("vertex_colors"),
        first,
    )


def _painted(part: Mesh) -> Mesh:
    """The part with all its colour at its vertices; colours that are there already tint a texture, in linear light."""
    tint = part.vertex_colors
    if part.material.base_color_texture is None:
        if tint is None:
            tint = torch.tensor(part.material.base_color).expand(part.num_vertices, 3).clone()
        return part.replace(vertex_colors=tint)
    painted = texture_to_vertex_colors(part)
    if tint is None:
        return painted
    assert painted.vertex_colors is not None
    light = srgb_to_linear(painted.vertex_colors) * srgb_to_linear(tint)
    return painted.replace(vertex_colors=linear_to_srgb(light).clamp(0.0, 1.0))


def _on_common_texture(parts: Sequence[Mesh]) -> list[Mesh]:
    """The parts with one texture for all, and UVs on it; a part without a texture gets a place of its colour."""
    places: dict[object, int] = {}
    pictures: list[Tensor] = []
    place_of: list[int] = []
    for part in parts:
        texture, color = part.material.base_color_texture, part.material.base_color
        key = color if texture is None else id(texture)
        if key not in places:
            places[key] = len(pictures)
            pictures.append(torch.tensor(color).reshape(1, 1, 3) if texture is None else texture)
        place_of.append(places[key])
    if len(pictures) == 1:
        return list(parts)
    common, boxes = _side_by_side(pictures)
    height, width = common.shape[:2]
    moved = []
    for part, place in zip(parts, place_of, strict=True):
        left, top, columns, rows = boxes[place]
        uvs = torch.full((part.num_vertices, 2), 0.5) if part.uvs is None else part.uvs.clamp(0.0, 1.0)
        uvs = (uvs * torch.tensor([columns, rows]) + torch.tensor([left, top])) / torch.tensor(
            [width, height]
        )
        material = dataclasses.replace(part.material, base_color_texture=common)
        moved.append(part.replace(uvs=uvs, material=material))
    return moved


def _side_by_side(pictures: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int, int, int]]]:
    """One picture [H, W, 3] of all, each within a border of its own texels, made smaller where they are too large
    together; and of each its first column and row, and its columns and rows."""
    shrink = 1.0
    while True:
        sizes = [tuple(max(1, round(side * shrink)) for side in picture.shape[:2]) for picture in pictures]
        boxes, height, width = _shelves(sizes)
        if max(height, width) <= _MAX_COMMON:
            break
        shrink *= min(0.95, _MAX_COMMON / max(height, width))
    common = torch.zeros(height, width, 3)
    for picture, (left, top, columns, rows) in zip(pictures, boxes, strict=True):
        image = picture.permute(2, 0, 1)[None]
        if image.shape[2:] != (rows, columns):
            image = torch.nn.functional.interpolate(image, (rows, columns), mode="area")
        image = torch.nn.functional.pad(image, (_GUTTER,) * 4, mode="replicate")[0].permute(1, 2, 0)
        common[top - _GUTTER : top + rows + _GUTTER, left - _GUTTER : left + columns + _GUTTER] = image
    return common, boxes


def _shelves(sizes: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, int, int, int]], int, int]:
    """Places (first column, first row, columns, rows) for pictures of (rows, columns), the tallest first, in rows from
    left to right; and the height and width of it all."""
    padded = [(rows + 2 * _GUTTER, columns + 2 * _GUTTER) for rows, columns in sizes]
    width = max(*(columns for _, columns in padded), math.isqrt(sum(r * c for r, c in padded)))
    boxes: dict[int, tuple[int, int, int, int]] = {}
    left = top = shelf = 0
    for index in sorted(range(len(padded)), key=lambda each: -padded[each][0]):
        rows, columns = padded[index]
        if left + columns > width:
            left, top, shelf = 0, top + shelf, 0
        boxes[index] = (left + _GUTTER, top + _GUTTER, columns - 2 * _GUTTER, rows - 2 * _GUTTER)
        left, shelf = left + columns, max(shelf, rows)
    return [boxes[index] for index in range(len(padded))], top + shelf, width
