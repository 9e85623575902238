"""Video frames on the clock of sound, at any rational frame rate, without drift. Pure functions.

Video frame i begins at i / fps seconds and stands for the time up to (i + 1) / fps. A track of features has `rate`
steps a second; step k belongs to the time k / rate. Places are worked out in whole numbers, so that the frames of the
tenth hour lie where they should.

Legend: F video frames, P steps a frame, W = 2 radius + 1 frames of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil
from typing import Literal

import torch
from torch import Tensor

Edges = Literal["clamp", "zero"]


def num_frames(seconds: Fraction | int, fps: Fraction | int) -> int:
    """Video frames that cover a sound: ceil(seconds * fps), at least 1.

    The last frame begins before the sound ends and may outlast it by less than one frame: a video of so many frames
    is never shorter than its sound.

    seconds: a Fraction, as `AudioSource.duration` is; a float would already have been rounded.
    """
    for name, value in (("seconds", seconds), ("fps", fps)):
        if isinstance(value, float):
            raise ValueError(
                f"{name} must be a Fraction or an int, got {value!r}: floats drift, write Fraction(30000, 1001)"
            )
        if value <= 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    return max(ceil(Fraction(seconds) * Fraction(fps)), 1)


def track_places(
    start: int, stop: int, fps: Fraction, *, rate: Fraction | int, per_frame: int
) -> tuple[Tensor, Tensor]:
    """Where in a track of `rate` steps a second the frames start ... stop - 1 look: P places, evenly over each frame.

    Place j of frame i is the time (i + j / P) / fps. Returns the step at or before it, [F, P] int64, and the share of
    the next step, [F, P] float32 in [0, 1): 0 throughout where the rate is P times fps.
    """
    if not 0 <= start <= stop:
        raise ValueError(f"frames must run from 0 or later and forwards, got {start} ... {stop}")
    stride = Fraction(rate) / (Fraction(fps) * per_frame)
    counts = torch.arange(start * per_frame, stop * per_frame, dtype=torch.int64)
    ahead = counts * stride.numerator
    step = torch.div(ahead, stride.denominator, rounding_mode="floor")
    share = (ahead - step * stride.denominator).double() / stride.denominator
    return step.view(-1, per_frame), share.float().view(-1, per_frame)


def read_track(
    read: Callable[[int, int], Tensor],
    start: int,
    stop: int,
    fps: Fraction,
    *,
    rate: Fraction | int,
    per_frame: int,
) -> Tensor:
    """Frames start ... stop - 1 of a track, [F, P, ...], linear between its steps.

    read(a, b): steps a ... b - 1 of the track, [b - a, ...]; it is called once, and for b a step past the last needed.
    """
    step, share = track_places(start, stop, fps, rate=rate, per_frame=per_frame)
    if not len(step):
        return read(0, 1)[:0].unsqueeze(1).repeat_interleave(per_frame, 1)
    first, last = int(step[0, 0]), int(step[-1, -1])
    track = read(first, last + 2)
    here, following = track[step - first], track[step - first + 1]
    return torch.lerp(here, following, share.view(*share.shape, *[1] * (track.ndim - 1)).to(track))


def window_indices(start: int, stop: int, radius: int) -> Tensor:
    """The frames around each of start ... stop - 1, [F, W] int64: i - radius ... i + radius, beyond the ends too."""
    if radius < 0:
        raise ValueError(f"radius must be 0 or more, got {radius}")
    return torch.arange(start, stop)[:, None] + torch.arange(-radius, radius + 1)


def read_windows(
    read: Callable[[int, int], Tensor],
    start: int,
    stop: int,
    total: int,
    *,
    radius: int = 2,
    edges: Edges = "clamp",
) -> Tensor:
    """Windows of the frames start ... stop - 1, [F, W, ...].

    read(a, b): features of frames a ... b - 1, within 0 ... total; only those needed are asked for, so windows read a
    clip at a time are those read at once.
    edges: beyond the first and the last frame, 'clamp' repeats them (Hallo), 'zero' puts zeros.
    """
    if not 0 <= start < stop <= total:
        raise ValueError(f"frames must lie in 0 ... {total} and be at least one, got {start} ... {stop}")
    if edges not in ("clamp", "zero"):
        raise ValueError(f"edges must be 'clamp' or 'zero', got {edges!r}")
    around = window_indices(start, stop, radius)
    low, high = max(start - radius, 0), min(stop + radius, total)
    features = read(low, high)
    picked = features[around.clamp(0, total - 1) - low]
    if edges == "zero":
        outside = (around < 0) | (around >= total)
        picked = picked.masked_fill(outside.view(*outside.shape, *[1] * (features.ndim - 1)), 0.0)
    return picked
