"""A task made of components: a recipe of steps, and losses that they share."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.run.files import write_text
from experiments.run.run import Run
from experiments.run.settings import Settings, Text
from tests.experiments.made_up.losses.base import Loss
from tests.experiments.made_up.steps.base import Step
from tests.experiments.made_up.steps.config import Walk


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    prompt: Text
    loss: Loss | None = None
    recipe: dict[str, Step]


def run(config: Config, run: Run) -> None:
    lines = []
    for name, step in config.recipe.items():
        with run.phase(name):
            guidances = step.guidances.values() if isinstance(step, Walk) else ()
            lines.append(f"{name} {sum(each.weight * each.loss(2.0) for each in guidances)}\n")
    write_text(run.artefact("steps.txt", kind="text"), "".join(lines))
