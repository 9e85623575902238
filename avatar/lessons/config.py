"""EMO's three lessons (arXiv 2402.17485, section 3.3); nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from avatar.lessons.base import Lesson
from diffusion.limits import check_least


@dataclass(frozen=True, kw_only=True)
class Image(Lesson):
    """Who it is: frames are pictures of their own, without sound."""

    trains: ClassVar[tuple[str, ...]] = ("unet", "reference", "identity", "locator")
    still: ClassVar[bool] = True

    name: Literal["image"] = "image"


@dataclass(frozen=True, kw_only=True)
class Moving(Lesson):
    """What lessons with frames in a row have in common.

    num_frames: frames of each clip learned from, motion frames not counted.
    drop_audio, drop_motion: probability that a clip loses the sound, or the frames before.
    """

    num_frames: int = 8
    drop_audio: float = 0.05
    drop_motion: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, 1, "num_frames")

    def frames(self) -> int:
        return self.num_frames

    def dropped(self) -> tuple[float, float, float]:
        return self.drop_reference, self.drop_audio, self.drop_motion


@dataclass(frozen=True, kw_only=True)
class Video(Moving):
    """What sound does, and how frames follow one another.

    freeze_sound: leave the projection of the sound as it is, one that was taught beforehand.
    """

    trains: ClassVar[tuple[str, ...]] = ("sound", "audio", "motion")

    name: Literal["video"] = "video"
    freeze_sound: bool = False

    def groups(self) -> tuple[str, ...]:
        return tuple(group for group in self.trains if not (self.freeze_sound and group == "sound"))


@dataclass(frozen=True, kw_only=True)
class Motion(Moving):
    """Motion, speed and blinks alone: to learn what sound does beside them would weaken it."""

    trains: ClassVar[tuple[str, ...]] = ("motion", "speed")
    steered: ClassVar[bool] = True

    name: Literal["motion"] = "motion"
