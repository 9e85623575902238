"""The control: a prior that knows the truth, for captions of the procedural world."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.benchmark.truth import TrueViews
from experiments.priors.config import TruthConfig
from gen3d.cameras import Cameras
from gen3d.priors.base import Prior, Request
from gen3d.prompts import Color, background_of, on_background


class TruthPrior(Prior):
    """The world's own pictures, of the backbone's size; what is asked for with `init_images` is shown all the same."""

    num_views = 1

    def __init__(self, config: TruthConfig, request: Request) -> None:
        self.caption = on_background(request.prompt, config.background)
        self.image_size = request.backbone.image_size
        self.views = TrueViews(self.caption, self.image_size)

    @property
    def background(self) -> Color | None:
        return background_of(self.caption)

    def sample(
        self,
        cameras: Cameras,
        generator: torch.Generator,
        *,
        init_images: Tensor | None = None,
        start_timestep: int | None = None,
    ) -> Tensor:
        return self.views(cameras)
