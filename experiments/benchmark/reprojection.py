"""Do the views of one object agree? Points of the true surface that two cameras see should have one colour in both.

The true depth of one view says where each of its pixels lies in the world, hence where the next camera sees it, and
the next view's true depth whether anything hides it there. A picture's own depth is not known, so an object of other
proportions than the truth counts as a disagreement too: the world's own pictures in other proportions show how much.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.views import Views

# How far apart in world units two depths of one surface point may lie: less than a pixel is wide at a slope of 60 deg.
TOLERANCE = 0.03
# Fewer common pixels than this say nothing about a pair of pictures.
LEAST_PIXELS = 16


def view_difference(
    depth: Tensor, cameras: Cameras, images: Tensor, others: Tensor | None = None
) -> float | None:
    """Mean absolute difference of colour between adjacent views, over the pixels of which both see the same point.

    Each view is compared with the next one around the ring. Pixels that show the background in both pictures agree
    about nothing and are left out, so a blank picture does not pass for a consistent one.

    Args:
        depth: [V, S, S] true distance along the ray, 0 where nothing is hit.
        cameras: V, evenly around the object.
        images: [V, 3, S, S] sRGB in [0, 1].
        others: the pictures that stand for the next views; None takes `images` itself.

    Returns:
        In [0, 1], 0 for views that agree. None with one view, or when fewer than LEAST_PIXELS are to be compared.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be [V, 3, S, S], got {list(images.shape)}")
    if depth.shape != (len(images), *images.shape[2:]) or len(cameras) != len(images):
        raise ValueError(
            f"depth and cameras must be those of the {len(images)} pictures of {images.shape[-1]} pixels, "
            f"got depth {list(depth.shape)} and {len(cameras)} cameras"
        )
    others = images if others is None else others
    shown, shown_other = (Views.from_images(each, cameras).masks for each in (images, others))
    differences = []
    for first in range(len(images) if len(images) > 1 else 0):
        second = (first + 1) % len(images)
        row, column, place = common_points(depth, cameras, first, second)
        here = torch.cat([images[first], shown[first]])[:, row, column]
        there = _sample(torch.cat([others[second], shown_other[second]]), place)
        seen = (here[3] > 0.5) | (there[3] > 0.5)
        differences.append((here[:3] - there[:3]).abs().mean(0)[seen])
    compared = torch.cat(differences) if differences else torch.empty(0)
    return float(compared.mean()) if len(compared) >= LEAST_PIXELS else None


def common_points(depth: Tensor, cameras: Cameras, first: int, second: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of view `first` whose surface point view `second` sees too.

    Returns:
        row and column [N] in `first`, and where the points lie in `second`: [N, 2], x right and y down, both in
        [-1, 1] from border to border of the picture. Silhouettes are left out, because background bleeds into them.
    """
    inside = _eroded(depth)
    row, column = inside[first].nonzero(as_tuple=True)
    origins, directions = cameras[[first]].rays(*depth.shape[1:])
    points = origins[0, row, column] + directions[0, row, column] * depth[first, row, column, None]
    camera = cameras[[second]]
    (place,), (ahead,) = camera.project(points)
    maps = torch.stack([depth[second], inside[second].float()])
    distance, solid = _sample(maps, place, mode="nearest")
    expected = (points - camera.positions[0]).norm(dim=-1)
    both = (solid > 0.5) & ((distance - expected).abs() < TOLERANCE) & (ahead > 0)
    return row[both], column[both], place[both]


def silhouette_iou(depth: Tensor, masks: Tensor) -> float:
    """Intersection over union in [0, 1], all views together, of the true silhouettes (depth [V, S, S] above 0) and
    masks [V, 1, S, S] (above 0.5)."""
    found = masks[:, 0] > 0.5
    union = int((found | (depth > 0)).sum())
    return int((found & (depth > 0)).sum()) / union if union else 1.0


def _eroded(depth: Tensor) -> Tensor:
    """[V, S, S] bool: pixels that hit something, all eight neighbours too."""
    return F.max_pool2d((depth <= 0).float(), 3, stride=1, padding=1) < 0.5


def _sample(maps: Tensor, place: Tensor, mode: str = "bilinear") -> Tensor:
    """Values [C, N] of maps [C, S, S] at places [N, 2] in [-1, 1]; 0 outside."""
    return F.grid_sample(maps[None], place[None, None], mode=mode, align_corners=False)[0, :, 0]
