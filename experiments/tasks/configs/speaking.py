"""Settings that the tasks share which end in talk.mp4."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from avatar.settings import AnimateConfig
from experiments.run.backbones import BackboneConfig
from experiments.run.settings import FilePath, Settings
from video.config import EncodeConfig


@dataclass(frozen=True, kw_only=True)
class SpeakSettings(Settings):
    """audio: a recording of speech; any length, rate and number of channels.

    talking: a file of adapters for the backbone; None takes those that lie beside it.
    frame: "picture" puts the speaking face back into the whole picture, "face" keeps the square around it.
    fps: frames a second, such as 25 or 30000/1001. crf: quality of the video, 0 (lossless) to 51.
    """

    audio: FilePath
    backbone: BackboneConfig
    talking: FilePath | None = None
    frame: Literal["picture", "face"] = "picture"
    fps: str = "25"
    animate: AnimateConfig = field(default_factory=AnimateConfig)
    crf: int = 18

    def __post_init__(self) -> None:
        super().__post_init__()
        rate(self.fps)
        EncodeConfig(crf=self.crf)


def rate(fps: str) -> Fraction:
    """The frame rate a setting names; ValueError for anything but a number from 1 to 120."""
    try:
        value = Fraction(str(fps))
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if not 1 <= value <= 120 or value.denominator > 1001:
        raise ValueError(f"fps is {fps!r}; it must be a number from 1 to 120, such as 25 or 30000/1001")
    return value
