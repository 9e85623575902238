"""A representation fitted to views that are there."""

from __future__ import annotations

import torch
from torch import Tensor

from gen3d.limits import check_unused
from gen3d.optimize import Fit
from gen3d.representations.base import GROUP, Field, load
from gen3d.stages.base import Given
from gen3d.stages.config import FitConfig
from gen3d.stages.fitting import begin, finish_step, fit_losses, learning_rates, refresh, take_level
from gen3d.state import State
from gen3d.views import Views


class FitViews(Fit):
    """`views/...` to `representation/...`. One step is one batch of pixels."""

    name = "fit"

    def __init__(self, config: FitConfig, given: Given) -> None:
        self.config, self.num_steps, self.device = config, config.num_steps, given.device
        self.representation = config.representation or given.chosen.representation
        self.views, self.init_mesh = given.views, given.init_mesh

    def start(self, state: State, generator: torch.Generator) -> None:
        config = self.config
        if self.views is not None and not Views.are_in(state):
            self.views.to(self.device).save(state)
        views = Views.load(state)
        for name in ("depth", "normals"):
            if getattr(views, name) is None:
                check_unused("fit", config, [name], f"the views have no {name}")
        if config.hull:
            field = self.representation.begin(self.device)
            assert isinstance(field, Field)
            field.carve(views, tolerance=config.hull_tolerance)
            field.save(state)
        elif config.representation is not None or not state.group(GROUP):
            begin(self.representation, self.init_mesh, self.device).save(state)

    def before(self, state: State, step: int, generator: torch.Generator) -> None:
        part = self._part(step)
        if step == 0 or part != self._part(step - 1):
            take_level(self.representation, state, part)
        elif step % self.config.refresh_every == 0:
            refresh(self.representation, state)

    def rates(self, state: State, step: int) -> dict[str, float]:
        progress = step / self.num_steps
        return learning_rates(self.representation, state, self.config.rate(progress), progress)

    def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        representation = load(self.representation, state)
        return fit_losses(representation, Views.load(state), self.config, step / self.num_steps, generator)

    def after(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        finish_step(self.representation, state, step / self.num_steps, generator)
        return {}

    def _part(self, step: int) -> int:
        """Which of the representation's resolutions a step has."""
        return step * self.config.num_levels // self.num_steps
