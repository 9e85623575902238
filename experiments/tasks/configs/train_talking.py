"""Settings of `experiments.tasks.train_talking`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avatar.settings import StageConfig, Tuning
from diffusion.limits import check_least
from experiments.run.backbones import BackboneConfig
from experiments.run.settings import FolderPath, Settings
from experiments.training.config import LoopConfig
from experiments.world.config import TalkingConfig


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """part: "talk" trains the adapters, one of EMO's stages at a time (`training.stage`); "sound" what they hear, the
        projection of the sound, beforehand; "mouth" the reader of mouth openings and "sync" the miniature SyncNet,
        which only measure.
    backbone: a folder whose UNet the adapters are made for. The weights are put into its folder `talking`; a stage of
        "talk" goes on from the adapters that are there (anew=true starts without).
    new_unet: the UNet was trained further since the adapters were; they are a start for adapters of the new one. Stage
        "image" first.
    num_frames: frames of each clip trained on, motion frames not counted.
    num_utterances: how many utterances "sound" learns from.
    tune_unet: "attention" and "all": train a copy of the UNet's attention layers, or of all of it, too, which is then
        saved with the adapters (stage "image").
    gradient_checkpointing: layers of the adapters and the UNet are computed again on the way back, not kept: less
        memory, more time, the same weights.
    """

    part: Literal["talk", "sound", "mouth", "sync"]
    backbone: BackboneConfig
    training: StageConfig
    anew: bool = False
    new_unet: bool = False
    num_frames: int = 8
    num_utterances: int = 8000
    tune_unet: Tuning = "attention"
    gradient_checkpointing: bool = False
    data_folder: FolderPath = "data/talking"
    workers: int = 2
    held_out_clips: int = 64
    data: TalkingConfig = field(default_factory=TalkingConfig)
    loop: LoopConfig
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.held_out:
            raise ValueError("data.held_out is true; training never meets held-out people: leave it false")
        if self.new_unet and (self.anew or self.training.stage != "image"):
            raise ValueError("new_unet is true, which is for training.stage=image with anew=false")
        check_least(self, 1, "num_frames", "num_utterances", "held_out_clips", "workers")
