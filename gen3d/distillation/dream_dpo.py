"""DreamDPO (arXiv 2502.04370): of two noises, towards the one that a reward prefers and away from the other.

The clean estimates of both are judged. With G `[B, V, C, h, w]` the wrapped loss's gradient, for the SDS of the paper
w(t) (eps_hat - eps), and g the gap of the rewards: where g >= min_gap, G(winner) - G1(loser), G1 without guidance; else
G(winner) alone. (The paper's code leaves the drawn noise in the latter; here it is taken out.)

Around MVDream at 7.5, standard, the paper takes min_gap 0. Four evaluations a step and two passes of the decoder. Where
both noises lead to the same picture, as near the end, little but guidance is left; and it follows the faults of what
judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Scores
from gen3d.distillation.wrapper import Wrapper, denoised, tried, unguided
from gen3d.rewards.base import Reward

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior


@dataclass(frozen=True, kw_only=True)
class DreamDPO(Wrapper):
    """See the module. sampling_scale: guidance of the pictures that are judged."""

    name: Literal["dream_dpo"] = "dream_dpo"
    reward: Reward
    min_gap: float = 0.0
    sampling_scale: float = 7.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, 1000, "sampling_scale", of="dream_dpo", hint="1 is no guidance")
        check_range(self, 0, 1e6, "min_gap", of="dream_dpo")

    def check(self, prior: ScoringPrior) -> None:
        super().check(prior)
        self.reward.check(prior)

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        import torch

        trials = tried(scores, latents, noise, 2, generator)
        first, second = (
            self.reward.score(denoised(there, self.sampling_scale, 1), scores.prior) for there, _ in trials
        )
        won = [self.loss(there, latents, each, memory, generator) for there, each in trials]
        lost = [unguided(self.loss)(there, latents, each, memory, generator) for there, each in trials]
        shape = (-1, 1, 1, 1, 1)
        is_first = (first >= second).view(shape)
        far = ((first - second).abs() >= self.min_gap).view(shape)
        winner, loser = torch.where(is_first, won[0], won[1]), torch.where(is_first, lost[1], lost[0])
        return winner - far.to(winner) * loser
