"""Pictures of a surface through the rasteriser, as a representation gives them.

Legend: V views, S x S pixels, C channels, N vertices, M faces, E edges, K pixels in which the surface is met.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.meshing import vertex_normals
from gen3d.render.raster_types import Raster
from gen3d.render.rasterize import antialias, interpolate
from gen3d.render.renderer import rasterize
from gen3d.render.shading import clip_vertices
from gen3d.representations.base import Rendered, Shade

# Raster -> colours [V, S, S, C] of the surface itself.
Paint = Callable[[Raster], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Met:
    """Where K pixels meet the surface: points, outward unit normals and unit directions from the camera, `[K, 3]`."""

    points: Tensor
    normals: Tensor
    directions: Tensor

    def normals_at(self, points: Tensor) -> Tensor:
        """The normals, for a `Shade`, which asks for those of these very points."""
        assert points is self.points
        return self.normals


# (where, colours [K, C]) -> colours under a light.
Light = Callable[[Met, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """vertices: [N, 3]. faces: [M, 3] int64. edges: [E, 4] int64, of `gen3d.topology.mesh_edges`. weld: [N] int64, the
    first vertex at each one's place; None where no place has two."""

    vertices: Tensor
    faces: Tensor
    edges: Tensor
    weld: Tensor | None = None

    def normals(self) -> Tensor:
        """Smooth outward unit normals [N, 3]."""
        if self.weld is None:
            return vertex_normals(self.vertices, self.faces)
        return vertex_normals(self.vertices, self.weld[self.faces])[self.weld]


def by_shade(shade: Shade) -> Light:
    """A lamp's shade as a light."""
    return lambda met, colors: shade(met, met.points, colors)


def render_surface(
    surface: Surface,
    paint: Paint,
    cameras: Cameras,
    size: int,
    background: Tensor,
    *,
    light: Light | None = None,
    normals: bool = False,
) -> Rendered:
    """Pictures by V cameras over `background [V, C]`, differentiable in vertices and colours: within faces through
    what is interpolated, at silhouettes through the share of a pixel that an edge leaves to each side."""
    device = surface.vertices.device
    cameras, background = cameras.to(device), background.to(device)
    clip = clip_vertices(surface.vertices, cameras, 1.0)
    raster = rasterize(clip, surface.faces, size, size)
    hit = raster.mask[..., None]
    points = interpolate(surface.vertices, raster)
    towards = points - cameras.positions[:, None, None]
    colors, facing = paint(raster), None
    if normals or light is not None:
        facing = F.normalize(interpolate(surface.normals(), raster), dim=-1)
    if light is not None:
        assert facing is not None
        where = raster.mask
        met = Met(points=points[where], normals=facing[where], directions=F.normalize(towards[where], dim=-1))
        colors = torch.zeros_like(colors).index_put((where,), light(met, colors[where]))
    layers = [torch.where(hit, colors, background[:, None, None]), hit.float()]
    layers.append(torch.where(hit, towards, 0.0).norm(dim=-1, keepdim=True))
    if normals:
        assert facing is not None
        layers.append(facing)
    channels = colors.shape[-1]
    blended = antialias(torch.cat(layers, dim=-1), raster, clip, surface.edges).permute(0, 3, 1, 2)
    # Where two silhouettes cross inside a pixel their blends can add up to a little too much.
    return Rendered(
        images=blended[:, :channels],
        opacity=blended[:, channels : channels + 1].clamp(0.0, 1.0),
        depth=blended[:, channels + 1 : channels + 2],
        normals=blended[:, channels + 2 :] if normals else None,
    )
