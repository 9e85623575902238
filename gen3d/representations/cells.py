"""Cells of the cube [-1, 1]^3, by which rendering skips what is empty: n along an edge, indexed [x, y, z]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EMPTY = 1e-2  # optical density per unit length of a cell that no ray can notice
_LEAST = 0.5  # how much less dense than what was found around it a place is held possible to be


def rows_of(points: Tensor, n: int) -> Tensor:
    """Which of the n^3 cells each of `points [..., 3]` lies in, the nearest one beyond the cube: int64 `[...]`."""
    scaled = ((points + 1.0) * (0.5 * n)).clamp_(0, n - 0.001).to(torch.int32)
    x, y, z = scaled.unbind(-1)
    return (x * n + y) * n + z


def bounds_of(cell_density: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest density of the cells `rows [...]`: `[...]` and `[...]`. cell_density: `[n^3, 2]`."""
    least, greatest = cell_density.index_select(0, rows.flatten()).view(*rows.shape, 2).unbind(-1)
    return least, greatest


def spread(least: Tensor, greatest: Tensor) -> Tensor:
    """Least and greatest density that are held possible in and around each cell, `[n^3, 2]`, where `least` and
    `greatest [n^3]` are what was found in it. A cell next to a dense one counts as dense."""
    n = round(len(least) ** (1 / 3))
    around = torch.stack([-least, greatest]).view(2, 1, n, n, n)
    least, greatest = F.max_pool3d(around, 3, stride=1, padding=1).view(2, -1)
    return torch.stack([-_LEAST * least, greatest], dim=1)


@torch.no_grad()
def box_of(full: Tensor) -> tuple[Tensor, Tensor]:
    """Corners `[3]`, `[3]` of the box around the cells that are `full [n, n, n]`; both on one corner where none is."""
    n = full.shape[0]
    low, high = [], []
    for other in ((1, 2), (0, 2), (0, 1)):
        used = full.amax(dim=other).nonzero()
        low.append(used.amin() if len(used) else torch.zeros((), device=full.device))
        high.append(used.amax() + 1 if len(used) else torch.zeros((), device=full.device))
    return torch.stack(low) * (2.0 / n) - 1.0, torch.stack(high) * (2.0 / n) - 1.0
