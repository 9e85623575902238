"""A texture of the mesh's own colours, without the light it was seen under.

Adds `mesh/uvs [N, 2]` and `mesh/texture [S, S, 3]` to the state and takes `mesh/vertex_colors` out of it.

Legend: V views, K points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import KDTree
from torch import Tensor

from gen3d import meshing, texture
from gen3d.asset import Mesh
from gen3d.color import linear_to_srgb, srgb_to_linear
from gen3d.delight import Lighting, Samples, fit_lighting, occlusion, remove_light
from gen3d.mesh_state import load_mesh, save_mesh
from gen3d.optimize import Transform
from gen3d.render.shading import render_mesh
from gen3d.stages.config import TextureConfig
from gen3d.state import State
from gen3d.views import Views

# How much a view that sees a point squarely counts beside the mesh's own colour there.
_VIEW = 20.0
# Sum of view weights from which a point counts as seen.
_SEEN = 2.0
# A view that shows less of a point than this says nothing about the light.
_LEAST = 0.02
# Texels between two charts, where the texture is large enough.
_PADDING = 4


class Texture(Transform):
    """Gives the mesh UVs and a base-colour texture mixed from the views and its vertex colours. What reaches beyond
    the unit sphere by then is made smaller: pictures show a little more than the sphere, and vertices follow them."""

    name = "texture"

    def __init__(self, config: TextureConfig) -> None:
        self.config = config

    def apply(self, state: State, generator: torch.Generator) -> dict[str, float]:
        mesh = load_mesh(state).detach()
        colors = SurfaceColor(mesh, Views.load(state), self.config, generator)
        # Charts need room between them, which a small texture has less of.
        padding = min(_PADDING, self.config.size // 8 - 1)
        unwrapped = texture.unwrap(mesh, size=self.config.size, padding=padding)
        baked = texture.bake(unwrapped, colors, size=self.config.size)
        save_mesh(state, baked.replace(vertex_colors=None).in_unit_sphere())
        return {"texels": float(self.config.size**2), "seen": colors.seen, "radius": mesh.radius}


@dataclass(frozen=True, kw_only=True)
class _Surface:
    """K points: position and unit normal `[K, 3]`, occlusion `[K]`."""

    points: Tensor
    normals: Tensor
    occlusion: Tensor


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What V views show of K points: linear colors `[V, K, 3]`, the cosine to the surface `[V, K]` and how far
    to trust it, `[V, K]` in [0, 1], 0 where it is hidden."""

    colors: Tensor
    facing: Tensor
    weights: Tensor


