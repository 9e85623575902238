"""Scores of a mesh against a known truth, given as functions of space.

Truth: sdf_fn(points [N, 3]) -> [N] signed distances, negative inside; albedo_fn(points [N, 3]) -> [N, 3] sRGB in
[0, 1]. World units: an asset fits the unit sphere. Everything runs on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from gen3d.asset import Mesh
from gen3d.color import srgb_to_linear
from gen3d.meshing import is_watertight, num_components
from gen3d.texture import surface_colors

__all__ = [
    "albedo_error",
    "chamfer",
    "fscore",
    "is_watertight",
    "num_components",
    "occupancy_grid",
    "psnr",
    "sample_surface",
    "volume_iou",
]

_CHUNK = 1 << 18
# Columns are cast a hair off the cell centres: a mesh made on the same grid has its edges exactly there.
_NUDGE = np.array([1.234e-7, 2.718e-7])


def psnr(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of values in [0, 1], inf for equal ones.

    mask: bool, broadcastable: only these pixels count.
    """
    if image.shape != target.shape:
        raise ValueError(
            f"image and target must have one shape, got {list(image.shape)} and {list(target.shape)}"
        )
    squared = (image.detach().double() - target.detach().double()).square()
    if mask is not None:
        squared = squared[mask.expand_as(squared)]
    if squared.numel() == 0:
        raise ValueError("psnr needs at least one pixel; the mask leaves none")
    error = float(squared.mean())
    return math.inf if error == 0.0 else -10.0 * math.log10(error)


def _cell_centres(resolution: int, bounds: float) -> np.ndarray:
    return ((np.arange(resolution) + 0.5) / resolution * 2.0 - 1.0) * bounds


def mesh_occupancy(mesh: Mesh, resolution: int = 128, bounds: float = 1.0) -> np.ndarray:
    """[R, R, R] bool (x, y, z): cell centres inside the mesh, by the winding number along z.

    The mesh must be closed. Overlapping pieces count once; what lies outside the cube of half side `bounds` is cut.
    """
    corners = mesh.vertices.detach().cpu().double().numpy()[mesh.faces.cpu().numpy()]  # [M, 3, 3]
    centres = _cell_centres(resolution, bounds)
    xs, ys = centres + _NUDGE[0] * bounds, centres + _NUDGE[1] * bounds
    first_x = np.searchsorted(xs, corners[:, :, 0].min(1))
    first_y = np.searchsorted(ys, corners[:, :, 1].min(1))
    count_x = np.maximum(np.searchsorted(xs, corners[:, :, 0].max(1), side="right") - first_x, 0)
    count_y = np.maximum(np.searchsorted(ys, corners[:, :, 1].max(1), side="right") - first_y, 0)
    count = count_x * count_y
    face = np.repeat(np.arange(len(corners)), count)
    local = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
    column_x = first_x[face] + local // count_y[face]
    column_y = first_y[face] + local % count_y[face]
    a, b, c = (corners[face, i] for i in range(3))
    x, y = xs[column_x], ys[column_y]

    def weight(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        # The ends are put in one order, so that two faces judge a shared edge by the very same number.
        swap = (p[:, 0] > q[:, 0]) | ((p[:, 0] == q[:, 0]) & (p[:, 1] > q[:, 1]))
        first, second = np.where(swap[:, None], q, p), np.where(swap[:, None], p, q)
        cross = (second[:, 0] - first[:, 0]) * (y - first[:, 1]) - (second[:, 1] - first[:, 1]) * (
            x - first[:, 0]
        )
        return np.where(swap, -cross, cross)

    wa, wb, wc = weight(b, c), weight(c, a), weight(a, b)
    # By the sign bit, a column exactly on an edge (0 for one face, -0 for the other) belongs to just one of them.
    negative = np.signbit(wa).astype(np.int8) + np.signbit(wb) + np.signbit(wc)
    upwards, downwards = negative == 0, negative == 3
    total = wa + wb + wc
    hit = (upwards | downwards) & (total != 0.0)
    z = (wa * a[:, 2] + wb * b[:, 2] + wc * c[:, 2])[hit] / total[hit]
    # An outward face that looks up closes the solid above it, one that looks down opens it.
    change = np.where(upwards[hit], -1, 1)
    start = np.clip(np.searchsorted(centres, z), 0, resolution)
    winding = np.zeros((resolution, resolution, resolution + 1), dtype=np.int32)
    np.add.at(winding, (column_x[hit], column_y[hit], start), change)
    return np.cumsum(winding, axis=2)[:, :, :resolution] > 0


def occupancy_grid(
    occupancy_fn: Callable[[Tensor], Tensor], resolution: int = 128, bounds: float = 1.0
) -> np.ndarray:
    """[R, R, R] bool (x, y, z): occupancy_fn(points [N, 3]) -> [N] bool at the cell centres."""
    centres = torch.from_numpy(_cell_centres(resolution, bounds)).float()
    grid = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), dim=-1).reshape(-1, 3)
    with torch.no_grad():
        inside = torch.cat([occupancy_fn(part).cpu() for part in grid.split(_CHUNK)])
    if inside.shape != grid.shape[:1] or inside.dtype != torch.bool:
        raise ValueError(
            f"occupancy_fn must return bool [N] for [N, 3], got {inside.dtype} {list(inside.shape)}"
        )
    return inside.reshape(resolution, resolution, resolution).numpy()


