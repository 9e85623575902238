"""UV unwrapping with xatlas, and baking colours into a texture.

UVs follow glTF: origin at the top left of the texture, v down. Textures are [H, W, 3] float32 sRGB in [0, 1].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xatlas
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from gen3d.asset import Mesh
from gen3d.render.rasterize import interpolate, rasterize, sample_texture
from gen3d.topology import adjacency

# Points handed to a colour function at a time.
_CHUNK = 1 << 18


def unwrap(mesh: Mesh, *, size: int = 1024, padding: int = 4) -> Mesh:
    """The mesh with UVs in [0, 1]; vertices are repeated at chart borders, positions and faces stay.

    size: edge of the square texture the charts are packed for, in texels.
    padding: free texels between two charts.
    """
    if mesh.num_faces == 0:
        raise ValueError("mesh has no faces, so there is nothing to unwrap")
    if not 0 <= padding < size // 8:
        raise ValueError(f"padding must be from 0 to below an eighth of size ({size // 8}), got {padding}")
    atlas = xatlas.Atlas()
    vertices = mesh.vertices.detach().cpu().numpy()
    atlas.add_mesh(
        np.ascontiguousarray(vertices), np.ascontiguousarray(mesh.faces.cpu().numpy().astype(np.uint32))
    )
    charts = xatlas.ChartOptions()
    # Growing the charts a single time is enough for smooth shapes, and most of the time goes there.
    charts.max_iterations = 1
    pack = xatlas.PackOptions()
    pack.resolution = size
    pack.padding = padding
    pack.bilinear = True
    pack.rotate_charts_to_axis = True
    atlas.generate(charts, pack)
    source, faces, uvs = atlas[0]
    index = torch.from_numpy(source.astype(np.int64)).to(mesh.device)

    def repeat(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[index]

    return Mesh(
        mesh.vertices[index],
        torch.from_numpy(faces.astype(np.int64)).to(mesh.device),
        repeat(mesh.normals),
        torch.from_numpy(uvs.astype(np.float32)).to(mesh.device).clamp(0.0, 1.0),
        repeat(mesh.vertex_colors),
        dataclasses.replace(mesh.material, base_color_texture=None),
    )


def texel_points(mesh: Mesh, size: int) -> tuple[Tensor, Tensor]:
    """Which texels of a size x size texture lie in a chart ([size, size] bool), and their surface points [K, 3]."""
    return _texel_values(mesh, mesh.vertices.detach(), size)


def _texel_values(mesh: Mesh, values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which texels lie in a chart, and what values [N, C] of the vertices are there, [K, C]."""
    if mesh.uvs is None:
        raise ValueError("mesh has no uvs. Make them with texture.unwrap")
    x, y = mesh.uvs[:, 0] * 2.0 - 1.0, 1.0 - mesh.uvs[:, 1] * 2.0
    clip = torch.stack([x, y, torch.zeros_like(x), torch.ones_like(x)], dim=-1)[None].detach()
    raster = rasterize(clip, mesh.faces, size, size)
    covered = raster.mask[0]
    return covered, interpolate(values, raster)[0][covered]


def bake(
    mesh: Mesh, color_fn: Callable[[Tensor], Tensor], *, size: int = 1024, padding: int | None = None
) -> Mesh:
    """The mesh with a base-colour texture of color_fn(points [N, 3] on the surface) -> [N, 3] sRGB in [0, 1].

    padding: texels around each chart that repeat its border, so that no seam shows under bilinear filtering. None
    fills the whole texture, which keeps smaller mip levels clean too.
    """
    if not 4 <= size <= 8192:
        raise ValueError(f"size must be from 4 to 8192 texels, got {size}")
    covered, points = texel_points(mesh, size)
    if not bool(covered.any()):
        raise ValueError(f"no texel of a {size} x {size} texture lies in a chart. Use a larger size")
    with torch.no_grad():
        colors = torch.cat([color_fn(part) for part in points.split(_CHUNK)])
    if colors.shape != points.shape:
        raise ValueError(f"color_fn must return [N, 3] for [N, 3] points, got {list(colors.shape)}")
    if not bool(torch.isfinite(colors).all()):
        raise ValueError("color_fn returned NaN or Inf")
    return _with_texels(mesh, covered, colors.to(mesh.device, torch.float32), padding)


