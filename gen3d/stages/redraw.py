"""The mesh drawn once more by the model, from straight ahead and around, for its texture.

The views that a volume was fitted to come from many sides in turn, and agree with each other by showing less and less.
The mesh has its shape by then, so the model may change much of what is on it: it gets pictures of the mesh, noised far
(SDEdit), and gives what belongs there, eyes to a face above all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gen3d.cameras import ring
from gen3d.render.shading import render_mesh
from gen3d.stages.mesh import load_mesh
from gen3d.stages.views import ViewProvider, Views
from gen3d.state import State


@dataclass(frozen=True, kw_only=True)
class RedrawConfig:
    """timestep: where SDEdit starts, out of 1000; 0 leaves the stage out. num_views: evenly around, the first from
    straight ahead; a multiple of the backbone's. elevation_deg: of all of them. keep_views: how many of the latest
    views stay beside the new ones. mask_threshold: as of ``gen3d.stages.views.soft_mask``."""

    timestep: int = 600
    num_views: int = 8
    elevation_deg: float = 10.0
    fovy_deg: float = 40.0
    keep_views: int = 8
    mask_threshold: float = 0.06

    def __post_init__(self) -> None:
        if not 0 <= self.timestep <= 1000:
            raise ValueError(f"redraw timestep must lie in 0..1000, got {self.timestep}")
        if self.num_views < 1:
            raise ValueError(f"redraw num_views must be at least 1, got {self.num_views}")
        if self.keep_views < 0:
            raise ValueError(f"redraw keep_views must not be negative, got {self.keep_views}")
        if not 0.0 < self.mask_threshold < 1.0:
            raise ValueError(f"redraw mask_threshold must lie between 0 and 1, got {self.mask_threshold}")

    def build(self, provider: ViewProvider) -> Redraw:
        return Redraw(self, provider)


class Redraw:
    """Leaves in ``views/...`` the latest views of before and, after them, those drawn from the mesh."""

    name = "redraw"
    num_steps = 1

    def __init__(self, config: RedrawConfig, provider: ViewProvider) -> None:
        self.config, self.provider = config, provider

    def start(self, state: State, generator: torch.Generator) -> None:
        state.drop("adam")

    @torch.no_grad()
    def step(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        config, mesh, views = self.config, load_mesh(state), Views.load(state)
        cameras = ring(config.num_views, elevation_deg=config.elevation_deg, fovy_deg=config.fovy_deg).to(
            mesh.device
        )
        size, background = views.images.shape[-1], views.backgrounds[-1]
        shown = render_mesh(mesh, cameras, size, size, background=background, mode="albedo")
        images = self.provider(cameras, shown.images, config.timestep, generator)
        drawn = Views.from_images(images, cameras, threshold=config.mask_threshold)
        kept = views[max(0, len(views) - config.keep_views) :]
        Views.cat([kept, drawn]).save(state)
        return {"loss": float((images - shown.images).square().mean())}