def volume_iou(
    shape: Mesh | Callable[[Tensor], Tensor],
    sdf_fn: Callable[[Tensor], Tensor],
    *,
    resolution: int = 128,
    bounds: float = 1.0,
) -> float:
    """Intersection over union in [0, 1] on the cell centres of a resolution^3 grid over [-bounds, bounds]^3.

    shape: a closed mesh, or occupancy_fn(points [N, 3]) -> [N] bool.
    """
    if resolution < 2:
        raise ValueError(f"resolution must be at least 2, got {resolution}")
    if isinstance(shape, Mesh):
        if not is_watertight(shape):
            raise ValueError("volume_iou needs a watertight mesh: an open one has no inside")
        ours = mesh_occupancy(shape, resolution, bounds)
    else:
        ours = occupancy_grid(shape, resolution, bounds)
    truth = occupancy_grid(lambda points: sdf_fn(points) < 0.0, resolution, bounds)
    union = int((ours | truth).sum())
    return 1.0 if union == 0 else int((ours & truth).sum()) / union


def sample_surface(
    mesh: Mesh, num_samples: int, *, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Points [K, 3] spread evenly over the area, their faces [K] and barycentric weights [K, 3]."""
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    vertices, faces = mesh.vertices.detach().cpu(), mesh.faces.cpu()
    corners = vertices[faces].double()
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    total = area.cumsum(0)
    if len(total) == 0 or float(total[-1]) <= 0.0:
        raise ValueError("mesh has no area to sample")
    # Stratified: one point in every equal share of the area.
    share = (
        torch.arange(num_samples) + torch.rand(num_samples, generator=generator, dtype=torch.float64)
    ) / num_samples
    index = torch.searchsorted(total, share * total[-1], right=True).clamp_max(len(total) - 1)
    u, v = torch.rand(2, num_samples, generator=generator, dtype=torch.float64)
    root = u.sqrt()
    weights = torch.stack([1.0 - root, root * (1.0 - v), root * v], dim=-1)
    points = (corners[index] * weights[..., None]).sum(1)
    return points.float(), index, weights.float()


def _nearest(points: Tensor, others: Tensor) -> np.ndarray:
    for name, value in (("first", points), ("second", others)):
        if value.ndim != 2 or value.shape[1] != 3 or len(value) == 0:
            raise ValueError(
                f"the {name} point set must have shape [N, 3] with N > 0, got {list(value.shape)}"
            )
    distance, _ = KDTree(others.double().numpy()).query(points.double().numpy())
    return np.asarray(distance)


def chamfer(points: Tensor, reference: Tensor) -> float:
    """Mean of the two mean distances to the nearest point of the other set ([N, 3], [K, 3]), in world units."""
    return float(0.5 * (_nearest(points, reference).mean() + _nearest(reference, points).mean()))


def fscore(points: Tensor, reference: Tensor, threshold: float = 0.02) -> float:
    """Harmonic mean of precision and recall in [0, 1]: the shares of points within threshold of the other set."""
    if threshold <= 0.0:
        raise ValueError(f"threshold must be positive, got {threshold}")
    precision = float((_nearest(points, reference) <= threshold).mean())
    recall = float((_nearest(reference, points) <= threshold).mean())
    return 0.0 if precision + recall == 0.0 else 2.0 * precision * recall / (precision + recall)


def albedo_error(
    mesh: Mesh,
    albedo_fn: Callable[[Tensor], Tensor],
    *,
    generator: torch.Generator,
    num_samples: int = 20_000,
) -> float:
    """Mean absolute difference in linear [0, 1] of the mesh's base colour and the truth, over the mesh's surface."""
    mesh = mesh.detach().to("cpu")
    points, index, weights = sample_surface(mesh, num_samples, generator=generator)
    ours = surface_colors(mesh, index, weights).clamp(0.0, 1.0)
    with torch.no_grad():
        truth = albedo_fn(points).cpu().clamp(0.0, 1.0)
    if truth.shape != ours.shape:
        raise ValueError(f"albedo_fn must return [N, 3] for [N, 3] points, got {list(truth.shape)}")
    return float((srgb_to_linear(ours) - srgb_to_linear(truth)).abs().mean())
