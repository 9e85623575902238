"""RFDS-Rev (arXiv 2406.03293): the noise is corrected towards the latents' own before RFDS.

At CFG 1, eps' = eps + (1 - sigma_flow) (v_cond(z_t) + z - eps); then `gen3d.distillation.rfds` with eps' in place of
eps, at the latents that are noised with it. sigma_flow = sigma / (alpha + sigma), which is sigma on a rectified flow.

Three evaluations a step: one for the noise, two for the gradient. Default scale 1.5 here; the paper's is RFDS's. Loud
at small timesteps, as RFDS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.rfds import RFDS, velocity

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.cameras import Cameras
    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior


@dataclass(frozen=True, kw_only=True)
class RFDSRev(Loss):
    """guidance_scale: of the gradient, the standard one; 1 is no guidance."""

    name: Literal["rfds_rev"] = "rfds_rev"
    guidance_scale: float = 1.5

    def __post_init__(self) -> None:
        check_guidance_scale("rfds_rev", self.guidance_scale)

    def conditions(self, prior: ScoringPrior, cameras: Cameras) -> tuple[str, ...]:
        return ("cond",)

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        prior, alpha, sigma = scores.prior, scores.alpha(), scores.sigma()
        share = alpha / (alpha + sigma)
        corrected = noise + share * (velocity(scores, scores.prediction("cond")) - (noise - latents))
        noisy = prior.schedule.add_noise(latents, corrected, scores.timestep)
        there = scores.at(noisy, scores.timestep, prior.guidance_conditions(scores.cameras))
        return RFDS(guidance_scale=self.guidance_scale)(there, latents, corrected, memory, generator)
