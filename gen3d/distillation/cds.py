"""Consistency distillation sampling (Consistent3D, arXiv 2401.09050): eps_hat(z_t, t) - eps_hat(z_s, s).

s is the drawn timestep and t lies `gap` above it. z_t are the latents with the one noise of the run, and z_s is one
deterministic step from there: Euler's in variance-exploding coordinates, which is DDIM's. The pictures are asked to be
where the paths of the model's own ODE run straight. Four network evaluations a step, in two passes.

Bad at choosing: where all paths are straight, as for a prior that knows one picture only, the gradient is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from gen3d.distillation.base import Loss, Scores
from gen3d.distillation.ddim import along
from gen3d.distillation.two_times import keep_noise, kept_noise, later, noised, shares
from gen3d.schedules import Points, check_points, value_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior


@dataclass(frozen=True, kw_only=True)
class CDS(Loss):
    """guidance_scale: the standard one, of both times; a number or points [[share of the steps, scale], ...].
    gap: least and greatest distance of the two times, as shares of the schedule."""

    draws_noise: ClassVar[bool] = False

    name: Literal["cds"] = "cds"
    guidance_scale: Points = 20.0
    gap: tuple[float, float] = (0.1, 0.3)

    def __post_init__(self) -> None:
        check_points("cds guidance_scale", self.guidance_scale, 0.0, 1000.0)
        if not 0.0 <= self.gap[0] <= self.gap[1] <= 1.0:
            raise ValueError(
                "cds gap must be the least and the greatest share of the schedule, in that order, within 0..1, got "
                f"{list(self.gap)}"
            )

    def start(
        self, memory: Memory, prior: ScoringPrior, shape: tuple[int, ...], generator: torch.Generator
    ) -> None:
        keep_noise(memory, shape, generator)

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        scale, (low, high) = value_at(self.guidance_scale, scores.progress), self.gap
        gap = low + (high - low) * shares(scores, generator)
        t = later(scores, gap * scores.prior.schedule.num_timesteps)
        first = noised(scores, latents, kept_noise(memory, latents), t)
        second = along(first, [scores.timestep], lambda here: here.guided_prediction(scale))
        return first.guided_eps(scale) - second.guided_eps(scale)
