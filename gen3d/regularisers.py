"""Regularisers of fields and meshes. Each returns a scalar; weights are the caller's.

Legend: N rays, S samples a ray, K evaluated samples, M faces, E edges.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sparsity(opacity: Tensor) -> Tensor:
    """mean sqrt(o^2 + 0.01) of `opacity [N]`: prefers rays that hit nothing."""
    return (opacity.square() + 0.01).sqrt().mean()


def opaque(opacity: Tensor) -> Tensor:
    """Binary entropy of `opacity [N]`: prefers rays that are stopped or pass, not half and half."""
    clamped = opacity.clamp(1e-3, 1.0 - 1e-3)
    return -(clamped * clamped.log() + (1.0 - clamped) * (1.0 - clamped).log()).mean()


def orient(weights: Tensor, normals: Tensor, directions: Tensor, num_hit: Tensor | int) -> Tensor:
    """Ref-NeRF's penalty on visible samples whose normal faces away: sum sg(w) max(n . d, 0)^2 / number of rays hit.

    weights: `[K]`; normals, directions: `[K, 3]` unit, directions from the camera.
    """
    facing = (normals * directions).sum(dim=-1).clamp_min(0.0)
    return (weights.detach() * facing.square()).sum() / max(int(num_hit), 1)


def distortion(weights: Tensor, t: Tensor, step: Tensor) -> Tensor:
    """Mip-NeRF 360's distortion (arXiv 2111.12077), mean over rays: pulls each ray's weight into one place.

    weights, t: `[N, S]` with t rising along each ray; step: `[N]` or `[N, S]` length of a sample.
    """
    mass, moment = weights.cumsum(dim=1) - weights, (weights * t).cumsum(dim=1) - weights * t
    between = 2.0 * (weights * (t * mass - moment)).sum(dim=1)
    square = weights.square()
    within = (square.sum(dim=1) * step if step.ndim == 1 else (square * step).sum(dim=1)) / 3.0
    return (between + within).mean()


def z_variance(weights: Tensor, t: Tensor, opacity: Tensor) -> Tensor:
    """HiFA's variance of depth along a ray (arXiv 2305.18766), mean over the rays with an opacity above 0.5: the
    surface that they meet is thin. 0 where there is none.

    weights, t: `[N, S]`; opacity: `[N]`, the sums of the weights.
    """
    solid = opacity.detach() > 0.5
    share = weights[solid] / opacity[solid, None]
    depth = (share * t[solid]).sum(dim=1, keepdim=True)
    variance = (share * (t[solid] - depth).square()).sum(dim=1)
    return variance.sum() / max(len(variance), 1)


def laplacian(vertices: Tensor, edges: Tensor) -> Tensor:
    """mean |L v|, L v the difference of a vertex and the mean of its neighbours; edges `[E, 2]` undirected."""
    both = torch.cat([edges, edges.flip(1)])
    total = torch.zeros_like(vertices).index_add(0, both[:, 0], vertices[both[:, 1]])
    degree = torch.zeros(len(vertices), device=vertices.device).index_add(
        0, both[:, 0], torch.ones(len(both), device=vertices.device)
    )
    difference = total / degree.clamp_min(1.0)[:, None] - vertices
    return (difference.square().sum(dim=-1) + 1e-20).sqrt().mean()


def normal_consistency(vertices: Tensor, faces: Tensor, pairs: Tensor) -> Tensor:
    """mean (1 - cos) between the normals of faces that share an edge; faces `[M, 3]`, pairs `[E, 2]` of faces."""
    corners = vertices[faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # Scaled up first: the cross product of small edges is far below normalize's floor.
    normals = F.normalize(normals / normals.detach().norm(dim=-1, keepdim=True).clamp_min(1e-20), dim=-1)
    return (1.0 - (normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(dim=-1)).mean()
