"""Score distillation sampling (DreamFusion, arXiv 2209.14988): gradient w(t) (eps_hat - eps).

A choice of the linear form (`gen3d.distillation.linear`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.linear import NOISE, asked, linear
from gen3d.distillation.weighting import Weighting, weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.cameras import Cameras
    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior


@dataclass(frozen=True, kw_only=True)
class SDS(Loss):
    """guidance_scale: the standard one (threestudio's plus 1). weighting: w(t), see `weighting.weight`."""

    name: Literal["sds"] = "sds"
    guidance_scale: float = 2.5
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_guidance_scale("sds", self.guidance_scale)

    def _coefficients(self, prior: ScoringPrior, cameras: Cameras) -> dict[str, float]:
        unconditional, *_ = prior.guidance_conditions(cameras)
        return {unconditional: 1.0 - self.guidance_scale, "cond": self.guidance_scale}

    def conditions(self, prior: ScoringPrior, cameras: Cameras) -> tuple[str, ...]:
        coefficients = self._coefficients(prior, cameras)
        return asked(prior, cameras, [name for name, value in coefficients.items() if value])

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        w = weight(scores.alpha(), scores.sigma(), self.weighting)
        coefficients = self._coefficients(scores.prior, scores.cameras)
        return w * linear(scores, noise, {**coefficients, NOISE: -1.0})
