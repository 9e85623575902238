"""From a representation to a mesh with its colours."""

from __future__ import annotations

import torch

from gen3d.mesh_state import save_mesh
from gen3d.optimize import Transform
from gen3d.representations.base import RepresentationConfig, load
from gen3d.stages.config import ExtractConfig
from gen3d.state import State
from gen3d.views import Views


class ExtractMesh(Transform):
    """`representation/...` to `mesh/...`."""

    name = "extract"

    def __init__(self, config: ExtractConfig, representation: RepresentationConfig) -> None:
        self.config, self.representation = config, representation

    def apply(self, state: State, generator: torch.Generator) -> dict[str, float]:
        views = Views.load(state) if Views.are_in(state) else None
        mesh = load(self.representation, state).to_mesh(self.config, views)
        save_mesh(state, mesh)
        return {"vertices": float(mesh.num_vertices), "faces": float(mesh.num_faces)}
