"""Pictures of a mesh: base colour, a neutral studio light, or normals.

Light is computed in linear space with lamps that move with the camera, so every view of a turntable is lit alike. A
surface facing the key light keeps about its base colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gen3d.asset import Mesh
from gen3d.cameras import Cameras
from gen3d.color import linear_to_srgb, srgb_to_linear
from gen3d.meshing import vertex_normals
from gen3d.render.raster_types import Raster
from gen3d.render.rasterize import antialias, interpolate, sample_texture
from gen3d.render.renderer import rasterize
from gen3d.topology import Topology

Mode = Literal["albedo", "shaded", "normal"]

# Directions towards the lamps in camera space (x right, y up, z towards the viewer), and their strengths.
_KEY = ((-0.45, 0.65, 0.61), 0.62)
_FILL = ((0.80, 0.10, 0.59), 0.22)
# Light from all around, from below (world -Y) to above.
_AMBIENT = (0.26, 0.46)


@dataclass(frozen=True, eq=False)
class MeshRender:
    """Pictures of a mesh from V cameras, all float32.

    images: [V, 3, H, W] sRGB in [0, 1] over the background. mask: [V, 1, H, W] in [0, 1], antialiased.
    normals: [V, 3, H, W] world-space unit normals, 0 where nothing is hit (averaged at edges).
    depth: [V, 1, H, W] distance along the viewing axis in world units, 0 where nothing is hit; no gradient.
    """

    images: Tensor
    mask: Tensor
    normals: Tensor
    depth: Tensor


def clip_vertices(vertices: Tensor, cameras: Cameras, aspect: float) -> Tensor:
    """[V, N, 4] clip positions with near and far planes just around the mesh."""
    homogeneous = torch.nn.functional.pad(vertices, (0, 1), value=1.0)
    with torch.no_grad():
        distance = -(cameras.w2c[:, 2] @ homogeneous.T)
        near = max(0.5 * float(distance.min()), 1e-2)
        far = max(2.0 * float(distance.max()), 2.0 * near)
    matrix = cameras.projection(near, far, aspect) @ cameras.w2c
    return homogeneous @ matrix.transpose(1, 2)


def _base_color(mesh: Mesh, raster: Raster) -> Tensor:
    """[V, H, W, 3] sRGB."""
    texture = mesh.material.base_color_texture
    if texture is not None and mesh.uvs is not None:
        return sample_texture(texture, interpolate(mesh.uvs, raster))
    if mesh.vertex_colors is not None:
        return interpolate(mesh.vertex_colors, raster)
    color = torch.tensor(mesh.material.base_color, device=mesh.device)
    return color.expand(*raster.face_id.shape, 3)


def shade(base_color: Tensor, normals: Tensor, cameras: Cameras) -> Tensor:
    """Light a picture: base_color [V, H, W, 3] sRGB and world unit normals [V, H, W, 3] -> sRGB in [0, 1]."""
    low, high = _AMBIENT
    light = low + (high - low) * (0.5 + 0.5 * normals[..., 1:2])
    for direction, strength in (_KEY, _FILL):
        towards = torch.nn.functional.normalize(torch.tensor(direction, device=normals.device), dim=0)
        towards = cameras.c2w[:, :3, :3] @ towards
        facing = (normals * towards[:, None, None]).sum(-1, keepdim=True)
        # Wrapped a little round the terminator, which keeps a soft form in the shade.
        light = light + strength * ((facing + 0.25) / 1.25).clamp_min(0.0) ** 1.2
    return linear_to_srgb((srgb_to_linear(base_color.clamp(0.0, 1.0)) * light).clamp(0.0, 1.0))


def render_mesh(
    mesh: Mesh,
    cameras: Cameras,
    height: int,
    width: int,
    *,
    background: tuple[float, float, float] | Tensor = (1.0, 1.0, 1.0),
    supersample: int = 1,
    mode: Mode = "shaded",
    topology: Topology | None = None,
) -> MeshRender:
    """Render a mesh from V cameras, by the `renderer` in force. Differentiable in vertices, colours and texture.

    background: sRGB, one colour [3] or one for each view [V, 3]. supersample: 1, or 2 for twice the pixels, averaged.
    topology: Topology.of(mesh.vertices, mesh.faces), to save its making in every call of a loop.
    mode: "albedo" is the unlit base colour, "normal" shows (normal + 1) / 2 in world axes.
    """
    if mode not in ("albedo", "shaded", "normal"):
        raise ValueError(f"mode must be 'albedo', 'shaded' or 'normal', got {mode!r}")
    if supersample not in (1, 2):
        raise ValueError(f"supersample must be 1 or 2, got {supersample}")
    if mesh.num_faces == 0:
        raise ValueError("mesh has no faces, so there is nothing to render")
    cameras = cameras.to(mesh.device)
    backdrop = torch.as_tensor(background, dtype=torch.float32, device=mesh.device).reshape(-1, 1, 1, 3)
    if backdrop.shape[0] not in (1, len(cameras)):
        raise ValueError(
            f"background must be [3] or [{len(cameras)}, 3], got {list(torch.as_tensor(background).shape)}"
        )

    clip = clip_vertices(mesh.vertices, cameras, width / height)
    raster = rasterize(clip, mesh.faces, height * supersample, width * supersample)
    topology = topology or Topology.of(mesh.vertices, mesh.faces)
    normals = (
        mesh.normals
        if mesh.normals is not None
        else vertex_normals(mesh.vertices, topology.weld[mesh.faces])[topology.weld]
    )
    pixel_normals = torch.nn.functional.normalize(interpolate(normals, raster), dim=-1)
    if mode == "normal":
        color = pixel_normals * 0.5 + 0.5
    else:
        color = _base_color(mesh, raster)
        if mode == "shaded":
            color = shade(color, pixel_normals, cameras)
    hit = raster.mask[..., None]
    layers = torch.cat([torch.where(hit, color, backdrop), hit.float(), pixel_normals], dim=-1)
    layers = antialias(layers, raster, clip, topology.edges).permute(0, 3, 1, 2)
    depth = raster.depth[:, None]
    if supersample > 1:
        layers = torch.nn.functional.avg_pool2d(layers, supersample)
        covered = torch.nn.functional.avg_pool2d((depth > 0).float(), supersample)
        depth = torch.nn.functional.avg_pool2d(depth, supersample) / covered.clamp_min(1e-6)
    # Where two silhouettes cross inside a pixel their blends can add up to a little too much.
    return MeshRender(
        images=layers[:, :3].clamp(0.0, 1.0),
        mask=layers[:, 3:4].clamp(0.0, 1.0),
        normals=layers[:, 4:],
        depth=depth,
    )
