"""Settings of `experiments.tasks.benchmark_talk`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avatar.settings import AnimateConfig
from diffusion.limits import check_least
from experiments.run.backbones import BackboneConfig
from experiments.run.settings import FilePath, FolderPath, Settings


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """num_clips: how many held-out people speak; num_frames: how many frames of each are scored, at 25 a second.

    speech: "espeak" says sentences and needs the extra 'world'; "formants" babbles and needs nothing.
    num_found: how many of the clips are made a second time about the face that is found in the portrait, as the task
        `talk` makes them; the others take the true face, which the world knows.
    num_videos: how many clips get a video of the truth beside what was made.
    measures: a folder with mouth.safetensors and, if there is one, sync.safetensors; None takes those beside the
        adapters.
    """

    num_clips: int = 24
    num_frames: int = 120
    speech: Literal["espeak", "formants"] = "espeak"
    num_found: int = 8
    num_videos: int = 3
    backbone: BackboneConfig
    talking: FilePath | None = None
    measures: FolderPath | None = None
    animate: AnimateConfig = field(default_factory=AnimateConfig)
    workers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, 1, "num_clips", "workers")
        check_least(self, 0, "num_videos", "num_found")
        check_least(self, 6, "num_frames")
