"""Pictures of the representation, as views for the stages that work on a mesh."""

from __future__ import annotations

import torch

from gen3d.cameras import orbit
from gen3d.optimize import Transform
from gen3d.representations.base import load
from gen3d.stages.base import Given
from gen3d.stages.config import PictureConfig
from gen3d.state import State
from gen3d.views import Views

_GREY = (0.5, 0.5, 0.5)


class TakePictures(Transform):
    """Leaves in `views/...` what the representation looks like from around."""

    name = "picture"

    def __init__(self, config: PictureConfig, given: Given) -> None:
        self.config, self.representation = config, given.chosen.representation

    @torch.no_grad()
    def apply(self, state: State, generator: torch.Generator) -> dict[str, float]:
        config = self.config
        representation = load(self.representation, state)
        azimuths, elevations = [], []
        for ring, elevation in enumerate(config.elevations_deg):
            # Each ring is turned against the one before, so that no side is seen from the same few angles.
            turn = ring / len(config.elevations_deg)
            azimuths += [360.0 * (view + turn) / config.num_views for view in range(config.num_views)]
            elevations += [elevation] * config.num_views
        cameras = orbit(azimuths, elevations, fovy_deg=config.fovy_deg).to(representation.device)
        background = torch.tensor(_GREY, device=representation.device).expand(len(cameras), 3).contiguous()
        wanted = config.domains
        rendered = representation.render_rgb(cameras, config.size, background, normals="normals" in wanted)
        for name in wanted:
            if getattr(rendered, name) is None:
                raise ValueError(
                    f"{type(representation).__name__} renders no {name}; leave it out of picture domains"
                )
        depth = None
        if rendered.depth is not None and "depth" in wanted:
            distance = rendered.depth / rendered.opacity.clamp_min(1e-3)
            depth = torch.where(rendered.opacity > 0.5, distance, 0.0)
        Views(
            images=rendered.images,
            masks=rendered.opacity,
            backgrounds=background,
            cameras=cameras,
            depth=depth,
            normals=rendered.normals,
        ).save(state)
        return {"views": float(len(cameras)), "seen": float(rendered.opacity.mean())}