class SurfaceColor:
    """Own colour of surface points: what the views that see them show, less the light; where none sees them, what
    is seen around. lighting: the light that was found. seen: share of the vertices that some view shows well."""

    @torch.no_grad()
    def __init__(self, mesh: Mesh, views: Views, config: TextureConfig, generator: torch.Generator) -> None:
        mesh = meshing.with_normals(mesh)
        assert mesh.normals is not None
        self.views, self.config = views, config
        self.images = srgb_to_linear(views.images)
        size = views.images.shape[-1]
        self.depth = render_mesh(mesh, views.cameras, size, size, mode="albedo").depth
        # Near a silhouette a pixel mixes object and background: only where all around is object does a view count.
        self.solid = -F.max_pool2d(-views.masks, 3, stride=1, padding=1)
        self.tree = KDTree(mesh.vertices.cpu().numpy())
        hidden = occlusion(mesh, mesh.vertices, mesh.normals)
        vertices = _Surface(points=mesh.vertices, normals=mesh.normals, occlusion=hidden)
        shown = self._look(vertices)
        self.lighting = self._fit(vertices, shown, generator)
        total = shown.weights.sum(dim=0)
        facing = torch.where(
            total > 0, (shown.weights * shown.facing).sum(dim=0) / total.clamp_min(1e-6), 1.0
        )
        own = self._unlit(srgb_to_linear(_vertex_colors(mesh)), vertices, facing)
        known = (total / _SEEN).clamp_max(1.0)
        self.seen = float((known >= 0.5).float().mean())
        colors = texture.spread(mesh, self._mix(own, vertices, shown), known)
        # A row for each vertex: colour, normal, occlusion.
        self.table = torch.cat([colors, mesh.normals, hidden[:, None]], dim=1)

    @torch.no_grad()
    def __call__(self, points: Tensor) -> Tensor:
        """sRGB `[K, 3]` of `points [K, 3]`."""
        own, surface = self._nearest(points)
        return linear_to_srgb(self._mix(own, surface, self._look(surface)))

    def _fit(self, vertices: _Surface, shown: _Seen, generator: torch.Generator) -> Lighting:
        if self.config.delight.strength == 0.0:
            return Lighting.none()
        used = shown.weights > _LEAST
        vertex = used.nonzero()[:, 1]
        samples = Samples(
            colors=shown.colors[used],
            points=vertices.points[vertex],
            normals=vertices.normals[vertex],
            facing=shown.facing[used],
            occlusion=vertices.occlusion[vertex],
            weights=shown.weights[used],
        )
        return fit_lighting(samples, self.config.delight, generator)

    def _unlit(self, colors: Tensor, surface: _Surface, facing: Tensor) -> Tensor:
        shading = self.lighting.shading(surface.normals, facing, surface.occlusion)
        return remove_light(colors, shading, self.config.delight)

    def _mix(self, own: Tensor, surface: _Surface, shown: _Seen) -> Tensor:
        """Linear `[K, 3]`: the views' colours without their light, and `own [K, 3]`, which has none."""
        mixed, total = own.clone(), torch.ones(len(own), 1, device=own.device)
        for colors, facing, weights in zip(shown.colors, shown.facing, shown.weights, strict=True):
            weight = self.config.views_weight * _VIEW * weights[:, None]
            mixed += weight * self._unlit(colors, surface, facing)
            total += weight
        return mixed / total

    def _look(self, surface: _Surface) -> _Seen:
        looks = [self._look_from(view, surface) for view in range(len(self.views))]
        colors, facing, weights = (torch.stack(parts) for parts in zip(*looks, strict=True))
        return _Seen(colors=colors, facing=facing, weights=weights)

    def _look_from(self, view: int, surface: _Surface) -> tuple[Tensor, Tensor, Tensor]:
        camera = self.views.cameras[view : view + 1]
        positions, depth = camera.project(surface.points)
        grid = positions[:, :, None]

        def read(image: Tensor, mode: str = "bilinear") -> Tensor:
            found = F.grid_sample(image[None], grid, mode=mode, padding_mode="zeros", align_corners=False)
            return found[0, :, :, 0].T

        towards = F.normalize(camera.positions - surface.points, dim=-1)
        facing = (towards * surface.normals).sum(dim=-1).clamp(0.0, 1.0)
        visible = (depth[0] - read(self.depth[view], "nearest")[:, 0]).abs() < 0.03
        weight = facing**self.config.sharpness * visible * (read(self.solid[view])[:, 0] > 0.9)
        return read(self.images[view]), facing, weight

    def _nearest(self, points: Tensor) -> tuple[Tensor, _Surface]:
        """Colour of the three nearest vertices, mixed by distance, and the surface there."""
        distance, index = self.tree.query(points.cpu().numpy(), k=3)
        weight = 1.0 / (np.asarray(distance) + 1e-4)
        weight = torch.from_numpy((weight / weight.sum(axis=1, keepdims=True)).astype(np.float32))
        rows = torch.from_numpy(np.asarray(index)).to(points.device)
        mixed = (self.table[rows] * weight.to(points.device)[..., None]).sum(dim=1)
        color, normals, hidden = mixed.split([3, 3, 1], dim=1)
        surface = _Surface(points=points, normals=F.normalize(normals, dim=-1), occlusion=hidden[:, 0])
        return color, surface


def _vertex_colors(mesh: Mesh) -> Tensor:
    """sRGB `[N, 3]`."""
    if mesh.vertex_colors is not None:
        return mesh.vertex_colors
    return torch.tensor(mesh.material.base_color, device=mesh.device).expand(mesh.num_vertices, 3)
