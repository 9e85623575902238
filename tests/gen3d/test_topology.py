"""Edges, neighbours and face pairs of a tetrahedron, of a fan of faces on one edge, and of nothing."""

from __future__ import annotations

import torch

from gen3d.topology import (
    Topology,
    adjacency,
    closed_edges,
    directed_edges,
    face_pairs,
    mesh_edges,
    weld_index,
)

TETRAHEDRON = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
FAN = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]])
NOTHING = torch.zeros(0, 3, dtype=torch.int64)


def test_every_pair_of_a_tetrahedrons_corners_is_an_edge_of_two_faces() -> None:
    ends = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert sorted(closed_edges(TETRAHEDRON).tolist()) == ends
    edges = mesh_edges(TETRAHEDRON)
    assert edges[:, :2].tolist() == ends
    # The two corners that an edge does not have lie opposite to it.
    assert all(sorted(edge) == [0, 1, 2, 3] for edge in edges.tolist())
    assert sorted(sorted(pair) for pair in face_pairs(TETRAHEDRON).tolist()) == ends
    assert adjacency(TETRAHEDRON, 4).toarray().tolist() == (1 - torch.eye(4)).tolist()


def test_an_edge_of_three_faces_is_one_edge_one_pair_and_one_neighbourhood() -> None:
    edges = mesh_edges(FAN)
    assert edges[edges[:, 0] + edges[:, 1] == 1].tolist() == [[0, 1, 2, 3]]
    assert (edges[:, 3] == -1).sum() == 6
    assert face_pairs(FAN).tolist() == [[0, 1]]
    assert adjacency(FAN, 6).toarray()[0].tolist() == [0, 1, 1, 1, 1, 0]


def test_welded_vertices_join_faces() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [-0.0, 0, 0], [0, -1, 0]])
    faces = torch.tensor([[0, 1, 2], [4, 5, 3]])
    assert weld_index(vertices).tolist() == [0, 1, 2, 1, 0, 5]
    assert (mesh_edges(faces)[:, 3] >= 0).sum() == 0
    assert Topology.of(vertices, faces).edges[:, 3].tolist().count(-1) == 4


def test_no_faces_have_no_edges() -> None:
    assert directed_edges(NOTHING).shape == closed_edges(NOTHING).shape == face_pairs(NOTHING).shape == (0, 2)
    assert mesh_edges(NOTHING).shape == (0, 4)
    assert adjacency(NOTHING, 3).nnz == 0
