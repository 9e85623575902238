"""What a model hears of each video frame. The embedded default is a log-mel spectrogram; encoders live next door.

Features of a clip are the same whether they are read a clip at a time or at once.

Legend: F video frames, B blocks a frame (time steps or encoder layers), D numbers a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from avatar.audio import SAMPLE_RATE, AudioSource
from avatar.audio_frames import num_frames, read_track
from diffusion.limits import check_least

# Hops are worked out in blocks that begin at multiples of this, so that their bits do not depend on who asks.
_BLOCK = 100


class FrameFeatures(Protocol):
    """Features of one sound at one frame rate."""

    @property
    def num_frames(self) -> int:
        """Video frames that cover the sound."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """(B, D) of one frame."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Frames start ... stop - 1, [F, B, D] float32, within 0 ... num_frames."""
        ...


class SpeechFeatures(Protocol):
    """Turns sounds into `FrameFeatures`."""

    @property
    def shape(self) -> tuple[int, int]:
        """(B, D) of one frame."""
        ...

    def of(self, audio: AudioSource, fps: Fraction) -> FrameFeatures:
        """The features of a sound at `fps` frames a second."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LogMelConfig:
    """A log-mel spectrogram by librosa, `per_frame` places of it a video frame (4 at 25 frames a second: every hop).

    num_bins: mel bands (Slaney's scale and area norm) from 0 to 8000 Hz. window, hop: samples at 16 kHz.
    floor: power below which all is silence; full scale lies near 100.
    normalize: 'fixed' subtracts and divides by two constants, needs nothing but the sound near the frame, and so can
        stream from a microphone. 'utterance' makes each band's mean over the whole sound 0 and divides by the
        deviation over all bands: it removes level and colouring, and reads the sound once beforehand.
    """

    num_bins: int = 80
    hop: int = 160
    window: int = 400
    num_fft: int = 512
    per_frame: int = 4
    floor: float = 1e-7
    normalize: Literal["fixed", "utterance"] = "fixed"

    def __post_init__(self) -> None:
        check_least(self, 1, "num_bins", "hop", "window", "num_fft", "per_frame")
        if self.window > self.num_fft:
            raise ValueError(f"window must fit into num_fft = {self.num_fft} samples, got {self.window}")
        if not self.floor > 0:
            raise ValueError(f"floor must be above 0, got {self.floor}")
        if self.normalize not in ("fixed", "utterance"):
            raise ValueError(f"normalize must be 'fixed' or 'utterance', got {self.normalize!r}")

    def build(self) -> LogMel:
        """The features these settings describe."""
        return LogMel(self)


# Of world speech in noise and rooms, so that 'fixed' features lie within a few units of 0.
_MEAN, _DEVIATION = -4.4, 2.0


@dataclass(frozen=True, slots=True)
class LogMel:
    """log10 mel power; hop k is centred on sample k * hop, as librosa's with center=True and zeros around."""

    config: LogMelConfig

    @property
    def shape(self) -> tuple[int, int]:
        """(places a frame, bands)."""
        return self.config.per_frame, self.config.num_bins

    def track(self, audio: AudioSource, start: int, stop: int) -> Tensor:
        """Hops start ... stop - 1, [stop - start, num_bins], not normalised: log10(max(power, floor))."""
        if not 0 <= start <= stop:
            raise ValueError(f"hops must run from 0 or later and forwards, got {start} ... {stop}")
        first, last = start // _BLOCK, -(-stop // _BLOCK)
        blocks = [self._block(audio, i * _BLOCK) for i in range(first, max(last, first + 1))]
        return torch.cat(blocks)[start - first * _BLOCK : stop - first * _BLOCK]

    def _block(self, audio: AudioSource, first: int) -> Tensor:
        import librosa

        config = self.config
        reach = config.num_fft // 2
        low = first * config.hop - reach
        samples = audio.read(low, low + (_BLOCK - 1) * config.hop + config.num_fft).numpy()
        spectrum = librosa.stft(
            samples, n_fft=config.num_fft, hop_length=config.hop, win_length=config.window, center=False
        )
        power = _filters(config.num_bins, config.num_fft) @ np.abs(spectrum) ** 2
        return torch.from_numpy(np.log10(np.maximum(power, config.floor)).T.astype(np.float32))

    def of(self, audio: AudioSource, fps: Fraction) -> LogMelFrames:
        """The features of a sound; 'utterance' reads all of it here."""
        mean = torch.full((self.config.num_bins,), _MEAN)
        deviation = torch.tensor(_DEVIATION)
        if self.config.normalize == "utterance":
            mean, deviation = self._statistics(audio)
        return LogMelFrames(self, audio, Fraction(fps), mean, deviation)

    def _statistics(self, audio: AudioSource) -> tuple[Tensor, Tensor]:
        hops = audio.num_samples // self.config.hop + 1
        total = torch.zeros(2, self.config.num_bins, dtype=torch.float64)
        for start in range(0, hops, 10 * _BLOCK):
            values = self.track(audio, start, min(start + 10 * _BLOCK, hops)).double()
            total += torch.stack([values.sum(0), values.square().sum(0)])
        mean, square = (total / hops).unbind()
        deviation = (square - mean.square()).clamp(min=0).mean().sqrt()
        return mean.float(), deviation.float().clamp(min=0.1)


@dataclass(frozen=True, slots=True)
class LogMelFrames:
    """A sound's log-mel features at one frame rate: see `FrameFeatures`."""

    features: LogMel
    audio: AudioSource
    fps: Fraction
    mean: Tensor
    deviation: Tensor

    @property
    def num_frames(self) -> int:
        """Video frames that cover the sound."""
        return num_frames(self.audio.duration, self.fps)

    @property
    def shape(self) -> tuple[int, int]:
        """(places a frame, bands)."""
        return self.features.shape

    def read(self, start: int, stop: int) -> Tensor:
        """Frames start ... stop - 1, [F, B, D] float32, normalised."""
        check_range(start, stop, self.num_frames)
        config = self.features.config
        values = read_track(
            lambda a, b: self.features.track(self.audio, a, b),
            start,
            stop,
            self.fps,
            rate=Fraction(SAMPLE_RATE, config.hop),
            per_frame=config.per_frame,
        )
        return (values - self.mean) / self.deviation


def check_range(start: int, stop: int, total: int) -> None:
    """Refuse frames that a sound does not have."""
    if not 0 <= start < stop <= total:
        raise ValueError(f"frames must lie in 0 ... {total} and be at least one, got {start} ... {stop}")


@lru_cache(maxsize=8)
def _filters(num_bins: int, num_fft: int) -> np.ndarray:
    import librosa

    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=num_fft, n_mels=num_bins)
