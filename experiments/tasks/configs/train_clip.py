"""Settings of `experiments.tasks.train_clip`."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.tasks.configs.training import PartSettings
from experiments.training.config import IMAGE_SIZE


@dataclass(frozen=True, kw_only=True)
class Config(PartSettings):
    """The text tower is one of its own, which no UNet reads."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.size != IMAGE_SIZE:
            raise ValueError(f"data.size is {self.data.size}; the CLIP towers see {IMAGE_SIZE} pixels")
