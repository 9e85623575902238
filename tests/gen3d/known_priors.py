"""Priors that know what the pictures of each condition are, exactly: one picture, or a normal distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion.schedule import Schedule
from gen3d.cameras import Cameras, orbit
from gen3d.distillation.base import Loss, Scores
from gen3d.distillation.inject import clip_gradient
from tests.gen3d.small_prior import numbers
from tests.gen3d.test_distillation import Known

SHAPE = (1, 3, 4, 4, 4)
CAMERAS = orbit([0.0, 120.0, 240.0], 10.0)
# A flow's levels from nearly clean, where one picture still says what the noise is, to pure noise.
FLOW = Schedule(
    alphas=1.0 - torch.arange(1, 1001, dtype=torch.float64) / 1000,
    sigmas=torch.arange(1, 1001, dtype=torch.float64) / 1000,
    prediction_type="flow",
)


class Truths(Known):
    """The clean latents `[1, 3, 4, 4, 4]` of each condition are known."""

    def predict(self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]) -> Tensor:
        self.passes.append(tuple(which))
        found = [self.predictions[name].expand_as(latents) for name in which]
        return torch.stack([self.schedule.from_x0(x0, latents, timestep) for x0 in found])


class Normals(Known):
    """Every number of the latents is normal with mean and variance of the condition."""

    def __init__(self, **parameters: tuple[float, float]) -> None:
        super().__init__("epsilon")
        self.parameters = parameters

    def predict(self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]) -> Tensor:
        alpha, sigma = self.schedule.alpha(timestep, latents), self.schedule.sigma(timestep, latents)
        found = [self.parameters[name] for name in which]
        return torch.stack(
            [sigma * (latents - alpha * mean) / (alpha**2 * var + sigma**2) for mean, var in found]
        )

    def log_density(self, name: str, noisy: Tensor, timestep: Tensor) -> Tensor:
        """Up to a constant, of each object: `[B]`."""
        alpha, sigma = self.schedule.alpha(timestep, noisy), self.schedule.sigma(timestep, noisy)
        mean, var = self.parameters[name]
        return (-0.5 * (noisy - alpha * mean) ** 2 / (alpha**2 * var + sigma**2)).flatten(1).sum(1)


def scores_at(
    prior: Known, loss: Loss, latents: Tensor, noise: Tensor, timestep: int | Tensor, **more: object
) -> Scores:
    """Of clean latents with noise at one timestep, by `CAMERAS`."""
    t = timestep if isinstance(timestep, Tensor) else torch.full((len(latents),), timestep)
    together = loss.conditions(prior, CAMERAS)
    noisy = prior.schedule.add_noise(latents, noise, t)
    return Scores(prior=prior, noisy=noisy, timestep=t, cameras=CAMERAS, together=together, **more)  # type: ignore[arg-type]


def gradient_at(
    loss: Loss, prior: Known, latents: Tensor, noise: Tensor, timestep: int | Tensor, **more: object
) -> Tensor:
    memory: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(11)
    loss.start(memory, prior, tuple(latents.shape[1:]), generator)
    return loss(scores_at(prior, loss, latents, noise, timestep, **more), latents, noise, memory, generator)


def followed(loss: Loss, prior: Known, steps: int = 200, rate: float = 0.05, **more: object) -> Tensor:
    """Latents, from noise, after steps against the gradient at random timesteps."""
    latents, generator = numbers(*SHAPE, seed=1), torch.Generator().manual_seed(0)
    memory: dict[str, Tensor] = {}
    loss.start(memory, prior, SHAPE[1:], generator)
    for _ in range(steps):
        t = torch.randint(100, 900, (1,), generator=generator)
        noise = torch.randn(latents.shape, generator=generator, dtype=latents.dtype)
        scores = scores_at(prior, loss, latents, noise, t, lowest=100, highest=900, **more)
        latents = latents - rate * clip_gradient(loss(scores, latents, noise, memory, generator), 1.0)
    return latents
