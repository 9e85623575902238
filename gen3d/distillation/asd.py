"""Asynchronous score distillation (ScaleDreamer, arXiv 2407.02040): w(t) (eps_hat(z_t, t) - eps_cond(z_t+, t+)).

The same noise at a somewhat later time t+ = t + plus (t - lowest) u, u uniform, where lowest is the least timestep that
may be drawn now. What the model itself sees there stands in for the drawn noise of SDS, and for VSD's trained LoRA.
Three network evaluations a step, in two passes.

Bad at a fixed timestep, as of `annealing.mode=hifa`: t+ is t then, and what is left is CSD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.two_times import later, noised, shares
from gen3d.distillation.weighting import Weighting, weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory


@dataclass(frozen=True, kw_only=True)
class ASD(Loss):
    """guidance_scale: the standard one, at t. plus: how far t+ may be, as a share of t - lowest. weighting: w(t), see
    `weighting.weight`."""

    name: Literal["asd"] = "asd"
    guidance_scale: float = 5.0
    plus: float = 0.1
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_guidance_scale("asd", self.guidance_scale)
        check_range(self, 0, 1, "plus", of="asd")

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        above = (scores.timestep - scores.lowest).clamp_min(0)
        t_plus = later(scores, self.plus * above * shares(scores, generator))
        own = noised(scores, latents, noise, t_plus, ["cond"]).eps("cond")
        w = weight(scores.alpha(), scores.sigma(), self.weighting)
        return w * (scores.guided_eps(self.guidance_scale) - own)
