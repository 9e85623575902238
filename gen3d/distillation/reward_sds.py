"""RewardSDS (arXiv 2503.09601): of several noises, those that lead to better pictures count more, over any loss.

`num_noises` noises at the drawn timestep; each is denoised in `num_steps` DDIM steps at `sampling_scale`, and a reward
judges the pictures of each object. With G_i `[B, V, C, h, w]` the wrapped loss's gradient for the i-th, gradient
best_weight mean(G over the best `num_best`) - worst_weight mean(G over the worst `num_best`).

The paper's: 6 or 7 noises, 15 steps, best and worst 2 by 0.9 and 0.1, for the first half of the steps, around MVDream's
loss at its 50 (standard). With n noises, s steps and a loss of two evaluations, 2 n s evaluations a step: the first of
each is the loss's own. It is slow, and follows the faults of what judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Scores
from gen3d.distillation.wrapper import Wrapper, denoised, tried
from gen3d.rewards.base import Reward

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior


@dataclass(frozen=True, kw_only=True)
class RewardSDS(Wrapper):
    """See the module. until: share of the steps after which the wrapped loss goes on alone."""

    name: Literal["reward_sds"] = "reward_sds"
    reward: Reward
    num_noises: int = 6
    num_steps: int = 15
    num_best: int = 2
    best_weight: float = 0.9
    worst_weight: float = 0.1
    sampling_scale: float = 7.5
    until: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, 1000, "sampling_scale", of="reward_sds", hint="1 is no guidance")
        check_range(self, 2, 64, "num_noises", of="reward_sds")
        check_range(self, 1, 1000, "num_steps", "num_best", of="reward_sds")
        check_range(self, 0, 1, "best_weight", "worst_weight", "until", of="reward_sds")
        if 2 * self.num_best > self.num_noises:
            raise ValueError(
                f"reward_sds num_best must be at most half of the {self.num_noises} noises, got {self.num_best}"
            )

    def check(self, prior: ScoringPrior) -> None:
        super().check(prior)
        self.reward.check(prior)

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        import torch

        if scores.progress >= self.until:
            return self.loss(scores, latents, noise, memory, generator)
        trials = tried(scores, latents, noise, self.num_noises, generator)
        rewards = torch.stack(
            [
                self.reward.score(denoised(there, self.sampling_scale, self.num_steps), scores.prior)
                for there, _ in trials
            ]
        )
        total = torch.zeros_like(latents)
        for (there, each), share in zip(trials, self.shares(rewards), strict=True):
            if bool((share != 0).any()):
                gradient = self.loss(there, latents, each, memory, generator)
                total = total + share.to(latents).view(-1, 1, 1, 1, 1) * gradient
        return total

    def shares(self, rewards: Tensor) -> Tensor:
        """How much each of n noises counts for each object, by their `rewards [n, B]`; of the same shape."""
        import torch

        order = rewards.argsort(dim=0, descending=True, stable=True)
        shares = torch.zeros_like(rewards)
        best, worst = order[: self.num_best], order[-self.num_best :]
        shares.scatter_(0, best, self.best_weight / self.num_best)
        return shares.scatter_(0, worst, -self.worst_weight / self.num_best)
