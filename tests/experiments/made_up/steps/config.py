"""Steps of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from experiments.run.settings import Text
from tests.experiments.made_up.losses.base import Loss
from tests.experiments.made_up.steps.base import Step


@dataclass(frozen=True, kw_only=True)
class Guidance:
    loss: Loss
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Walk(Step):
    name: Literal["walk"] = "walk"
    num_steps: int = 3
    background: Text = "auto"
    guidances: dict[str, Guidance] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Mesh(Step):
    name: Literal["mesh"] = "mesh"
    level: float = 10.0
