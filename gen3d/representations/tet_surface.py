"""Deep marching tetrahedra (DMTet, arXiv 2111.04276): a surface that is differentiable in the distances around it.

Between a grid vertex a inside and b outside, with signed distances s_a < 0 <= s_b, the surface has a vertex at
(|s_b| a + |s_a| b) / (|s_a| + |s_b|). Grid vertices move within a bound below which no tetrahedron turns inside out,
and those of the border are outside: the surface is closed, and no part of it passes through another.

Legend: G vertices and E edges of the grid, N vertices and M faces of the surface.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import KDTree
from torch import Tensor

from gen3d import meshing
from gen3d.asset import Mesh
from gen3d.cameras import Cameras
from gen3d.metrics import mesh_occupancy, sample_surface
from gen3d.regularisers import laplacian, normal_consistency
from gen3d.render.rasterize import interpolate
from gen3d.render.surface import Surface, by_shade, render_surface
from gen3d.representations.base import Rendered, Representation, Shade
from gen3d.representations.tet_grid import Cut, TetGrid, tet_grid
from gen3d.representations.tetmesh import TetMesh
from gen3d.texture import surface_colors
from gen3d.topology import face_pairs, mesh_edges

if TYPE_CHECKING:
    from gen3d.surface import SurfaceConfig
    from gen3d.views import Views

# How near to a grid vertex the surface may come, as a share of the edge: faces at a vertex must not shrink to a point.
_LEAST = 1e-3
# Distance in cells of what must be inside or outside whatever its own says.
_PUT, _BUBBLE = 0.1, 1.0
_SAMPLES, _NEAREST = 100_000, 8


class TetSurface(Representation):
    """sdf: [G] signed distances in cells, negative inside. offsets: [G, 3] raw, of the grid's vertices. colors: [G, 3]
    raw, sRGB after a sigmoid."""

    def __init__(self, settings: TetMesh, sdf: Tensor, offsets: Tensor, colors: Tensor) -> None:
        self.settings, self.sdf, self.offsets, self.colors = settings, sdf, offsets, colors
        self.grid: TetGrid = tet_grid(settings.resolution, sdf.device)
        count = len(self.grid.points)
        for name, tensor, shape in (
            ("sdf", sdf, (count,)),
            ("offsets", offsets, (count, 3)),
            ("colors", colors, (count, 3)),
        ):
            if tuple(tensor.shape) != shape:
                raise ValueError(
                    f"a tetmesh of resolution {settings.resolution} needs {name} of shape {list(shape)}, got "
                    f"{list(tensor.shape)}"
                )

    @property
    def device(self) -> torch.device:
        return self.sdf.device

    def tensors(self) -> dict[str, Tensor]:
        return {"sdf": self.sdf, "offsets": self.offsets, "colors": self.colors}

    def rates(self, progress: float = 0.0) -> dict[str, float]:
        settings = self.settings
        rates = {"sdf": settings.sdf_rate, "colors": settings.color_rate}
        return rates | ({"offsets": settings.offset_rate} if settings.max_offset else {})

    def distances(self) -> Tensor:
        """[G] in cells, smoothed: those of the border are outside; where nothing would be inside, all are lowered
        together until the deepest place is a bubble that can be seen."""
        border = self.grid.border
        smoothed = self.grid.smooth(self.sdf[:, None], self.settings.smoothing)[:, 0]
        lowest = smoothed.detach()[~border].amin()
        lowered = smoothed - torch.where(lowest > -_LEAST, lowest + _BUBBLE, 0.0)
        return torch.where(border, lowered.clamp_min(_PUT), lowered)

    def grid_points(self) -> Tensor:
        """[G, 3] where the grid's vertices are."""
        bound = self.settings.max_offset * self.grid.spacing
        offsets = self.grid.smooth(self.offsets, self.settings.smoothing)
        return self.grid.points + bound * offsets / (1.0 + offsets.square().sum(dim=-1, keepdim=True)).sqrt()

    @cached_property
    def cut(self) -> Cut:
        """How the surface hangs together."""
        return self.grid.cut(self.distances().detach() < 0.0)

    @cached_property
    def edges(self) -> Tensor:
        """As of `gen3d.topology.mesh_edges`."""
        return mesh_edges(self.cut.faces)

    def _shares(self) -> Tensor:
        """[N, 1] of the second of each vertex's `cut.ends` in it."""
        first, second = self.distances()[self.cut.ends].abs().unbind(1)
        # Where both are all but zero the share would jump about, and its gradient be without bounds.
        share = first / (first + second).clamp_min(_LEAST)
        return (_LEAST + (1.0 - 2.0 * _LEAST) * share)[:, None]

    def _between(self, values: Tensor, shares: Tensor) -> Tensor:
        """[N, C] at the surface, of values [G, C] of the grid."""
        first, second = values[self.cut.ends[:, 0]], values[self.cut.ends[:, 1]]
        return first + shares * (second - first)

    def vertices(self) -> Tensor:
        """[N, 3] of the surface, differentiable."""
        return self._between(self.grid_points(), self._shares())

    def vertices_and_colors(self) -> tuple[Tensor, Tensor]:
        """[N, 3] of the surface, and their sRGB [N, 3], both differentiable."""
        shares = self._shares()
        colors = torch.sigmoid(self._between(self.colors, shares))
        return self._between(self.grid_points(), shares), colors

    def render(
        self,
        cameras: Cameras,
        size: int,
        background: Tensor,
        *,
        generator: torch.Generator | None = None,
        shade: Shade | None = None,
        normals: bool = False,
    ) -> Rendered:
        vertices, colors = self.vertices_and_colors()
        surface = Surface(vertices=vertices, faces=self.cut.faces, edges=self.edges)
        return render_surface(
            surface,
            lambda raster: interpolate(colors, raster),
            cameras,
            size,
            background,
            light=None if shade is None else by_shade(shade),
            normals=normals,
        )

    def regularisers(self, generator: torch.Generator) -> dict[str, Tensor]:
        settings, losses = self.settings, {}
        if settings.sign_consistency:
            ends = self.distances()[self.cut.ends]
            other = (ends.flip(1) > 0.0).float()
            entropy = F.binary_cross_entropy_with_logits(ends, other)
            losses["sign_consistency"] = settings.sign_consistency * entropy
        if not (settings.normal_consistency or settings.laplacian):
            return losses
        vertices = self.vertices()
        if settings.normal_consistency:
            turned = normal_consistency(vertices, self.cut.faces, face_pairs(self.cut.faces))
            losses["normal_consistency"] = settings.normal_consistency * turned
        if settings.laplacian:
            apart = laplacian(vertices, self.edges[:, :2]) / self.grid.spacing
            losses["laplacian"] = settings.laplacian * apart
        return losses

    @torch.no_grad()
    def refresh(self) -> None:
        """Keep distances within their band, and give places that the surface may soon reach the colours it has."""
        self.sdf.clamp_(-self.settings.band, self.settings.band)
        edges = self.grid.edges
        known = torch.zeros(len(self.sdf), dtype=torch.bool, device=self.device)
        known[self.cut.ends.reshape(-1)] = True
        for _ in range(2):
            first, second = known[edges].unbind(1)
            source = torch.cat([edges[first & ~second], edges[second & ~first].flip(1)])
            total = torch.zeros_like(self.colors).index_add_(0, source[:, 1], self.colors[source[:, 0]])
            count = torch.bincount(source[:, 1], minlength=len(known))[:, None]
            self.colors.copy_(torch.where(count > 0, total / count.clamp_min(1), self.colors))
            known |= count[:, 0] > 0

    @torch.no_grad()
    def to_mesh(self, settings: SurfaceConfig, views: Views | None) -> Mesh:
        """Without hollows that nothing leads to, and cleaned up by `settings`; what they say of a grid does not matter
        here."""
        solid = self._without_cavities()
        vertices, colors = solid.vertices_and_colors()
        found = Mesh(vertices, solid.cut.faces)
        mesh = meshing.drop_small_pieces(
            found, min_fraction=settings.min_fraction, min_extent=settings.min_extent
        )
        mesh = meshing.decimate(meshing.smooth(mesh, settings.smooth), settings.target_faces)
        mesh = meshing.drop_small_pieces(
            mesh, min_fraction=settings.min_fraction, min_extent=settings.min_extent
        )
        _, nearest = KDTree(found.vertices.cpu().numpy()).query(mesh.vertices.cpu().numpy())
        return mesh.replace(vertex_colors=colors[torch.from_numpy(np.asarray(nearest)).to(self.device)])

    def _without_cavities(self) -> TetSurface:
        distances = self.distances()
        outside = (distances >= 0.0).cpu().numpy()
        joined = self.grid.edges.cpu().numpy()
        joined = joined[outside[joined].all(axis=1)]
        graph = sparse.coo_array(
            (np.ones(len(joined), dtype=bool), (joined[:, 0], joined[:, 1])), shape=(len(outside),) * 2
        )
        _, piece = csgraph.connected_components(graph, directed=False)
        open_pieces = piece[self.grid.border.cpu().numpy()]
        hollow = torch.from_numpy(outside & ~np.isin(piece, open_pieces)).to(self.device)
        filled = torch.where(hollow, -_PUT, distances)
        smooth = dataclasses.replace(self.settings, smoothing=0)  # as both are now
        return TetSurface(
            smooth, filled, self.grid.smooth(self.offsets, self.settings.smoothing), self.colors
        )


