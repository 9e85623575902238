"""Settings of `experiments.tasks.text_to_3d`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from experiments.run.backbones import BackboneConfig, check_prompt
from experiments.run.settings import Settings, Text
from experiments.tasks.configs.turntable import TurntableConfig
from gen3d.stages.config import QuickstartConfig


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """prompt: what to make. recipe: the stages and their settings.

    views: "sampled" from the backbone, or "truth", a control: the procedural world's own pictures of the caption in
        `prompt`. No model then takes part in the mesh.
    """

    prompt: Text
    negative_prompt: Text = ""
    views: Literal["sampled", "truth"] = "sampled"
    backbone: BackboneConfig
    recipe: QuickstartConfig = field(default_factory=QuickstartConfig)
    turntable: TurntableConfig = field(default_factory=TurntableConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_prompt(self.prompt)
        if self.views == "truth" and self.recipe.distill.num_steps:
            raise ValueError(
                "views=truth leaves the model out, and recipe.distill.num_steps needs it; set it to 0"
            )
