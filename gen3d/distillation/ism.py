"""Interval score matching (LucidDreamer, arXiv 2311.11284): (sigma / alpha)(t) (eps_hat(z_t, t) - eps_uncond(z_s, s)).

The noisy latents are not drawn but found: without words, the latents are inverted in strides to s = t - gap, and in one
more step to t. Since that step is straight, the gradient is x0_uncond(z_s, s) - x0_hat(z_t, t), which is finite at pure
noise. Besides the two network evaluations at t, up to 1 / stride + 2 a step.

Bad at making a shape from nothing: what no words see in a blob is the blob. The papers begin with a point cloud.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.ddim import along, strides
from gen3d.distillation.two_times import later, noised
from gen3d.schedules import Points, check_points, value_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory


@dataclass(frozen=True, kw_only=True)
class ISM(Loss):
    """guidance_scale: the standard one, at t. gap: t - s, as a share of the schedule; a number or points
    [[share of the steps, gap], ...]. stride: of the inversion up to s, as a share of the schedule."""

    name: Literal["ism"] = "ism"
    guidance_scale: float = 2.5
    gap: Points = ((0.0, 0.1), (0.3, 0.08))
    stride: float = 0.2

    def __post_init__(self) -> None:
        check_guidance_scale("ism", self.guidance_scale)
        check_points("ism gap", self.gap, 0.0, 1.0)
        check_range(self, 0.01, 1, "stride", of="ism")

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        count, t = scores.prior.schedule.num_timesteps, scores.timestep
        s = later(scores, -value_at(self.gap, scores.progress) * count)
        clean = noised(scores, latents, noise, t.new_zeros(t.shape), ["uncond"])
        times = strides(0, s, max(1, round(self.stride * count)))
        at_s = along(clean, times, lambda here: here.prediction("uncond"))
        at_t = along(at_s, [t], lambda here: here.prediction("uncond"))
        guided = scores.at(at_t.noisy, t).guided_x0(self.guidance_scale)
        return at_s.x0("uncond") - guided
