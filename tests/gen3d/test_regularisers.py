"""Regularisers against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from gen3d.regularisers import (
    distortion,
    laplacian,
    normal_consistency,
    opaque,
    orient,
    sparsity,
)
from gen3d.topology import face_pairs


def test_opacity_regularisers_golden() -> None:
    assert float(sparsity(torch.tensor([0.0, 1.0]))) == pytest.approx((0.1 + math.sqrt(1.01)) / 2)
    assert float(opaque(torch.tensor([0.5]))) == pytest.approx(math.log(2.0))
    assert float(opaque(torch.tensor([0.0, 1.0]))) < 0.01


def test_orient_counts_only_what_faces_away_and_not_through_weights() -> None:
    weights = torch.tensor([0.5, 0.5], requires_grad=True)
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], requires_grad=True)
    loss = orient(weights, normals, torch.tensor([[0.0, 0.0, -1.0]]).expand(2, 3), 2)
    assert float(loss.detach()) == pytest.approx(0.25)
    loss.backward()
    assert weights.grad is None
    assert normals.grad is not None
    assert not normals.grad[0].any()


def test_distortion_is_the_double_sum() -> None:
    weights, t = (
        torch.rand(3, 6, generator=torch.Generator().manual_seed(0)),
        torch.arange(6.0).expand(3, 6) * 0.1,
    )
    step = torch.full((3,), 0.1)
    pairs = (weights[:, :, None] * weights[:, None] * (t[:, :, None] - t[:, None]).abs()).sum((1, 2))
    expected = (pairs + (weights.square() * 0.1).sum(1) / 3).mean()
    assert float(distortion(weights, t, step)) == pytest.approx(float(expected), rel=1e-5)
    assert float(distortion(weights, t, step[:, None].expand_as(t))) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_mesh_regularisers_on_a_cube() -> None:
    corners = torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))])
    pairs = face_pairs(faces)
    assert pairs.shape == (18, 2)
    # 12 right angles between sides, 6 flat diagonals.
    assert float(normal_consistency(corners, faces, pairs)) == pytest.approx(12 / 18, rel=1e-5)
    assert float(normal_consistency(1e-5 * corners, faces, pairs)) == pytest.approx(12 / 18, rel=1e-4)
    line = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 3.0, 0.0]])
    edges = torch.tensor([[0, 1], [1, 2]])
    expected = (1.0 + 1.5 + math.sqrt(10.0)) / 3
    assert float(laplacian(line, edges)) == pytest.approx(expected, rel=1e-5)
