"""Joining pieces of a solid through space that nobody has seen to be empty.

A joint that is hidden from every view, such as a lamp's stem inside its shade, is not pinned down by the views, and a
fit may cut it. What is certain is only where light has passed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def bridge_pieces(
    field: np.ndarray,
    level: float,
    unseen_fn: Callable[[Tensor], Tensor],
    *,
    max_gap: float = 0.35,
    min_fraction: float = 0.01,
    bounds: float = 1.0,
) -> np.ndarray:
    """`field [R, R, R]` (x, y, z; inside is above `level`) with its pieces joined where that is possible.

    The samples of an axis run from -bounds to +bounds. Pieces of at least `min_fraction` of the largest one's samples
    and up to `max_gap` (world units) from the rest are joined by the samples on the shortest ways between them, as
    far as `unseen_fn(points [K, 3]) -> [K]` bool says that these may be solid. Pieces that this leaves apart, and a
    field of one piece, stay as they are.
    """
    if field.ndim != 3 or len(set(field.shape)) != 1:
        raise ValueError(f"field must have shape [R, R, R], got {list(field.shape)}")
    inside = field > level
    labels, count = _pieces(inside)
    if count < 2:
        return field
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    order = [
        int(index)
        for index in np.argsort(-sizes, kind="stable")
        if sizes[index] >= min_fraction * sizes.max()
    ]
    spacing = 2.0 * bounds / (field.shape[0] - 1)
    joined, field = labels == order[0], field.copy()
    strength = 0.5 * (float(np.median(field[inside])) - level)
    for index in order[1:]:
        way = _way_between(joined, labels == index, max_gap / spacing)
        if way is None:
            continue
        cells = np.argwhere(way & ~inside)
        points = torch.from_numpy((cells * spacing - bounds).astype(np.float32))
        open_cells = cells[unseen_fn(points).cpu().numpy()]
        bridge = np.zeros_like(inside)
        bridge[tuple(open_cells.T)] = True
        both = joined | (labels == index) | bridge
        if _pieces(both)[1] > _pieces(joined)[1]:
            continue
        field[bridge] = np.maximum(field[bridge], level + strength)
        joined = both
    return field


def _pieces(solid: np.ndarray) -> tuple[np.ndarray, int]:
    """The number of each sample's piece, from 1, and how many there are."""
    return cast(tuple[np.ndarray, int], ndimage.label(solid))  # its stubs know of other outputs too


def _way_between(first: np.ndarray, second: np.ndarray, max_gap: float) -> np.ndarray | None:
    """Samples on (nearly) shortest ways between two sets of samples, or None if they are too far apart."""
    to_first = np.asarray(ndimage.distance_transform_edt(~first))
    gap = float(to_first[second].min())
    # The surfaces lie half a step beyond the outermost samples, on either side.
    if gap - 1.0 > max_gap:
        return None
    to_second = np.asarray(ndimage.distance_transform_edt(~second))
    return to_first + to_second <= gap + 1.0
