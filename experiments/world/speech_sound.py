"""A recording that knows its own phonemes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experiments.world.visemes import Phone

SAMPLE_RATE = 16_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Speech:
    """audio: [N] float32 at 16 kHz in [-1, 1]. phones: in order of time, '' for pauses. text, voice: what and who."""

    audio: Tensor
    phones: tuple[Phone, ...]
    text: str = ""
    voice: str = ""

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.audio) / SAMPLE_RATE

    def padded(self, before: float, after: float) -> Speech:
        """With so many seconds of silence around it."""
        if before < 0 or after < 0:
            raise ValueError(f"silence must be 0 s or more, got {before} and {after}")
        first, last = round(before * SAMPLE_RATE), round(after * SAMPLE_RATE)
        shift = first / SAMPLE_RATE
        return replace(
            self,
            audio=torch.nn.functional.pad(self.audio, (first, last)),
            phones=tuple(Phone(p.name, p.start + shift, p.stop + shift) for p in self.phones),
        )
