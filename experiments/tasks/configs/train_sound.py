"""Settings of `experiments.tasks.train_sound`."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion.limits import check_least
from experiments.tasks.configs.training import AdapterSettings
from gen3d.limits import check_unused


@dataclass(frozen=True, kw_only=True)
class Config(AdapterSettings):
    """num_utterances: how many are learned from, without pictures."""

    num_utterances: int = 8000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, 1, "num_utterances")
        why = "sound is learned without pictures, from num_utterances"
        check_unused("data", self.data, ("num_clips", "size", "still", "framing"), why)
