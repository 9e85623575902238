"""The control: a prior that knows the truth, for captions of the procedural world."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion.domains import DOMAINS, Domain
from experiments.benchmark.truth import TrueViews
from experiments.priors.config import TruthConfig
from gen3d.cameras import Cameras
from gen3d.priors.base import Prior, Request
from gen3d.prompts import Color, background_of, on_background


class TruthPrior(Prior):
    """The world's own pictures, of the backbone's size; what is asked for with `init_images` is shown all the same, but
    for what is `fixed`."""

    num_views = 1
    domains = DOMAINS

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
        domains: Sequence[Domain] | None = None,
        fixed: Tensor | None = None,
    ) -> Tensor:
        self.check_views(cameras, init_images, domains, fixed)
        images = self.views(cameras, domains)
        if init_images is None or fixed is None:
            return images
        return torch.where(fixed[:, None, None, None], init_images, images)
