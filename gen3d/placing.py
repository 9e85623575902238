"""Puts a mesh of any size and place into the unit sphere, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gen3d.asset import Mesh


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """How a mesh was moved, then scaled, about the origin: x becomes (x - center) * scale.

    center: in the units that the mesh had. scale: world units for each of those, > 0. The axes stay.
    """

    center: tuple[float, float, float]
    scale: float

    def __call__(self, mesh: Mesh) -> Mesh:
        """The mesh, moved and scaled."""
        return mesh.replace(vertices=((mesh.vertices.double() - self._row(mesh)) * self.scale).float())

    def undo(self, mesh: Mesh) -> Mesh:
        """A mesh in the unit sphere, back where it came from."""
        return mesh.replace(vertices=(mesh.vertices.double() / self.scale + self._row(mesh)).float())

    def _row(self, mesh: Mesh) -> Tensor:
        return torch.tensor(self.center, dtype=torch.float64, device=mesh.device)


def into_unit_sphere(mesh: Mesh, radius: float = 1.0) -> tuple[Mesh, Placement]:
    """The mesh with the middle of its box at the origin and its farthest vertex at `radius`, and how it got there.

    Its axes stay as they are: +Y counts as up, and +Z as its front. radius: in (0, 1].
    """
    if not 0.0 < radius <= 1.0:
        raise ValueError(f"radius must lie above 0 and up to 1, got {radius:g}")
    vertices = mesh.vertices.detach().double()
    if len(vertices) == 0:
        raise ValueError("mesh has no vertices, so there is nothing to place.")
    center = (vertices.amin(dim=0) + vertices.amax(dim=0)) / 2.0
    reach = float((vertices - center).norm(dim=1).max())
    if reach == 0.0:
        raise ValueError("all vertices of mesh are at one point.")
    x, y, z = center.tolist()
    # A little smaller than needed, so that rounding puts no vertex outside.
    placement = Placement(center=(x, y, z), scale=radius / (reach * (1.0 + 1e-6)))
    return placement(mesh), placement
