"""What a mesh is within, for fields that begin with one."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import KDTree
from torch import Tensor

from gen3d.asset import Mesh
from gen3d.meshing import is_watertight
from gen3d.metrics import mesh_occupancy, sample_surface
from gen3d.representations.config import VolumeConfig
from gen3d.representations.volume import Volume
from gen3d.texture import surface_colors

# Cells along a voxel's edge in which it is asked what lies inside.
_FINER = 4
_COLOR_SAMPLES = 50_000


def solid_of_mesh(mesh: Mesh, resolution: int) -> tuple[Tensor, Tensor]:
    """How much `mesh`, closed and within the unit sphere, fills of each place of a grid over the cube: `[n, n, n]` in
    [0, 1], and the colour of the nearest place on its surface, `[n, n, n, 3]`; both on the CPU. ValueError for a mesh
    that is not closed, for it has no inside."""
    if not is_watertight(mesh):
        raise ValueError(
            "the mesh to begin with is not closed, so nothing is inside it; close its holes first"
        )
    mesh = mesh.detach().to("cpu")
    spacing = 2.0 / (resolution - 1)
    # Places stand on -1 and 1, cells between such faces: half a step more on each side.
    inside = mesh_occupancy(mesh, resolution * _FINER, 1.0 + spacing / 2)
    solid = F.avg_pool3d(torch.from_numpy(inside).float()[None, None], _FINER)[0, 0]
    generator = torch.Generator().manual_seed(0)
    points, faces, weights = sample_surface(mesh, _COLOR_SAMPLES, generator=generator)
    colors = surface_colors(mesh, faces, weights)
    axis = torch.linspace(-1.0, 1.0, resolution)
    places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    _, nearest = KDTree(points.numpy()).query(places.numpy())
    return solid, colors[torch.from_numpy(np.asarray(nearest))].view(*solid.shape, 3)


def volume_of_mesh(mesh: Mesh, settings: VolumeConfig, device: torch.device | str = "cpu") -> Volume:
    """`mesh`, closed and within the unit sphere, at the first of the settings' resolutions.

    The raw density is +-0.5 inside and outside with a ramp of a voxel between, and every voxel has the colour of the
    nearest place on the surface, or zero for latents. ValueError for a mesh that is not closed.
    """
    solid, colors = solid_of_mesh(mesh, settings.resolutions[0])
    raw = torch.logit(colors.clamp(0.02, 0.98))
    if settings.latents:
        raw = torch.zeros(*solid.shape, settings.num_channels)
    grid = torch.cat([solid[..., None] - 0.5, raw], dim=-1)
    return Volume(grid.to(device), settings)
