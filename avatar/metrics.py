"""Scores of a talking portrait against the truth: does the mouth open when it should, and does the person stay.

Pure functions of numbers a frame or of frames; how wide a mouth is open in a picture is told by `avatar.mouth`.

Shapes: F frames, H, W of pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# A clip whose mouth moves less than this (of a wide open mouth's 0.15) has no correlation to speak of.
_STILL = 1e-4


def moves(track: Tensor) -> bool:
    """Whether a track [F] changes at all; one that does not, as a static picture's, correlates with nothing."""
    return float(track.double().std()) >= _STILL


def pearson(first: Tensor, second: Tensor) -> float:
    """Correlation of two tracks [F] in [-1, 1]; 0 when one of them does not move."""
    _check_tracks(first, second)
    if not (moves(first) and moves(second)):
        return 0.0
    a, b = (x.double() - x.double().mean() for x in (first, second))
    return float((a @ b) / (a.norm() * b.norm()))


def offset(track: Tensor, truth: Tensor, *, reach: int = 10) -> int:
    """Frames by which `track` [F] comes late (negative: early): the shift within `reach` that correlates best."""
    _check_tracks(track, truth)
    if not 0 < reach < len(track) - 1:
        raise ValueError(f"reach must lie in 1 ... {len(track) - 2} for {len(track)} frames, got {reach}")
    # Nearest shifts first: of equally good ones the smallest counts.
    shifts = sorted(range(-reach, reach + 1), key=abs)
    return max(shifts, key=lambda shift: pearson(*_shifted(track, truth, shift)))


def closure_recall(
    track: Tensor, closures: Sequence[tuple[int, int]], *, opened: float, share: float = 0.25
) -> float:
    """Share of closures (first frame, end) in which the mouth [F] shuts; NaN when there are none.

    A mouth is shut below `share` of `opened`, a wide open mouth's aperture on the same scale.
    """
    if not opened > 0:
        raise ValueError(f"opened must be above 0, got {opened}")
    spans = [track[first:end] for first, end in closures if first < end and first < len(track)]
    if not spans:
        return float("nan")
    return sum(float(span.min()) < share * opened for span in spans) / len(spans)


def stillness(track: Tensor, silent: Tensor) -> float:
    """Variance of the mouth [F] in silence over that in speech; NaN without two frames of each.

    silent: [F] bool.
    """
    _check_tracks(track, silent)
    quiet, loud = track[silent].double(), track[~silent].double()
    if len(quiet) < 2 or len(loud) < 2 or float(loud.var()) < _STILL**2:
        return float("nan")
    return float(quiet.var() / loud.var())


def static_psnr(frames: Tensor, truth: Tensor, *, tolerance: float = 0.02) -> float:
    """PSNR in dB of frames [F, 3, H, W] in [0, 1] where the truth does not move; NaN where all of it moves.

    A pixel is static when no channel of it departs from its mean over time by more than `tolerance`.
    """
    if frames.shape != truth.shape or frames.ndim != 4:
        raise ValueError(
            f"frames and truth must both be [F, 3, H, W], got {list(frames.shape)} and {list(truth.shape)}"
        )
    spread = (truth - truth.mean(0, keepdim=True)).abs().amax((0, 1))
    static = spread <= tolerance
    if not bool(static.any()):
        return float("nan")
    error = (frames - truth).square().mean(1)[:, static].mean()
    return float(-10 * torch.log10(error.clamp(min=1e-10)))


def boundary_jump(frames: Tensor, starts: Sequence[int]) -> float:
    """How much more changes from frame to frame where clips meet than inside them; 1 is invisible, NaN without joins.

    frames: [F, 3, H, W]. starts: first frames of the clips; 0 joins nothing.
    """
    change = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
    joins = sorted({start - 1 for start in starts if 0 < start < len(frames)})
    inside = torch.ones(len(change), dtype=torch.bool)
    inside[joins] = False
    if not joins or not bool(inside.any()):
        return float("nan")
    return float(change[joins].mean() / change[inside].mean().clamp(min=1e-8))


def _shifted(track: Tensor, truth: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """The frames that remain of both when `track` is moved earlier by `shift`."""
    if shift >= 0:
        return track[shift:], truth[: len(truth) - shift]
    return track[:shift], truth[-shift:]


def _check_tracks(first: Tensor, second: Tensor) -> None:
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(
            "tracks must be [F] of the same two or more frames, "
            f"got {list(first.shape)} and {list(second.shape)}"
        )
