"""Settings of video files; nothing here needs torch or FFmpeg."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """fps: frames a second. crf: x264's quality, 0 (lossless) to 51; 18 looks like the source."""

    fps: int = 24
    crf: int = 18

    def __post_init__(self) -> None:
        if not 1 <= self.fps <= 240:
            raise ValueError(f"fps must be in 1 ... 240, got {self.fps}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be in 0 ... 51, got {self.crf}")
