"""From a field to a closed mesh with vertex colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gen3d import meshing
from gen3d.asset import Mesh
from gen3d.bridging import bridge_pieces
from gen3d.representations.base import Field
from gen3d.representations.hull import look_up
from gen3d.views import Views

if TYPE_CHECKING:
    from gen3d.surface import SurfaceConfig

# Share of views that may see through a point without its being empty: silhouettes of a model do not quite agree.
_SEEN_THROUGH = 0.1


def mesh_of_field(field: Field, settings: SurfaceConfig, views: Views | None) -> Mesh:
    """The surface of `field` at optical density `settings.level`, on its device. With `views`, pieces near each other
    are joined where none of them sees through between the two."""
    grid, level = field.surface_grid(settings.resolution, settings.level)
    mesh = mesh_of_grid(grid, level, settings, views).to(field.device)
    return mesh.replace(vertex_colors=surface_color(field, mesh.vertices))


def mesh_of_grid(grid: np.ndarray, level: float, settings: SurfaceConfig, views: Views | None) -> Mesh:
    """As `mesh_of_field`, of `grid [R, R, R]` (x, y, z) on [-1, 1]^3, whose surface is at `level` and whose inside is
    above; on the CPU and without colours."""
    if settings.max_gap and views is not None:
        grid = bridge_pieces(grid, level, lambda points: _unseen(points, views), max_gap=settings.max_gap)
    mesh = meshing.extract_mesh(grid, level=level, min_fraction=settings.min_fraction)
    mesh = meshing.decimate(meshing.smooth(mesh, settings.smooth), settings.target_faces)
    return meshing.drop_small_pieces(mesh, min_fraction=settings.min_fraction, min_extent=settings.min_extent)


@torch.no_grad()
def surface_color(field: Field, points: Tensor) -> Tensor:
    """sRGB `[K, 3]` of surface points `[K, 3]`, read a little inside: outside, colour was never seen."""
    inward = -field.normals_at(points) * field.detail
    colors = field.density_and_color(points + inward)[1]
    return field.to_rgb(colors).clamp(0.0, 1.0) if field.num_channels != 3 else colors


def _unseen(points: Tensor, views: Views) -> Tensor:
    """Which of `points [K, 3]` hardly any view sees to be empty: `[K]` bool."""
    empty = look_up(views.masks, views.cameras, points.to(views.masks.device))[:, 0] < 0.5
    return empty.float().mean(dim=0) <= _SEEN_THROUGH
