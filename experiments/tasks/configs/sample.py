"""Settings of `experiments.tasks.sample`."""

from __future__ import annotations

from dataclasses import dataclass, field

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
        if self.num_objects < 1:
            raise ValueError(f"num_objects is {self.num_objects}; it must be at least 1")
        if not -360.0 <= self.azimuth_deg <= 360.0:
            raise ValueError(f"azimuth_deg is {self.azimuth_deg}; it must be in -360 ... 360")
        if not -90.0 <= self.elevation_deg <= 90.0:
            raise ValueError(f"elevation_deg is {self.elevation_deg}; it must be in -90 ... 90")
