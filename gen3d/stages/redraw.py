"""The mesh drawn once more by the model, from straight ahead and around, for its texture.

The views that a volume was fitted to come from many sides in turn, and agree with each other by showing less and less.
The mesh has its shape by then, so the model may change much of what is on it: it gets pictures of the mesh, noised far
(SDEdit), and gives what belongs there, eyes to a face above all.
"""

from __future__ import annotations

import torch

from gen3d.cameras import ring
from gen3d.mesh_state import load_mesh
from gen3d.optimize import Transform
from gen3d.render.shading import render_mesh
from gen3d.stages.base import Given
from gen3d.stages.config import RedrawConfig
from gen3d.state import State
from gen3d.views import Views


class Redraw(Transform):
    """Leaves in `views/...` the latest views of before and, after them, those drawn from the mesh."""

    name = "redraw"

    def __init__(self, config: RedrawConfig, given: Given) -> None:
        config.check_rules(given.prior)
        self.config, self.prior = config, given.prior()

    @torch.no_grad()
    def apply(self, state: State, generator: torch.Generator) -> dict[str, float]:
        config, mesh, views = self.config, load_mesh(state), Views.load(state)
        cameras = ring(config.num_views, elevation_deg=config.elevation_deg, fovy_deg=config.fovy_deg).to(
            mesh.device
        )
        size, background = views.images.shape[-1], views.backgrounds[-1]
        shown = render_mesh(mesh, cameras, size, size, background=background, mode="albedo")
        images = self.prior.sample(
            cameras, generator, init_images=shown.images, start_timestep=config.timestep
        )
        drawn = Views.from_images(images, cameras, threshold=config.mask_threshold)
        kept = views[max(0, len(views) - config.keep_views) :]
        Views.cat([kept, drawn]).save(state)
        return {"changed": float((images - shown.images).square().mean())}
