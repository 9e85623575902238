"""One representation made of another."""

from __future__ import annotations

import torch

from gen3d.optimize import Transform
from gen3d.representations.base import load
from gen3d.stages.base import Given
from gen3d.stages.config import ConvertConfig
from gen3d.state import State
from gen3d.views import Views


class Convert(Transform):
    """Leaves in `representation/...` the other one in place of what was there."""

    name = "convert"

    def __init__(self, config: ConvertConfig, given: Given) -> None:
        self.config, self.source, self.device = config, given.chosen.representation, given.device

    @torch.no_grad()
    def apply(self, state: State, generator: torch.Generator) -> dict[str, float]:
        config, source = self.config, load(self.source, state)
        if config.directly(self.source):
            config.representation.begin_as(source, self.device).save(state)
            return {}
        views = Views.load(state) if Views.are_in(state) else None
        mesh = source.to_mesh(config.surface, views).detach().in_unit_sphere()
        config.representation.begin_from(mesh, self.device).save(state)
        return {"vertices": float(mesh.num_vertices), "faces": float(mesh.num_faces)}
