"""Variational score distillation (ProlificDreamer, arXiv 2305.16213): gradient w(t) (eps_hat - eps_phi).

eps_hat `[B, V, C, h, w]` is the prior's noise under guidance, and eps_phi what the same backbone says with a LoRA phi
that learns, in the same steps, to predict the pictures of the asset as it is: mean squared error at a timestep drawn
from the whole schedule, at CFG 1, told the prompt without words about the view, and the cameras, which are left out for
a tenth of the objects. A backbone without cameras gets an embedding of them that learns with the LoRA. Before it has
learnt anything phi predicts what the prior does, and the gradient is guidance's alone.

Default scale 7.5, standard in the paper too. Four evaluations a step, one of them backward: about three times as slow
as SDS. It wants many steps, for phi to follow; over few it is guidance alone, without a mean to hold on to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.weighting import Weighting, weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior

_LORA = "lora"


@dataclass(frozen=True, kw_only=True)
class VSD(Loss):
    """guidance_scale: of the prior, the standard one. weighting: w(t), see `weighting.weight`.

    rank, lora_rate: of the LoRA, and its learning rate. camera_dropout: share of objects whose cameras it is not told.
    """

    name: Literal["vsd"] = "vsd"
    guidance_scale: float = 7.5
    weighting: Weighting = "sds"
    rank: int = 4
    lora_rate: float = 1e-4
    camera_dropout: float = 0.1

    def __post_init__(self) -> None:
        check_guidance_scale("vsd", self.guidance_scale)
        check_range(self, 1, 1024, "rank", of="vsd")
        check_range(self, 0, 1, "lora_rate", ends="(]", of="vsd")
        check_range(self, 0, 1, "camera_dropout", of="vsd")

    def wants(self) -> frozenset[str]:
        return frozenset({"tuning"})

    def check(self, prior: ScoringPrior) -> None:
        prior.tuned(self.rank)

    def start(
        self, memory: Memory, prior: ScoringPrior, shape: tuple[int, ...], generator: torch.Generator
    ) -> None:
        memory[_LORA] = prior.tuned(self.rank).begin(generator)

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        prior, noisy, t = scores.prior, scores.noisy, scores.timestep
        own = prior.tuned(self.rank).predict(memory[_LORA].detach(), noisy, t, scores.cameras)
        w = weight(scores.alpha(), scores.sigma(), self.weighting)
        return w * (scores.guided_eps(self.guidance_scale) - prior.schedule.to_eps(own, noisy, t))

    def rates(self) -> dict[str, float]:
        return {_LORA: self.lora_rate}

    def training_loss(
        self, scores: Scores, latents: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        import torch

        prior, device = scores.prior, latents.device
        t = prior.schedule.sample_timesteps(len(latents), generator=generator).to(device)
        drawn = torch.randn(latents.shape, generator=generator, device=generator.device)
        known = torch.rand(len(latents), generator=generator, device=generator.device) >= self.camera_dropout
        noise = drawn.to(latents)
        noisy = prior.schedule.add_noise(latents, noise, t)
        made = prior.tuned(self.rank).predict(memory[_LORA], noisy, t, scores.cameras, known.to(device))
        return (made - prior.schedule.target(latents, noise, t)).square().mean()