def ball(settings: TetMesh, device: torch.device | str = "cpu") -> TetSurface:
    """A grey ball around the origin."""
    grid = tet_grid(settings.resolution, torch.device(device))
    sdf = (grid.points.norm(dim=-1) - settings.ball_radius) / grid.spacing
    zeros = torch.zeros_like(grid.points)
    return TetSurface(settings, sdf.clamp(-settings.band, settings.band), zeros, zeros.clone())


@torch.no_grad()
def surface_of_mesh(mesh: Mesh, settings: TetMesh, device: torch.device | str = "cpu") -> TetSurface:
    """The surface of `mesh`, closed and within the unit sphere; each grid vertex has the colour of the nearest place.
    ValueError for a mesh that is not closed, for it has no inside."""
    if not meshing.is_watertight(mesh):
        raise ValueError(
            "the mesh to begin with is not closed, so nothing is inside it; close its holes first"
        )
    mesh, grid, cells = mesh.detach().to("cpu"), tet_grid(settings.resolution, "cpu"), settings.resolution
    reach = 0.5 * grid.spacing
    inside = np.concatenate(
        [
            mesh_occupancy(mesh, cells + 1, (cells + 1) * reach).reshape(-1),
            mesh_occupancy(mesh, cells, cells * reach).reshape(-1),
        ]
    )
    points, faces, weights = sample_surface(mesh, _SAMPLES, generator=torch.Generator().manual_seed(0))
    colors = surface_colors(mesh, faces, weights)
    found = KDTree(points.numpy()).query(grid.points.numpy(), k=_NEAREST)
    distance, index = (np.asarray(each) for each in found)
    near = distance[:, 0] < 2.0 * grid.spacing
    # Exactly, where it matters: to the faces on which the nearest samples lie.
    triangles = mesh.vertices[mesh.faces[faces[torch.from_numpy(index[near])]]].double().numpy()
    asked = np.repeat(grid.points[torch.from_numpy(near)].double().numpy(), _NEAREST, axis=0)
    closest = trimesh.triangles.closest_point(triangles.reshape(-1, 3, 3), asked)
    distance[near, 0] = np.linalg.norm(closest - asked, axis=1).reshape(-1, _NEAREST).min(axis=1)
    signed = np.where(inside, -distance[:, 0], distance[:, 0]) / grid.spacing
    sdf = torch.from_numpy(signed.astype(np.float32)).clamp(-settings.band, settings.band)
    raw = torch.logit(colors[torch.from_numpy(index[:, 0])].clamp(0.02, 0.98))
    sdf = _unsmoothed(sdf, grid, settings)
    return TetSurface(settings, sdf.to(device), torch.zeros_like(raw).to(device), raw.to(device))


def _unsmoothed(values: Tensor, grid: TetGrid, settings: TetMesh) -> Tensor:
    """What smoothing makes nearly `values [G]` of, within the band (Van Cittert's iteration)."""
    raw = values.clone()
    for _ in range(8 if settings.smoothing else 0):
        raw += values - grid.smooth(raw[:, None], settings.smoothing)[:, 0]
        raw.clamp_(-settings.band, settings.band)
    return raw
