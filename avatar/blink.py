"""Blinks as a condition: how far the lids are down in every frame, and when a person who is not told to blinks."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import nn

# Seconds a lid closes, stays shut (longer than a frame at 25 frames a second) and opens.
CLOSING, SHUT, OPENING = 0.09, 0.05, 0.16
_SHORTEST_PAUSE = 0.5  # seconds between the beginnings of two blinks


class BlinkEmbedding(nn.Module):
    """Lids [B, F] in [0, 1] (0 as in the portrait, 1 shut) -> embeddings [B, F, S], added to those of the speed."""

    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Linear(1, width, bias=False)

    def forward(self, lids: torch.Tensor) -> torch.Tensor:
        if lids.ndim != 2:
            raise ValueError(f"blink must be [B, F] in [0, 1], got {list(lids.shape)}")
        return self.proj(lids[..., None].to(self.proj.weight))


def blink_times(seconds: float, per_minute: float, *, generator: torch.Generator) -> list[float]:
    """When lids begin to close, in seconds: waits of at least half a second, exponential beyond it."""
    if per_minute < 0.0 or per_minute > 60.0:
        raise ValueError(f"blinks per minute must lie in [0, 60], got {per_minute}")
    times: list[float] = []
    at = 0.0
    while per_minute > 0.0:
        waited = -math.log(1.0 - float(torch.rand((), generator=generator, dtype=torch.float64)))
        at += _SHORTEST_PAUSE + max(60.0 / per_minute - _SHORTEST_PAUSE, 0.1) * waited
        if at > seconds:
            break
        times.append(at)
    return times


def lids_at(starts: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Lids at times [T] in seconds for blinks that begin at `starts` [N]: [T] in [0, 1], smooth."""
    if not len(starts):
        return torch.zeros(len(times), dtype=times.dtype)
    since = times[:, None] - starts
    down = (since / CLOSING).clamp(0, 1)
    up = ((since - CLOSING - SHUT) / OPENING).clamp(0, 1)
    return (down * down * (3 - 2 * down) - up * up * (3 - 2 * up)).amax(dim=1)


def lids_of_frames(starts: list[float], first: int, last: int, fps: Fraction) -> torch.Tensor:
    """Lids in the middles of frames first ... last - 1, [F] float32."""
    frames = (torch.arange(first, last, dtype=torch.float64) + 0.5) * (fps.denominator / fps.numerator)
    return lids_at(torch.tensor(starts, dtype=torch.float64), frames).float()
