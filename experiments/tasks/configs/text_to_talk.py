"""Settings of `experiments.tasks.text_to_talk`."""

from __future__ import annotations

from dataclasses import dataclass

from avatar.settings import FaceChoice
from experiments.tasks.configs import text_to_3d
from experiments.tasks.configs.speaking import SpeakSettings


@dataclass(frozen=True, kw_only=True)
class Config(text_to_3d.Config, SpeakSettings):
    """portrait_size: side of the portrait in pixels, even. background: colour behind it, sRGB in [0, 1].

    face: how the face is found in the portrait; where none is found, a bust's usual place is taken.
    """

    portrait_size: int = 256
    background: tuple[float, float, float] = (0.83, 0.83, 0.83)
    face: FaceChoice = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.portrait_size < 64 or self.portrait_size % 2:
            raise ValueError(f"portrait_size is {self.portrait_size}; it must be even and at least 64")
        if not all(0.0 <= value <= 1.0 for value in self.background):
            raise ValueError(f"background is {self.background}; it must be three numbers in [0, 1]")
