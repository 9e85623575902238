"""What the benchmark of speed draws: shapes and rays, made by code, the same every time."""

from __future__ import annotations

import torch
from torch import Tensor

from gen3d.cameras import Cameras, orbit


def bumpy_sphere(subdivisions: int) -> tuple[Tensor, Tensor]:
    """A closed surface of 20 x 4^subdivisions faces, about 0.8 from the origin: vertices `[N, 3]`, faces `[M, 3]`."""
    golden = (1.0 + 5.0**0.5) / 2.0
    corners = [
        (-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0), (0, -1, golden), (0, 1, golden),
        (0, -1, -golden), (0, 1, -golden), (golden, 0, -1), (golden, 0, 1), (-golden, 0, -1), (-golden, 0, 1),
    ]  # fmt: skip
    faces = torch.tensor([
        (0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6),
        (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7),
        (9, 8, 1),
    ])  # fmt: skip
    vertices = torch.nn.functional.normalize(torch.tensor(corners), dim=-1)
    for _ in range(subdivisions):
        edges = faces[:, [0, 1, 1, 2, 2, 0]].view(-1, 2).sort(dim=1).values
        unique, which = edges.unique(dim=0, return_inverse=True)
        middles = torch.nn.functional.normalize(vertices[unique].sum(dim=1), dim=-1)
        a, b, c = faces.unbind(1)
        ab, bc, ca = (which.view(-1, 3) + len(vertices)).unbind(1)
        corners_of = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        faces = torch.stack([torch.stack(each, dim=1) for each in corners_of], dim=1).view(-1, 3)
        vertices = torch.cat([vertices, middles])
    bumps = torch.sin(7.0 * vertices).prod(dim=-1, keepdim=True)
    return vertices * (0.8 + 0.1 * bumps), faces


def view(fovy_deg: float = 40.0) -> Cameras:
    """One camera, aslant."""
    return orbit(30.0, 20.0, fovy_deg=fovy_deg, distance=3.2)


def rays_through(size: int) -> tuple[Tensor, Tensor]:
    """Origins and unit directions `[size^2, 3]`, all of which cross the cube [-1, 1]^3."""
    origins, directions = view(fovy_deg=24.0).rays(size, size)
    return origins.reshape(-1, 3), directions.reshape(-1, 3)