def bake_vertex_colors(mesh: Mesh, *, size: int = 1024) -> Mesh:
    """The mesh, which has UVs, with its vertex colours in a texture instead."""
    if mesh.vertex_colors is None:
        raise ValueError("mesh has no vertex_colors")
    covered, colors = _texel_values(mesh, mesh.vertex_colors, size)
    return _with_texels(mesh, covered, colors)


def _with_texels(mesh: Mesh, covered: Tensor, colors: Tensor, padding: int | None = None) -> Mesh:
    texture = torch.zeros(*covered.shape, 3, device=mesh.device)
    texture[covered] = colors.clamp(0.0, 1.0)
    texture = dilate(texture, covered, padding)
    return mesh.replace(
        material=dataclasses.replace(mesh.material, base_color_texture=texture), vertex_colors=None
    )


def dilate(texture: Tensor, covered: Tensor, padding: int | None = None) -> Tensor:
    """Fill texels [H, W, C] outside the charts (covered [H, W] bool) from the nearest texel inside."""
    found: Any = ndimage.distance_transform_edt(~covered.cpu().numpy(), return_indices=True)
    distance, nearest = found
    rows, columns = (torch.from_numpy(index.astype(np.int64)).to(texture.device) for index in nearest)
    filled = texture[rows, columns]
    if padding is None:
        return filled
    reach = torch.from_numpy(distance <= padding).to(texture.device)
    return torch.where(reach[..., None], filled, texture)


def surface_colors(mesh: Mesh, face_index: Tensor, barycentric: Tensor) -> Tensor:
    """Base colour [K, 3] (sRGB) at points on faces [K] with barycentric weights [K, 3]."""
    corners = mesh.faces[face_index]

    def at(values: Tensor) -> Tensor:
        return (values[corners] * barycentric[..., None]).sum(1)

    texture = mesh.material.base_color_texture
    if texture is not None and mesh.uvs is not None:
        return sample_texture(texture, at(mesh.uvs)[None, :, None])[0, :, 0]
    if mesh.vertex_colors is not None:
        return at(mesh.vertex_colors)
    return torch.tensor(mesh.material.base_color, device=mesh.device).expand(len(face_index), 3)


def texture_to_vertex_colors(mesh: Mesh) -> Mesh:
    """The mesh with its texture looked up at the vertices: for formats that carry no texture."""
    if mesh.material.base_color_texture is None or mesh.uvs is None:
        return mesh
    colors = sample_texture(mesh.material.base_color_texture, mesh.uvs[None, :, None])[0, :, 0]
    material = dataclasses.replace(mesh.material, base_color_texture=None)
    return mesh.replace(vertex_colors=colors.clamp(0.0, 1.0), uvs=None, material=material)


def spread(mesh: Mesh, values: Tensor, confidence: Tensor, *, smoothing: float = 0.02) -> Tensor:
    """Values `[N, C]` at the vertices, carried over the surface to where nothing is known of them.

    The x that minimises sum_i confidence_i |x_i - values_i|^2 + smoothing * sum_ij |x_i - x_j|^2 over vertices i and
    edges ij: it keeps what is known, and is harmonic (without a bump of its own) in between. confidence: `[N]` >= 0.
    """
    graph = adjacency(mesh.faces, mesh.num_vertices)
    laplacian = sparse.diags(np.asarray(graph.sum(axis=1)).reshape(-1)) - graph
    # The least trust keeps a piece that nothing is known of as it is.
    trust = confidence.detach().cpu().double().numpy() + 1e-6
    solve = splu(sparse.csc_matrix(smoothing * laplacian + sparse.diags(trust))).solve
    found = solve(trust[:, None] * values.detach().cpu().double().numpy())
    return torch.from_numpy(found).to(values)
