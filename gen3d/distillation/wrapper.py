"""What losses over another loss have in common: they try several noises, and a reward judges what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gen3d.distillation.base import Loss, Scores
from gen3d.distillation.ddim import along
from gen3d.distillation.two_times import noised

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.cameras import Cameras
    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior


@dataclass(frozen=True, kw_only=True)
class Wrapper(Loss):
    """loss: what is wrapped, which keeps its own memory and learns as it does by itself."""

    loss: Loss

    def __post_init__(self) -> None:
        if not self.loss.draws_noise:
            name, inner = (getattr(each, "name", type(each).__name__) for each in (self, self.loss))
            raise ValueError(
                f"{name} loss is {inner}, which has a noise of its own, and this compares noises; choose one that "
                "draws it, such as x0 or sds"
            )

    def wants(self) -> frozenset[str]:
        return self.loss.wants()

    def heeds(self) -> frozenset[str]:
        return self.loss.heeds() | {"negative"}

    def check(self, prior: ScoringPrior) -> None:
        self.loss.check(prior)

    def conditions(self, prior: ScoringPrior, cameras: Cameras) -> tuple[str, ...]:
        own = prior.guidance_conditions(cameras)
        return (*own, *(name for name in self.loss.conditions(prior, cameras) if name not in own))

    def start(
        self, memory: Memory, prior: ScoringPrior, shape: tuple[int, ...], generator: torch.Generator
    ) -> None:
        self.loss.start(memory, prior, shape, generator)

    def before(self, memory: Memory, progress: float, generator: torch.Generator) -> None:
        self.loss.before(memory, progress, generator)

    def image_gradient(self, scores: Scores, images: Tensor, latents: Tensor) -> Tensor | None:
        return self.loss.image_gradient(scores, images, latents)

    def rates(self) -> dict[str, float]:
        return self.loss.rates()

    def training_loss(
        self, scores: Scores, latents: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor | None:
        return self.loss.training_loss(scores, latents, memory, generator)


def tried(
    scores: Scores, latents: Tensor, noise: Tensor, count: int, generator: torch.Generator
) -> list[tuple[Scores, Tensor]]:
    """`count` noises at the drawn timestep, `noise` the first, each with the scores at the latents noised by it."""
    import torch

    found = [(scores, noise)]
    for _ in range(count - 1):
        other = torch.randn(noise.shape, generator=generator, device=generator.device).to(noise)
        found.append((noised(scores, latents, other, scores.timestep), other))
    return found


def denoised(scores: Scores, scale: float, num_steps: int) -> Tensor:
    """Pictures `[B, V, 3, H, W]` of what `num_steps` DDIM steps at guidance `scale` make of `scores.noisy`; the first
    costs nothing where the loss asks for the same."""
    times = [scores.timestep * (num_steps - step) // num_steps for step in range(1, num_steps)]
    there = along(scores, times, lambda each: each.guided_prediction(scale))
    return scores.prior.decode(there.guided_x0(scale))


def unguided(loss: Loss) -> Loss:
    """The same loss without guidance, where it has a guidance_scale."""
    return replace(loss, guidance_scale=1.0) if hasattr(loss, "guidance_scale") else loss  # pyright: ignore
