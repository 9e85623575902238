"""Sound as the models want it: float32 mono at 16 kHz in [-1, 1], read from any file, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr
import torch
from torch import Tensor

from avatar.audio_decode import AudioError, Encoded, open_encoded
from avatar.audio_mix import choose, for_video, mixes
from video.sound import SoundTrack

__all__ = ["MIN_DURATION", "SAMPLE_RATE", "AudioClip", "AudioError", "AudioFile", "AudioSource", "load_audio"]

SAMPLE_RATE = 16_000
MIN_DURATION = Fraction(
    1, 10
)  # seconds: two frames and a half, enough for one syllable and for every encoder

_PADDING = 0.06  # seconds that headers count and that are no sound

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

    Opening reads the file once, to count and to check it (again where it is damaged, for what FFmpeg makes of it);
    nothing is kept. What is read is a mono mix, chosen for the whole file (`avatar.audio_mix.choose`). Where its
    peak is above full scale, it is divided by it: `gain` tells. Reading forwards is quick; going back by more than a
    minute starts again from the beginning of the file. What is read does not depend on the order or the sizes of the
    reads.

    remarks: what a user should know: that parts are missing or damaged, that channels cancel, that it was too loud,
    that it is silent; each is the rest of a sentence that begins with "the recording".

    Raises:
        OSError: the file is missing or may not be read.
        AudioError: empty, no sound, shorter than 0.1 s as far as it can be read, or with NaN or infinite samples.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._encoded, found = _best(open_encoded(self.path))
        self.num_samples = -(-found.length * SAMPLE_RATE // self._encoded.rate)
        _check_length(self.num_samples, str(self.path))
        mix = mixes(self._encoded.places)[found.mix]
        self._weights, self.peak = mix.weights, found.peaks[found.mix]
        self.gain = _within_full_scale(self.peak)
        stored = for_video(self._encoded.places)
        self._stored = self._weights[:, None] if stored is None else stored
        self._stored_gain = _within_full_scale(self.peak if stored is None else found.stored_peak)
        self.remarks = [*_missing(self._encoded, found), *([mix.remark] if mix.remark else [])]
        if found.loudest > 1.0:
            self.remarks.append(
                f"goes beyond full scale; it was made quieter by a factor of {found.loudest:.2f}"
            )
        if self.silent:
            self.remarks.append("is silent throughout")
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

    def track(self) -> SoundTrack:
        """The recording at its own rate, for a video: mono and stereo as they are, more channels as stereo; where
        nothing tells the places of more than two, the mono mix."""
        gain = np.float32(self._stored_gain)
        blocks = (np.clip((block @ self._stored) * gain, -1.0, 1.0) for block in self._encoded.blocks())
        return SoundTrack(
            self._encoded.rate,
            (torch.from_numpy(np.ascontiguousarray(block.T)) for block in blocks),
            channels=self._stored.shape[1],
        )

    def _restart(self) -> None:
        self._stream = _mono_16k(self._encoded, self._weights, self.gain)
        self._kept: list[np.ndarray] = []
        self._begin = self._end = 0


def load_audio(path: str | Path) -> AudioClip:
    """A whole file in memory; for long recordings use `AudioFile`. Raises what it raises."""
    file = AudioFile(path)
    return AudioClip(file.read(0, file.num_samples))


def _check_length(num_samples: int, name: str) -> None:
    if num_samples < MIN_DURATION * SAMPLE_RATE:
        seconds = num_samples / SAMPLE_RATE
        raise AudioError(f"{name} is {seconds:.3f} s long; at least {float(MIN_DURATION):g} s are needed")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scan:
    """length: samples a channel. mix: which of the mixes is taken. peaks: largest magnitude of each mix.
    stored_peak: the peak of what a video gets. loudest: the peak of any channel. lost: seconds of each
    piece left out."""

    length: int
    mix: int
    peaks: list[float]
    stored_peak: float
    loudest: float
    lost: list[float]


def _best(ways: list[Encoded]) -> tuple[Encoded, _Scan]:
    """The first way that reads all of the file, or that which reads the most."""
    found: tuple[Encoded, _Scan] | None = None
    damaged = False
    for encoded in ways:
        scan, slack = _scan(encoded), _slack(encoded)
        damaged |= bool(scan.lost)
        seconds = scan.length / encoded.rate
        if found is None or seconds > found[1].length / found[0].rate + slack:
            found = encoded, scan
        if scan.length and not scan.lost and seconds + slack >= max(encoded.stated, encoded.held):
            break
    assert found is not None
    if damaged and not found[1].lost:  # FFmpeg says nothing of some damage
        found = found[0], replace(found[1], lost=[0.0])
    if not found[1].length:
        remarks = "; it ".join(_missing(*found))
        raise AudioError(
            f"{found[0].path} has no samples{' that can be read; it ' + remarks if remarks else ''}"
        )
    return found


def _slack(encoded: Encoded) -> float:
    """Seconds that may lie between two ways of reading: what encoders add at both ends, left out or not."""
    return max(0.125, 3456 / encoded.rate)


def _missing(encoded: Encoded, scan: _Scan) -> Iterator[str]:
    seconds = scan.length / encoded.rate
    if encoded.stated > seconds + _PADDING:
        yield f"is cut short or damaged: of {encoded.stated:.2f} s only {seconds:.2f} s can be read"
    elif any(scan.lost):
        several = len(scan.lost) > 1
        pieces = f"{len(scan.lost)} damaged pieces" if several else "a damaged piece"
        are = "are" if several else "is"
        yield f"has {pieces}, about {sum(scan.lost):.2f} s, that cannot be read and {are} left out"
    elif scan.lost:
        yield "is damaged: what cannot be read is left out"
    if encoded.remark:
        yield encoded.remark


def _within_full_scale(peak: float) -> float:
    return 1.0 / peak if peak > 1.0 else 1.0


def _scan(encoded: Encoded) -> _Scan:
    usual, fully = (mix.weights for mix in mixes(encoded.places)[:2])
    video = for_video(encoded.places) if encoded.channels > 2 else None
    length, mixed, stored_peak = 0, [0.0, 0.0], 0.0
    alone, products = np.zeros(encoded.channels), np.zeros((encoded.channels, encoded.channels))
    lost: list[float] = []
    for block in encoded.blocks(lost):
        if not np.isfinite(block.sum(dtype=np.float64)):
            first = int(np.argmin(np.isfinite(block).all(axis=1)))
            seconds = (length + first) / encoded.rate
            raise AudioError(f"{encoded.path} holds NaN or infinite samples, the first at {seconds:.3f} s")
        length += len(block)
        planes = np.ascontiguousarray(block.T)  # numpy is slow along short rows
        alone = np.maximum(alone, [_peak(plane) for plane in planes])
        if encoded.channels > 1:
            products += (wide := planes.astype(np.float64)) @ wide.T
            mixed = [max(peak, _peak(block @ each)) for peak, each in zip(mixed, (usual, fully), strict=True)]
        if video is not None:
            stored_peak = max(stored_peak, _peak(block @ video))
    peaks = [*(mixed if encoded.channels > 1 else [*alone, *alone]), *alone.tolist()]
    loudest = float(alone.max())
    return _Scan(
        length=length, mix=choose(encoded.places, products), peaks=peaks,
        stored_peak=loudest if video is None else stored_peak, loudest=loudest, lost=lost,
    )  # fmt: skip


def _peak(samples: np.ndarray) -> float:
    return max(float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))


def _mono_16k(encoded: Encoded, weights: np.ndarray, gain: float) -> Iterator[np.ndarray]:
    """The whole sound in order. Blocks depend on the file alone, so a second pass gives the same bits."""
    same = encoded.rate == SAMPLE_RATE
    stream = None if same else soxr.ResampleStream(encoded.rate, SAMPLE_RATE, 1, dtype="float32")
    for block in encoded.blocks():
        mono = (block @ weights) * np.float32(gain)
        yield np.clip(stream.resample_chunk(mono) if stream else mono, -1.0, 1.0)
    if stream:
        yield np.clip(stream.resample_chunk(np.zeros(0, np.float32), last=True), -1.0, 1.0)
