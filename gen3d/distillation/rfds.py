"""Rectified-flow distillation (RFDS, arXiv 2406.03293): gradient v_hat - (eps - z).

v_hat `[B, V, C, h, w]` is the velocity under guidance. Of any straight mixture z_t = alpha z + sigma eps the noise less
the clean latents is such a velocity: z_t / (alpha + sigma) lies on the rectified flow at sigma_flow = sigma / (alpha +
sigma). So it is exact on variance-preserving backbones too, where it equals (alpha + sigma) / alpha (eps_hat - eps) =
(z - x0_hat) / sigma_flow, and it is finite at pure noise wherever the clean latents can be told there.

It has no weight. Default scale 1.5 here; the paper takes 100 with Stable Diffusion 3 and 50 with InstaFlow, both
standard. Two evaluations a step. It is x0 divided by the noise level: loud at small timesteps, so keep the range of
timesteps away from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gen3d.distillation.base import Loss, Scores, check_guidance_scale

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory


@dataclass(frozen=True, kw_only=True)
class RFDS(Loss):
    """guidance_scale: the standard one; 1 is no guidance."""

    name: Literal["rfds"] = "rfds"
    guidance_scale: float = 1.5

    def __post_init__(self) -> None:
        check_guidance_scale("rfds", self.guidance_scale)

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        return velocity(scores, scores.guided_prediction(self.guidance_scale)) - (noise - latents)


def velocity(scores: Scores, prediction: Tensor) -> Tensor:
    """A prediction of the prior at `scores.noisy` as noise less clean latents."""
    schedule = scores.prior.schedule
    return schedule.convert(prediction, scores.noisy, scores.timestep, schedule.prediction_type, "flow")
