"""Settings of `experiments.tasks.train_talk`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from avatar.lessons.base import Lesson
from experiments.tasks.configs.training import AdapterSettings


@dataclass(frozen=True, kw_only=True)
class Config(AdapterSettings):
    """lesson: what the adapters are taught; it goes on from those that are there.

    new_unet: the UNet was trained further since the adapters were; they are a start for adapters of the new one. Lesson
        "image" first.
    gradient_checkpointing: layers of the adapters and the UNet are computed again on the way back, not kept: less
        memory, more time, the same weights.
    """

    RENAMED: ClassVar[dict[str, str]] = {
        "training": "lesson=NAME for training.stage=NAME, and lesson.KEY for training.KEY",
        "num_frames": "lesson.num_frames",
    }

    lesson: Lesson
    new_unet: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.new_unet and (self.anew or not self.lesson.still):
            raise ValueError("new_unet is true, which is for lesson=image with anew=false")
