"""A cube filled with tetrahedra, and the surface where signed distances on its vertices are zero.

The grid is the body-centred cubic lattice: the corners of a cube's cells and their centres. Two cells that share a
square have one tetrahedron on each of its edges: the two centres and the edge's ends. All tetrahedra are congruent.

Legend: G grid vertices, T tetrahedra, E edges of the grid; N vertices and M faces of a surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Corners of a tetrahedron that its edges join; a surface has at most one vertex on each.
EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
# Even permutations of the corners, by which all cases follow from two: a mirrored one would turn faces inside out.
_ONE_INSIDE = ((0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0))
_TWO_INSIDE = ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2), (1, 2, 0, 3), (1, 3, 2, 0), (2, 3, 0, 1))


def _cases() -> list[list[tuple[int, int, int]]]:
    """For each of the 16 cases (bit i: corner i is inside) its faces, as edges of the tetrahedron, counter-clockwise
    from outside."""

    def edge(a: int, b: int) -> int:
        return EDGES.index((min(a, b), max(a, b)))

    cases: list[list[tuple[int, int, int]]] = [[] for _ in range(16)]
    for a, b, c, d in _ONE_INSIDE:
        cut = (edge(a, b), edge(a, c), edge(a, d))
        cases[1 << a] = [cut]
        cases[15 - (1 << a)] = [(cut[0], cut[2], cut[1])]
    for a, b, c, d in _TWO_INSIDE:
        ring = (edge(a, c), edge(a, d), edge(b, d), edge(b, c))
        cases[(1 << a) + (1 << b)] = [(ring[0], ring[1], ring[2]), (ring[0], ring[2], ring[3])]
    return cases


CASES = _cases()


@dataclass(frozen=True, eq=False)
class TetGrid:
    """points: [G, 3] float32. tets: [T, 4] int64, the determinant of each positive. edges: [E, 2] int64, the lower
    vertex first. tet_edges: [T, 6] int64 into the edges, in the order of `EDGES`. border: [G] bool, the outermost
    corners and centres. spacing: edge of a cubic cell in world units. resolution: cells along an edge.
    """

    resolution: int
    points: Tensor
    tets: Tensor
    edges: Tensor
    tet_edges: Tensor
    border: Tensor
    spacing: float

    def smooth(self, values: Tensor, num_times: int) -> Tensor:
        """`values [G, C]`, each `num_times` mixed half and half with the mean of its up to eight nearest of the other
        kind, corners and centres: linear, and differentiable."""
        n, m = self.resolution, self.resolution + 1
        corners, centres = values.T.split([m**3, n**3], dim=1)
        corners, centres = corners.reshape(-1, m, m, m), centres.reshape(-1, n, n, n)
        for _ in range(num_times):
            around_corners = F.avg_pool3d(F.pad(centres, (1,) * 6, mode="replicate"), 2, stride=1)
            around_centres = F.avg_pool3d(corners, 2, stride=1)
            corners, centres = 0.5 * (corners + around_corners), 0.5 * (centres + around_centres)
        return torch.cat([corners.flatten(1), centres.flatten(1)], dim=1).T

    def cut(self, inside: Tensor) -> Cut:
        """The surface between the vertices that are `inside [G]` (bool, none of the border) and the others."""
        bits = torch.tensor([1, 2, 4, 8], dtype=torch.uint8, device=inside.device)
        case = (inside.to(torch.uint8)[self.tets] * bits).sum(dim=1, dtype=torch.uint8)
        mixed = ((case > 0) & (case < 15)).nonzero()[:, 0]
        case, tet_edges = case[mixed], self.tet_edges[mixed]
        faces = []
        for index, triangles in enumerate(CASES):
            chosen = tet_edges[case == index] if triangles else None
            faces += [] if chosen is None else [chosen[:, list(triangle)] for triangle in triangles]
        found = torch.cat(faces)
        used = torch.zeros(len(self.edges), dtype=torch.bool, device=inside.device)
        used[found.reshape(-1)] = True
        number = used.cumsum(0) - 1
        return Cut(ends=self.edges[used], faces=number[found])


@dataclass(frozen=True, eq=False)
class Cut:
    """ends: [N, 2] int64, the grid vertices, one inside and one outside, between which each vertex of the surface
    lies. faces: [M, 3] int64, counter-clockwise from outside. The surface is closed and every edge joins two faces."""

    ends: Tensor
    faces: Tensor


@lru_cache(maxsize=4)
def tet_grid(resolution: int, device: torch.device | str = "cpu") -> TetGrid:
    """A grid of `resolution`^3 cubic cells of which the inner `resolution` - 2 fill [-1, 1]^3."""
    n, m = resolution, resolution + 1
    spacing = 2.0 / (n - 2)
    corner = np.arange(m**3).reshape(m, m, m)
    centre = m**3 + np.arange(n**3).reshape(n, n, n)
    tets = []
    for axis in range(3):
        # Axis first: pairs of cells that follow each other along it, and the square between them.
        corners, centres = np.moveaxis(corner, axis, 0)[1:-1], np.moveaxis(centre, axis, 0)
        square = [corners[:, :-1, :-1], corners[:, 1:, :-1], corners[:, 1:, 1:], corners[:, :-1, 1:]]
        for first, second in zip(square, [*square[1:], square[0]], strict=True):
            tets.append(np.stack([centres[:-1], centres[1:], first, second], axis=-1).reshape(-1, 4))
    tet = np.concatenate(tets)
    steps = [np.arange(m) - n / 2, np.arange(n) + 0.5 - n / 2]
    points = np.concatenate(
        [np.stack(np.meshgrid(s, s, s, indexing="ij"), axis=-1).reshape(-1, 3) for s in steps]
    )
    sides = points[tet[:, 1:]] - points[tet[:, :1]]
    tet[:, 2:] = np.where(np.linalg.det(sides)[:, None] > 0, tet[:, 2:], tet[:, :1:-1])
    pairs = np.sort(tet[:, np.array(EDGES)], axis=-1).reshape(-1, 2)
    keys, index = np.unique(pairs[:, 0] * len(points) + pairs[:, 1], return_inverse=True)
    outermost = np.abs(points).max(axis=1) > n / 2 - 0.75

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    return TetGrid(
        resolution=resolution,
        points=tensor((points * spacing).astype(np.float32)),
        tets=tensor(tet.astype(np.int64)),
        edges=tensor(np.stack([keys // len(points), keys % len(points)], axis=1).astype(np.int64)),
        tet_edges=tensor(index.reshape(-1, 6).astype(np.int64)),
        border=tensor(outermost),
        spacing=spacing,
    )
