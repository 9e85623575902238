"""Settings of `experiments.tasks.train_measure`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from experiments.tasks.configs.training import TalkingSettings


@dataclass(frozen=True, kw_only=True)
class Config(TalkingSettings):
    """part: "mouth" is the reader of mouth openings, "sync" the miniature SyncNet."""

    part: Literal["mouth", "sync"]
