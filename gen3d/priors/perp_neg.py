"""Perp-Neg (arXiv 2304.04968): guidance of a single view by interpolated and by perpendicular negative prompts.

The constants are those of its reference implementation for Stable Diffusion. They hold for each view of a batch by
itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gen3d.prompts import Direction

# (a, b, c) of the weight -(a exp(-b r) + c) of a negative prompt.
_SIDE_BACK, _FRONT_SIDE_BACK, _FRONT_SIDE = (1.0, 0.5, -0.606), (1.0, 0.5, 0.967), (4.0, 0.5, -2.426)


@dataclass(frozen=True, kw_only=True)
class ViewWords:
    """positive: shares of the directions whose embeddings are mixed, which sum to 1. negative: directions steered away
    from, with their weights, none above 0."""

    positive: tuple[tuple[Direction, float], ...]
    negative: tuple[tuple[Direction, float], ...]


def view_words(azimuth_deg: float, *, overhead: bool = False) -> ViewWords:
    """What is said of a view from `azimuth_deg` (0 is in front), in words that change smoothly with it."""
    if overhead:
        return ViewWords(positive=(("overhead", 1.0),), negative=())
    turned = abs((azimuth_deg + 180.0) % 360.0 - 180.0)
    if turned < 90.0:
        r = 1.0 - turned / 90.0
        return ViewWords(
            positive=(("front", r), ("side", 1.0 - r)),
            negative=(("front", _weight(_FRONT_SIDE, r)), ("side", _weight(_FRONT_SIDE, 1.0 - r))),
        )
    r = 2.0 - turned / 90.0
    return ViewWords(
        positive=(("side", r), ("back", 1.0 - r)),
        negative=(("side", _weight(_SIDE_BACK, r)), ("front", _weight(_FRONT_SIDE_BACK, r))),
    )


def _weight(constants: tuple[float, float, float], r: float) -> float:
    a, b, c = constants
    return -(a * math.exp(-b * r) + c)


def perp_neg_direction(positive: Tensor, negatives: Tensor, weights: Tensor) -> Tensor:
    """`positive [N, ...]` and what of `negatives [M, N, ...]` is perpendicular to it, times `weights [M, N]`.

    All are differences to the unconditional prediction; what is parallel is of each of the N by itself.
    """
    axes = tuple(range(1, positive.ndim))
    length = positive.square().sum(axes, keepdim=True).clamp_min(1e-12)
    total = positive.clone()
    for negative, weight in zip(negatives, weights, strict=True):
        parallel = (negative * positive).sum(axes, keepdim=True) / length
        shape = (-1, *[1] * (positive.ndim - 1))
        total = total + weight.view(shape) * (negative - parallel * positive)
    return total


def weights_of(words: list[ViewWords], device: torch.device) -> Tensor:
    """`[2, N]`: the weights of the two negatives of each view, 0 where there is none."""
    rows = [[*(weight for _, weight in each.negative), 0.0, 0.0][:2] for each in words]
    return torch.tensor(rows, device=device).T
