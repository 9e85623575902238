"""Settings of `experiments.tasks.benchmark_talk_files`."""

from __future__ import annotations

from dataclasses import dataclass, field

from avatar.settings import AnimateConfig, FaceChoice
from diffusion.limits import check_range
from experiments.run.backbones import BackboneConfig
from experiments.run.settings import FilePath, FolderPath, Settings
from experiments.tasks.configs.speaking import rate


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """portrait_dir, audio_dir: folders of pictures and of recordings. What cannot be read is left out and listed in the
        report. Every other file is used at least once: they are paired in the order of their names, the shorter list
        going round.
    seconds: how much of a recording is used at most.
    face: which face of a picture, as in talk/quickstart.
    measures: a folder with mouth.safetensors; None takes the one beside the adapters.
    """

    portrait_dir: FolderPath
    audio_dir: FolderPath
    seconds: float = 8.0
    face: FaceChoice = "auto"
    fps: str = "25"
    backbone: BackboneConfig
    talking: FilePath | None = None
    measures: FolderPath | None = None
    animate: AnimateConfig = field(default_factory=AnimateConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        rate(self.fps)
        check_range(self, 0.4, 600, "seconds")
