"""Diverse score distillation (arXiv 2412.06780): w(t) (eps_hat(z_t(e), t) - eps_own(z_t+(e), t+)).

The noise e of a step is what the model predicts at t+ = t + plus t u, u uniform, on the deterministic path that starts
from the one noise of the run: each seed follows a sample of its own. z_t(e) and z_t+(e) are the latents with that
noise, and eps_own is guided by `second_scale` alone. Up to 2 (num_steps + 3) network evaluations a step, two in a pass;
one fewer with a second_scale of 1.

Bad at speed, and at agreeing over views that do not see each other: each has a path of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.ddim import along, strides
from gen3d.distillation.linear import asked
from gen3d.distillation.two_times import keep_noise, kept_noise, later, noised, shares
from gen3d.distillation.weighting import Weighting, weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior


@dataclass(frozen=True, kw_only=True)
class DSD(Loss):
    """guidance_scale: the standard one, of the path and at t. second_scale: at t+. plus: how far t+ may be, as a share
    of t. num_steps: of a path down the whole schedule. weighting: w(t), see `weighting.weight`."""

    draws_noise: ClassVar[bool] = False

    name: Literal["dsd"] = "dsd"
    guidance_scale: float = 2.5
    second_scale: float = 1.0
    plus: float = 0.1
    num_steps: int = 10
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_guidance_scale("dsd", self.guidance_scale)
        check_range(self, 0, 1000, "second_scale", of="dsd")
        check_range(self, 0, 1, "plus", of="dsd")
        check_range(self, 1, 100, "num_steps", of="dsd")

    def start(
        self, memory: Memory, prior: ScoringPrior, shape: tuple[int, ...], generator: torch.Generator
    ) -> None:
        keep_noise(memory, shape, generator)

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        count = scores.prior.schedule.num_timesteps
        t_plus = later(scores, self.plus * scores.timestep * shares(scores, generator))
        last = scores.timestep.new_full(scores.timestep.shape, count - 1)
        begun = scores.at(kept_noise(memory, latents), last)
        times = strides(count - 1, t_plus, -(-count // self.num_steps))
        path = along(begun, times, lambda here: here.guided_prediction(self.guidance_scale))
        e = path.guided_eps(self.guidance_scale)
        alone = asked(scores.prior, scores.cameras, ["cond"]) if self.second_scale == 1.0 else None
        own = noised(scores, latents, e, t_plus, alone).guided_eps(self.second_scale)
        at_t = noised(scores, latents, e, scores.timestep)
        w = weight(at_t.alpha(), at_t.sigma(), self.weighting)
        return w * (at_t.guided_eps(self.guidance_scale) - own)
