"""Mouth shapes to smooth lip movement by dominance functions (Cohen and Massaro 1993, "Modeling coarticulation in
synthetic visual speech").

Every segment s pulls channel p towards its target T_sp with a dominance that fades with the distance from it,
    D_sp(t) = alpha_sp exp(-(d_s(t) / tau_s)^c_s),    F_p(t) = sum_s D_sp(t) T_sp / sum_s D_sp(t),
so that neighbours shape one another: lips round early for an 'oo', and a 'k' takes over its vowels' lips. Here
distance is measured from the segment's core and not from its middle: a long sound holds its shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.limits import check_range
from experiments.world.visemes import CHANNELS, SHAPES, VOWELS, Segment

# Seconds at either end of a segment over which its pull grows and fades; short segments keep a core of 40 %.
_EDGE = 0.05
# A bilabial is shut for at least so many seconds: more than a frame.
_SHUT = 0.055
# How wide a vowel opens the jaw without, with secondary and with primary stress.
_STRESSED = (0.85, 0.95, 1.05)


@dataclass(frozen=True, kw_only=True, slots=True)
class Articulation:
    """How a person speaks. opening, rounding: scale jaw and lip rounding (mumbling below 1). quickness: above 1 moves
    later and faster."""

    opening: float = 1.0
    rounding: float = 1.0
    quickness: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, 0.3, 2, "opening", "rounding", "quickness")


def lip_movement(
    segments: Sequence[Segment], times: Tensor, articulation: Articulation | None = None
) -> Tensor:
    """Lip channels at times [T] (seconds): [T, 7] in [0, 1], in the order of CHANNELS.

    segments: as `experiments.world.visemes.segments_of` gives them, at least one.
    """
    if not segments:
        raise ValueError("lip movement needs at least one segment")
    manner = articulation or Articulation()
    t = times.double()
    above = torch.zeros(len(t), len(CHANNELS), dtype=torch.float64)
    below = torch.full_like(above, 1e-12)
    scale = torch.tensor([manner.opening, manner.rounding, 1, 1, manner.rounding, 1, 1], dtype=torch.float64)
    for segment in segments:
        shape = SHAPES[segment.viseme]
        middle = 0.5 * (segment.start + segment.stop)
        half = 0.5 * (segment.stop - segment.start)
        half = max(0.4 * half, half - _EDGE)
        if segment.viseme == "PP":
            half = max(half, 0.5 * _SHUT)
        before = (middle - half - t).clamp(min=0) / shape.lead
        after = (t - middle - half).clamp(min=0) / shape.lag
        pull = torch.exp(-((manner.quickness * (before + after)) ** shape.fall))[:, None]
        dominance = pull * torch.tensor(shape.strength, dtype=torch.float64)
        target = torch.tensor(shape.target, dtype=torch.float64) * scale
        target[0] *= _STRESSED[segment.stress] if segment.viseme in VOWELS else 1.0
        above += dominance * target
        below += dominance
    return (above / below).clamp(0.0, 1.0).float()
