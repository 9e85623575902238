"""How the faces of a mesh hang together: edges, neighbours, faces that share an edge, vertices at one place.

Legend: N vertices, M faces, E edges. Faces `[M, 3]` int64 wind counter-clockwise seen from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


def directed_edges(faces: Tensor) -> Tensor:
    """The edges `[3 M, 2]` that faces walk along: the first edge of every face, then the second, then the third."""
    return torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def closed_edges(faces: Tensor) -> Tensor:
    """The undirected edges `[E, 2]` of a closed mesh, each once."""
    edges = directed_edges(faces)
    return edges[edges[:, 0] < edges[:, 1]]


def _grouped_edges(faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The undirected edges of a mesh: their ends `[E, 2]`, in ascending order, and for each which two of
    `directed_edges` lie on it, `[E]` and `[E]`; the second is -1 on a border. Of more than two it names two."""
    ends = directed_edges(faces).sort(dim=1).values
    if len(ends) == 0:
        return ends, ends[:, 0], ends[:, 0]
    key = ends[:, 0] * (int(faces.max()) + 1) + ends[:, 1]
    key, order = key.sort(stable=True)
    is_first = torch.ones_like(key, dtype=torch.bool)
    is_first[1:] = key[1:] != key[:-1]
    start = is_first.nonzero()[:, 0]
    following = (start + 1).clamp_max(len(key) - 1)
    paired = (start + 1 < len(key)) & (key[following] == key[start])
    second = torch.where(paired, order[following], torch.full_like(start, -1))
    return ends[order[start]], order[start], second


def face_pairs(faces: Tensor) -> Tensor:
    """The faces that share an edge: `[E, 2]` int64; an edge of more than two faces gives one pair."""
    _, first, second = _grouped_edges(faces)
    paired = second >= 0
    return torch.stack([first[paired], second[paired]], dim=1) % max(len(faces), 1)


def mesh_edges(faces: Tensor, weld: Tensor | None = None) -> Tensor:
    """The undirected edges of a mesh as `[E, 4]` int64: both ends, then the opposite corner on each side.

    The last entry is -1 on a border. weld: `[N]` (see `weld_index`), makes faces meet across UV seams. An edge of more
    than two faces keeps two of them.
    """
    if weld is not None:
        faces = weld[faces]
    ends, first, second = _grouped_edges(faces)
    opposite = torch.cat([faces[:, 2], faces[:, 0], faces[:, 1]])
    far = torch.where(second >= 0, opposite[second], second)
    return torch.cat([ends, opposite[first, None], far[:, None]], dim=1)


def adjacency(faces: Tensor, num_vertices: int) -> sparse.csr_array:
    """`[N, N]` float64, 1 where an edge joins two vertices, however many faces name it."""
    pairs = directed_edges(faces).cpu().numpy()
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    size = (num_vertices, num_vertices)
    graph = sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=size).tocsr()
    graph.data[:] = 1.0
    return graph


def weld_index(vertices: Tensor) -> Tensor:
    """`[N]` int64: for each vertex `[N, 3]` the first vertex at exactly the same position (across UV seams)."""
    _, group = torch.unique(vertices.detach() + 0.0, dim=0, return_inverse=True)
    count = int(group.max()) + 1 if len(group) else 0
    index = torch.arange(len(group), device=group.device)
    first = torch.full((count,), len(group), device=group.device, dtype=torch.int64)
    return first.scatter_reduce(0, group, index, reduce="amin")[group]


@dataclass(frozen=True, eq=False)
class Topology:
    """What stays the same while vertices move: make it once for an optimisation loop.

    weld: `[N]` int64, see `weld_index`. edges: `[E, 4]` int64, see `mesh_edges`.
    """

    weld: Tensor
    edges: Tensor

    @staticmethod
    def of(vertices: Tensor, faces: Tensor) -> Topology:
        """The topology of vertices `[N, 3]` and faces `[M, 3]`, joined across UV seams."""
        weld = weld_index(vertices)
        return Topology(weld, mesh_edges(faces, weld))
