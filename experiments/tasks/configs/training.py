"""Settings that tasks have in common which train; each task adds those of its own recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from avatar.settings import Tuning
from diffusion.limits import check_least
from experiments.run.backbones import BackboneConfig
from experiments.run.settings import BackboneName, FolderPath, Settings
from experiments.training.config import DOWNSCALE, IMAGE_SIZE, LoopConfig
from experiments.world.config import DatasetConfig, TalkingConfig


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """data_folder: where what is learned from is kept and found again; workers: processes that make it."""

    data_folder: FolderPath
    workers: int = 2
    loop: LoopConfig
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, 1, "workers")

    def check_not_held_out(self, *names: str) -> None:
        """Refuse sets of what training never meets."""
        for name in names:
            if getattr(self, name).held_out:
                raise ValueError(
                    f"{name}.held_out is true; training never meets held-out captions and people: leave it false"
                )


@dataclass(frozen=True, kw_only=True)
class PartSettings(TrainSettings):
    """Of a part of the embedded model.

    model: folder in diffusers layout that the part is put into (made when it is not there).
    continue_from: a model folder whose part training starts from, and which a new `model` has its other parts from;
        None starts from random weights.
    held_out_scenes: scenes of captions never trained on, for the held-out measurement.
    """

    model: FolderPath = "outputs/tiny"
    data_folder: FolderPath = "data/world"
    continue_from: BackboneName | None = None
    held_out_scenes: int = 300
    data: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_not_held_out("data")
        check_least(self, 1, "held_out_scenes")
        if self.data.size % DOWNSCALE or self.data.size < IMAGE_SIZE // 2:
            raise ValueError(
                f"data.size is {self.data.size}; it must be a multiple of {DOWNSCALE}, at least {IMAGE_SIZE // 2}"
            )


@dataclass(frozen=True, kw_only=True)
class TalkingSettings(TrainSettings):
    """Of the talking portrait.

    backbone: a folder; the weights are put into its folder `talking`.
    held_out_clips: how many of people, voices and sentences never met are measured on.
    """

    backbone: BackboneConfig
    data_folder: FolderPath = "data/talking"
    held_out_clips: int = 64
    data: TalkingConfig = field(default_factory=TalkingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_not_held_out("data")
        check_least(self, 1, "held_out_clips")


@dataclass(frozen=True, kw_only=True)
class AdapterSettings(TalkingSettings):
    """Of the adapters.

    anew: begin without the adapters that are there.
    tune_unet: what of the UNet new adapters have a copy of, which lesson "image" then trains; None keeps to what those
        that are there have, and is "attention" for new ones.
    """

    anew: bool = False
    tune_unet: Tuning | None = None
