"""Which mix of a recording's channels the models hear, and which channels a video gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SIDE = 0.5  # of left and right each, so that a sound in both comes out as it is
_HALF_POWER = 0.5**0.5
# A mix this much below the loudest channel has lost something: sounds that have nothing to do with one another lose
# 3 dB in the mean of two channels, one that is on one side alone loses 6.
_MUCH_QUIETER = 10**-0.45
_CANCELLED = 0.5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Mix:
    """weights: [channels] float32, the mono mix of a block [n, channels] is `block @ weights`. remark: what is special
    about the recording, as the rest of a sentence, or nothing."""

    weights: np.ndarray
    remark: str = ""


def mixes(places: Sequence[str]) -> list[Mix]:
    """All mixes that a recording with channels at these places may get, which `choose` chooses from.

    First the usual one: the mean of two channels, or of channels whose places nothing tells; else the centre counts
    fully, front left and right by a half, what is at the sides, behind or above by 0.35, the low-frequency channel
    not at all. Then every channel fully, then each channel alone.
    """
    count = len(places)
    known = count > 2 and all(name != "NONE" for name in places)
    usual = [_weight(name) for name in places] if known else [1.0 / count] * count
    if not any(usual):  # low frequencies alone
        usual = [1.0 / count] * count
    fully = [float(weight > 0) for weight in usual]
    cancels = "has channels that cancel one another in a mix: its loudest channel alone moves the mouth"
    alone = [Mix(weights=row, remark=cancels) for row in np.eye(count, dtype=np.float32)]
    return [Mix(weights=np.array(weights, np.float32)) for weights in (usual, fully)] + alone


def choose(places: Sequence[str], products: np.ndarray) -> int:
    """Which of `mixes(places)` keeps what is said. products: [channels, channels], each channel's samples times each
    other's, summed over the whole recording.

    The usual mix, unless it is more than 4.5 dB quieter than the loudest channel. Then what is said is in few of the
    channels, and all are counted fully; or, where that is quieter than the loudest channel by 3 dB still, channels
    cancel, and the loudest is taken alone.
    """
    found = mixes(places)
    powers = [float(mix.weights @ products @ mix.weights) for mix in found]
    heard = found[0].weights > 0
    alone = np.where(heard, np.diag(products), 0.0)
    if not alone.any():
        alone = np.diag(products)
    loudest = float(alone.max())
    if powers[0] >= _MUCH_QUIETER * loudest:
        return 0
    return 1 if powers[1] >= _CANCELLED * loudest else 2 + int(alone.argmax())


def for_video(places: Sequence[str]) -> np.ndarray | None:
    """[channels, 1 or 2] float32, what of each channel a video's channels get; None where nothing tells the places of
    more than two channels.

    One and two channels stay as they are. More become stereo as ITU-R BS.775 has it: left and right fully, the centre
    and what is at the sides, behind or above at half power, low frequencies not at all.
    """
    if len(places) <= 2:
        return np.eye(len(places), dtype=np.float32)
    if any(name == "NONE" for name in places):
        return None
    weights = np.zeros((len(places), 2), np.float32)
    for index, name in enumerate(places):
        if not name.startswith("LFE"):
            left, right = "L" in name, "R" in name
            amount = 1.0 if _weight(name) == _SIDE else _HALF_POWER
            weights[index] = amount * (not right), amount * (not left)
    return weights


def _weight(name: str) -> float:
    if name.startswith("LFE"):
        return 0.0
    if name == "FC":
        return 1.0
    return _SIDE if name in ("FL", "FR", "FLC", "FRC", "DL", "DR") else _SIDE * _HALF_POWER
