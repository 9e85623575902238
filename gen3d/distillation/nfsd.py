"""Noise-free score distillation (arXiv 2310.17590): gradient w(t) (s (eps_cond - eps_uncond) + delta).

delta stands for where the pictures are unlikely, without the noise that was drawn: eps_uncond at low noise, where the
prediction is nearly that alone, and eps_uncond - eps_negative above. A choice of the linear form
(`gen3d.distillation.linear`). Three network evaluations a step.

Bad at fine detail at low noise: there the predicted noise stays in the gradient and must average out over steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.linear import asked, linear
from gen3d.distillation.weighting import Weighting, weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.cameras import Cameras
    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior


@dataclass(frozen=True, kw_only=True)
class NFSD(Loss):
    """guidance_scale: s. low_noise: share of the schedule below which delta is the unconditional prediction alone.
    weighting: w(t), see `weighting.weight`."""

    name: Literal["nfsd"] = "nfsd"
    guidance_scale: float = 5.0
    low_noise: float = 0.2
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_guidance_scale("nfsd", self.guidance_scale)
        check_range(self, 0, 1, "low_noise", of="nfsd")

    def wants(self) -> frozenset[str]:
        return frozenset({"negative"} if self.low_noise < 1.0 else ())

    def heeds(self) -> frozenset[str]:
        return self.wants()

    def conditions(self, prior: ScoringPrior, cameras: Cameras) -> tuple[str, ...]:
        return asked(prior, cameras, ["uncond", "cond", *self.wants()])

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        coefficients: dict[str, float | Tensor] = {
            "cond": self.guidance_scale,
            "uncond": 1.0 - self.guidance_scale,
        }
        if self.wants():
            high = scores.timestep >= self.low_noise * scores.prior.schedule.num_timesteps
            coefficients["negative"] = -high.to(noise).view(-1, *[1] * (noise.ndim - 1))
        w = weight(scores.alpha(), scores.sigma(), self.weighting)
        return w * linear(scores, noise, coefficients)
