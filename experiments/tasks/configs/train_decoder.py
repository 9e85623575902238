"""Settings of `experiments.tasks.train_decoder`."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion.limits import check_least
from experiments.run.backbones import BackboneConfig
from experiments.run.settings import FolderPath
from experiments.tasks.configs.training import TrainSettings
from experiments.training.config import DecoderConfig
from experiments.world.config import DatasetConfig, TalkingConfig


@dataclass(frozen=True, kw_only=True)
class Config(TrainSettings):
    """backbone: whose decoder learns; its latents, and so all that was trained on them, stay as they are.

    model: the folder that gets the trained decoder, begun as a copy of the backbone's.
    held_out_scenes, held_out_closeups, held_out_clips: how many are measured on, of captions and people never trained
        on.
    data: scenes to train on. people: those who talk in the portraits; what comes before the first frames of their clips
        goes to the talking model alone.
    """

    backbone: BackboneConfig
    model: FolderPath = "outputs/tiny"
    data_folder: FolderPath = "data/decoder"
    held_out_scenes: int = 24
    held_out_closeups: int = 40
    held_out_clips: int = 30
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    data: DatasetConfig = field(default_factory=lambda: DatasetConfig(num_scenes=1000))
    people: TalkingConfig = field(
        default_factory=lambda: TalkingConfig(
            num_clips=600, clips_per_shard=10, num_frames=6, speech="formants"
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_not_held_out("data", "people")
        check_least(self, 1, "held_out_scenes", "held_out_closeups", "held_out_clips")
        if self.data.size != self.people.size:
            raise ValueError(
                f"data.size is {self.data.size} and people.size {self.people.size}; they must be the same"
            )
