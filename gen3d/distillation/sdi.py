"""Score distillation via inversion (arXiv 2405.15891): gradient z - x0_hat(z_t), with z_t found by inversion.

The noise that the model itself would have begun these pictures with takes the place of drawn noise: DDIM inversion from
the clean latents, guided away from the prompt, in `num_steps` strides a schedule and a random way beyond t, with a
little noise between. What it found is then noise for z at t itself. Two network evaluations a stride and two at t.

Bad at speed; and at low noise levels, where there is little to find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.ddim import along, strides
from gen3d.distillation.two_times import later, noised, shares

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffusion.schedule import Schedule
    from gen3d.distillation.base import Memory


@dataclass(frozen=True, kw_only=True)
class SDI(Loss):
    """guidance_scale: the standard one, at t. inversion_scale: that of the inversion; below 0 away from the prompt.
    num_steps: strides of an inversion of the whole schedule. eta: noise between strides, as a share of what a random
    sampler would put in."""

    draws_noise: ClassVar[bool] = False

    name: Literal["sdi"] = "sdi"
    guidance_scale: float = 2.5
    inversion_scale: float = -7.5
    num_steps: int = 10
    eta: float = 0.3

    def __post_init__(self) -> None:
        check_guidance_scale("sdi", self.guidance_scale)
        check_range(self, -1000, 1000, "inversion_scale", of="sdi")
        check_range(self, 1, 100, "num_steps", of="sdi")
        check_range(self, 0, 1, "eta", of="sdi")

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        import torch

        schedule, t = scores.prior.schedule, scores.timestep
        stride = -(-schedule.num_timesteps // self.num_steps)
        beyond = later(scores, stride * shares(scores, generator)).clamp_min(1)
        times = [one.where(one < t, beyond) for one in strides(0, t, stride) or [t]]

        def disturb(noisy: Tensor, here: Tensor, there: Tensor) -> Tensor:
            drawn = torch.randn(noisy.shape, generator=generator, device=generator.device).to(noisy)
            return noisy + self.eta * between(schedule, here, there, noisy) * drawn

        begun = scores.at(latents, t.new_zeros(t.shape))
        found = along(begun, times, lambda one: one.guided_prediction(self.inversion_scale), disturb)
        own = (found.noisy - found.alpha() * latents) / found.sigma()
        return latents - noised(scores, latents, own, t).guided_x0(self.guidance_scale)


def between(schedule: Schedule, low: Tensor, high: Tensor, like: Tensor) -> Tensor:
    """Standard deviation of what is at `low [B]` where it is known at `high [B]` and at 0: the noise of a random
    sampler's step, broadcastable to `like`; 0 where the two are the same."""
    kept = schedule.alpha(high, like) / schedule.alpha(low, like).clamp_min(1e-12)
    low_sigma, high_sigma = schedule.sigma(low, like), schedule.sigma(high, like)
    passed = (high_sigma.square() - (kept * low_sigma).square()).clamp_min(0.0).sqrt()
    return (low_sigma < high_sigma) * low_sigma / high_sigma * passed
