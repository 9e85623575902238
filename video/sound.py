"""A sound track for a video: checked, brought to a rate that AAC keeps in step with pictures, cut to length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
import soxr
import torch
from torch import Tensor

_LOWEST_RATE, _HIGHEST_RATE = 1_000, 384_000
# AAC comes in frames of 1024 samples, and players decode the last one whole: 21 to 23 ms at these rates, less than a
# picture at 25 or 30 a second, but 64 ms at 16 kHz.
_KEPT_RATES = (44_100, 48_000)


@dataclass(frozen=True, slots=True)
class SoundTrack:
    """rate: samples a second. blocks: the sound in order, float32 [channels, n] in [-1, 1], in pieces of any sizes; of
    one channel [n] as well. channels: 1 is mono, 2 are left and right.

    `blocks` is read once and a piece at a time, so it may be a generator. A sound in memory is `[samples]`.
    """

    rate: int
    blocks: Iterable[Tensor]
    channels: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.rate, int) or not _LOWEST_RATE <= self.rate <= _HIGHEST_RATE:
            raise ValueError(
                f"rate must be a whole number in {_LOWEST_RATE} ... {_HIGHEST_RATE}, got {self.rate!r}"
            )
        if self.channels not in (1, 2):
            raise ValueError(f"channels must be 1 or 2, got {self.channels!r}: mix down what has more")
        if isinstance(self.blocks, Tensor):
            raise ValueError("blocks is a tensor; a sound in memory is a list of one block")

    @property
    def stored_rate(self) -> int:
        """Samples a second in the file: 44.1 and 48 kHz stay as they are, all else is resampled to 48 kHz."""
        return self.rate if self.rate in _KEPT_RATES else 48_000


class Samples:
    """The samples of a track at its stored rate, taken in order; after the end there is silence."""

    def __init__(self, track: SoundTrack) -> None:
        self._pieces = _at_stored_rate(track)
        self._left = np.zeros((track.channels, 0), np.float32)

    def take(self, count: int) -> np.ndarray:
        """The next samples, [channels, count] float32 in [-1, 1]. Reads no more blocks than it needs."""
        taken = np.zeros((len(self._left), count), np.float32)
        filled = 0
        while filled < count:
            if not self._left.shape[1]:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._left = piece
            part, self._left = np.split(self._left, [count - filled], axis=1)
            taken[:, filled : filled + part.shape[1]] = part
            filled += part.shape[1]
        return taken


def _at_stored_rate(track: SoundTrack) -> Iterator[np.ndarray]:
    blocks = (_checked(block, index, track.channels) for index, block in enumerate(track.blocks))
    if track.stored_rate == track.rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(track.rate, track.stored_rate, track.channels, dtype="float32")
    last = np.zeros((track.channels, 0), np.float32)
    for block, ends in chain(zip(blocks, repeat(False)), [(last, True)]):
        resampled = stream.resample_chunk(np.ascontiguousarray(block.T), last=ends)
        yield np.clip(resampled.T, -1.0, 1.0)


def _checked(block: Tensor, index: int, channels: int) -> np.ndarray:
    """[channels, n]."""
    given = list(block.shape)
    if block.ndim == 1 and channels == 1:
        block = block[None]
    if block.ndim != 2 or len(block) != channels or block.dtype != torch.float32:
        shape = "[n] or [1, n]" if channels == 1 else f"[{channels}, n]"
        raise ValueError(
            f"block {index} of the sound must be {shape} float32, got {given} {block.dtype}; a sound in "
            "memory is a list of one block, and SoundTrack(channels=) says how many channels there are"
        )
    samples = block.detach().cpu().contiguous().numpy()
    if not np.isfinite(samples).all():
        raise ValueError(f"block {index} of the sound holds NaN or Inf")
    if (peak := float(np.abs(samples).max(initial=0.0))) > 1.0:
        raise ValueError(
            f"block {index} of the sound must lie in [-1, 1], the largest is {peak:g}: divide by it"
        )
    return samples
