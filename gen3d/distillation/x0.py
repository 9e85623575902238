"""MVDream's reconstruction loss (arXiv 2308.16512): pull the latents to the denoised estimate of all views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Loss, Scores, check_guidance_scale

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory


@dataclass(frozen=True, kw_only=True)
class X0(Loss):
    """guidance_scale: the standard one. rescale: share of the contrast added by guidance that is undone, in [0, 1];
    with 0 the loss is SDS with w(t) = sigma / alpha."""

    name: Literal["x0"] = "x0"
    guidance_scale: float = 1.5
    rescale: float = 0.5

    def __post_init__(self) -> None:
        check_guidance_scale("x0", self.guidance_scale)
        check_range(self, 0, 1, "rescale", of="x0")

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        return latents - scores.guided_x0(self.guidance_scale, self.rescale)
