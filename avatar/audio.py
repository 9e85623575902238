"""Sound as the models want it: float32 mono at 16 kHz in [-1, 1], read from any file, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr
import torch
from torch import Tensor

from avatar.audio_decode import AudioError, Encoded, open_encoded

__all__ = ["MIN_DURATION", "SAMPLE_RATE", "AudioClip", "AudioError", "AudioFile", "AudioSource", "load_audio"]

SAMPLE_RATE = 16_000
MIN_DURATION = Fraction(
    1, 10
)  # seconds: two frames and a half, enough for one syllable and for every encoder

# Reading goes forwards; windows and segments look back by less than this.
_HISTORY = 60 * SAMPLE_RATE


class AudioSource(Protocol):
    """A sound that can be read piece by piece."""

    @property
    def num_samples(self) -> int:
        """Samples at 16 kHz."""
        ...

    @property
    def duration(self) -> Fraction:
        """Seconds, exactly."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Samples start ... stop - 1, [stop - start] float32; before and after the sound there are zeros."""
        ...


class AudioClip:
    """A sound in memory. samples: [N] float32 at 16 kHz in [-1, 1], at least 0.1 s of it."""

    def __init__(self, samples: Tensor) -> None:
        if samples.ndim != 1 or samples.dtype != torch.float32:
            raise AudioError(f"samples must be [N] float32, got {list(samples.shape)} {samples.dtype}")
        _check_length(len(samples), "the sound")
        if not torch.isfinite(samples).all():
            raise AudioError("the sound holds NaN or infinite samples")
        if (peak := float(samples.abs().max())) > 1.0:
            raise AudioError(f"samples must lie in [-1, 1], the largest is {peak:g}: divide by it")
        self.samples = samples

    @property
    def num_samples(self) -> int:
        """Samples at 16 kHz."""
        return len(self.samples)

    @property
    def duration(self) -> Fraction:
        """Seconds, exactly."""
        return Fraction(self.num_samples, SAMPLE_RATE)

    def read(self, start: int, stop: int) -> Tensor:
        """Samples start ... stop - 1, [stop - start] float32; before and after the sound there are zeros."""
        if stop < start:
            raise ValueError(f"stop must not be before start, got {start} ... {stop}")
        inside = self.samples[max(start, 0) : max(stop, 0)]
        before = min(max(-start, 0), stop - start)
        return torch.nn.functional.pad(inside, (before, stop - start - before - len(inside)))


class AudioFile:
    """A sound file of any rate and number of channels, resampled while it is read; memory stays flat.

    Opening reads the file once, to count and to check it; nothing is kept. Channels are averaged. Where the peak is
    above full scale (floating-point files, loud MP3s), everything is divided by it: `gain` tells. Reading forwards is
    quick; going back by more than a minute starts again from the beginning of the file. What is read does not depend
    on the order or the sizes of the reads.

    Raises:
        OSError: the file is missing or may not be read.
        AudioError: empty, no sound, damaged, shorter than 0.1 s, or with NaN or infinite samples.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._encoded = open_encoded(self.path)
        length, self.peak = _scan(self._encoded)
        self.num_samples = -(-length * SAMPLE_RATE // self._encoded.rate)
        _check_length(self.num_samples, str(self.path))
        self.gain = 1.0 / self.peak if self.peak > 1.0 else 1.0
        self._restart()

    @property
    def duration(self) -> Fraction:
        """Seconds, exactly."""
        return Fraction(self.num_samples, SAMPLE_RATE)

    @property
    def silent(self) -> bool:
        """True when every sample is zero."""
        return self.peak == 0.0

    def read(self, start: int, stop: int) -> Tensor:
        """Samples start ... stop - 1, [stop - start] float32; before and after the sound there are zeros."""
        if stop < start:
            raise ValueError(f"stop must not be before start, got {start} ... {stop}")
        first, last = min(max(start, 0), self.num_samples), min(max(stop, 0), self.num_samples)
        if first < self._begin:
            self._restart()
        while self._end < last:
            block = next(self._stream, None)
            if block is None:
                break
            self._kept.append(block)
            self._end += len(block)
            while self._kept and self._begin + len(self._kept[0]) < first - _HISTORY:
                self._begin += len(self._kept.pop(0))
        out = np.zeros(stop - start, np.float32)
        place = self._begin
        for block in self._kept:
            low, high = max(place, first), min(place + len(block), last)
            if low < high:
                out[low - start : high - start] = block[low - place : high - place]
            place += len(block)
        return torch.from_numpy(out)

    def original(self) -> tuple[int, Iterator[Tensor]]:
        """The file's own rate, and its sound from the beginning, mono float32 [n] in [-1, 1] a block at a time."""
        mono = (_mixed(block) * np.float32(self.gain) for block in self._encoded.blocks())
        return self._encoded.rate, (torch.from_numpy(np.clip(block, -1.0, 1.0)) for block in mono)

    def _restart(self) -> None:
        self._stream = _mono_16k(self._encoded, self.gain)
        self._kept: list[np.ndarray] = []
        self._begin = self._end = 0


def load_audio(path: str | Path) -> AudioClip:
    """A whole file in memory; for long recordings use :class:`AudioFile`. Raises what it raises."""
    file = AudioFile(path)
    return AudioClip(file.read(0, file.num_samples))


def _check_length(num_samples: int, name: str) -> None:
    if num_samples < MIN_DURATION * SAMPLE_RATE:
        seconds = num_samples / SAMPLE_RATE
        raise AudioError(f"{name} is {seconds:.3f} s long; at least {float(MIN_DURATION):g} s are needed")


def _scan(encoded: Encoded) -> tuple[int, float]:
    """Samples a channel, and the largest magnitude of the channels' mean."""
    length, peak = 0, 0.0
    for block in encoded.blocks():
        if not np.isfinite(block.sum(dtype=np.float64)):
            first = int(np.argmin(np.isfinite(block).all(axis=1)))
            seconds = (length + first) / encoded.rate
            raise AudioError(f"{encoded.path} holds NaN or infinite samples, the first at {seconds:.3f} s")
        length += len(block)
        peak = max(peak, float(np.abs(_mixed(block)).max(initial=0.0)))
    if not length:
        raise AudioError(f"{encoded.path} has no samples")
    return length, peak


def _mixed(block: np.ndarray) -> np.ndarray:
    """The channels' mean, [n, channels] -> [n]; as a product, for numpy averages short rows slowly."""
    channels = block.shape[1]
    return block @ np.full(channels, 1.0 / channels, np.float32)


def _mono_16k(encoded: Encoded, gain: float) -> Iterator[np.ndarray]:
    """The whole sound in order. Blocks depend on the file alone, so a second pass gives the same bits."""
    same = encoded.rate == SAMPLE_RATE
    stream = None if same else soxr.ResampleStream(encoded.rate, SAMPLE_RATE, 1, dtype="float32")
    for block in encoded.blocks():
        mono = _mixed(block) * np.float32(gain)
        yield np.clip(stream.resample_chunk(mono) if stream else mono, -1.0, 1.0)
    if stream:
        yield np.clip(stream.resample_chunk(np.zeros(0, np.float32), last=True), -1.0, 1.0)
