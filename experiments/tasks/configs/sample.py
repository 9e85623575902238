"""Settings of `experiments.tasks.sample`."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion.limits import check_least, check_range
from experiments.run.backbones import BackboneConfig, check_prompt
from experiments.run.settings import Settings, Text
from gen3d.priors.config import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """prompt: what to show. num_objects: rows of the grid, each from noise of its own.

    azimuth_deg: of the first view; the others follow at equal angles. elevation_deg: of all.
    """

    prompt: Text
    negative_prompt: Text = ""
    num_objects: int = 4
    azimuth_deg: float = 0.0
    elevation_deg: float = 15.0
    backbone: BackboneConfig
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_prompt(self.prompt)
        check_least(self, 1, "num_objects")
        check_range(self, -360, 360, "azimuth_deg")
        check_range(self, -90, 90, "elevation_deg")
