"""Score distillation sampling (DreamFusion, arXiv 2209.14988): gradient w(t) (eps_hat - eps)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.weighting import Weighting, weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory


@dataclass(frozen=True, kw_only=True)
class SDS(Loss):
    """guidance_scale: the standard one (threestudio's plus 1). weighting: w(t), see `weighting.weight`."""

    name: Literal["sds"] = "sds"
    guidance_scale: float = 20.0
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_guidance_scale("sds", self.guidance_scale)

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        w = weight(scores.alpha(), scores.sigma(), self.weighting)
        return w * (scores.guided_eps(self.guidance_scale) - noise)
