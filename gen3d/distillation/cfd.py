"""Consistent flow distillation (CFD, arXiv 2501.05445): gradient sigma / alpha (eps_hat(z_t, t) - eps), which is
z - x0_hat, with a noise eps that lies on the surface.

eps is a picture of a noise that fills the world: each cell of a grid holds a normal number a channel, and a latent
pixel takes the sum over the cells that its pixels show, divided by the root of their squared counts, so that its
variance is 1 and cameras that look at the same place get the same noise there. What shows no surface has noise of its
own. From step to step the world's noise becomes sqrt(1 - gamma) of itself and sqrt(gamma) of a new one: with gamma = 1,
or where nothing is seen, it is annealed SDS. Two evaluations a step.

Bad at what the surface is not sure of: where it moves, the noise there is another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.two_times import noised
from gen3d.schedules import Points, check_points, value_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior

_WORLD = "world"


@dataclass(frozen=True, kw_only=True)
class CFD(Loss):
    """guidance_scale: the standard one. gamma: share of the world's noise that is new with each step, a number or
    points [[share of the steps, gamma], ...]. cells: of the world's noise along an edge of the cube [-1, 1]^3; they
    should be smaller than what a latent pixel shows."""

    draws_noise: ClassVar[bool] = False

    name: Literal["cfd"] = "cfd"
    guidance_scale: float = 1.5
    gamma: Points = 0.01
    cells: int = 64

    def __post_init__(self) -> None:
        check_guidance_scale("cfd", self.guidance_scale)
        check_points("cfd gamma", self.gamma, 0.0, 1.0)
        check_range(self, 4, 512, "cells", of="cfd")

    def wants(self) -> frozenset[str]:
        return frozenset({"surface"})

    def start(
        self, memory: Memory, prior: ScoringPrior, shape: tuple[int, ...], generator: torch.Generator
    ) -> None:
        memory[_WORLD] = self._drawn(shape[1], generator)

    def before(self, memory: Memory, progress: float, generator: torch.Generator) -> None:
        gamma, world = value_at(self.gamma, progress), memory[_WORLD]
        fresh = self._drawn(world.shape[1], generator).to(world)
        memory[_WORLD] = (1.0 - gamma) ** 0.5 * world + gamma**0.5 * fresh

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        assert scores.surface is not None
        own = on_surface(memory[_WORLD].to(noise), scores.surface, noise)
        at = noised(scores, latents, own, scores.timestep)
        return at.sigma() / at.alpha() * (at.guided_eps(self.guidance_scale) - own)

    def _drawn(self, channels: int, generator: torch.Generator) -> Tensor:
        import torch

        return torch.randn(self.cells**3, channels, generator=generator, device=generator.device)


def on_surface(world: Tensor, surface: Tensor, noise: Tensor) -> Tensor:
    """The world's noise as cameras see it, in the shape of `noise [B, V, C, h, w]`, which stays where less than half of
    a latent pixel shows a surface.

    world: `[R^3, C]`, x slowest. surface: points `[B, V, S, S, 3]` that the pictures show, NaN where they show none.
    """
    import torch

    height, width = noise.shape[-2:]
    size, cells = surface.shape[2], round(len(world) ** (1 / 3))
    finer = max(1, size // height)
    rows, columns = (
        ((torch.arange(finer * n, device=surface.device) + 0.5) * size / (finer * n)).long()
        for n in (height, width)
    )
    points = surface[:, :, rows][:, :, :, columns]
    seen = ~points.isnan().any(dim=-1)
    index = ((points.nan_to_num() * 0.5 + 0.5) * cells).floor().long().clamp(0, cells - 1)
    cell = (index[..., 0] * cells + index[..., 1]) * cells + index[..., 2]

    def in_pixels(values: Tensor) -> Tensor:
        """`[B, V, h finer, w finer]` -> `[B, V, h, w, finer^2]`."""
        parts = values.unflatten(3, (width, finer)).unflatten(2, (height, finer))
        return parts.movedim(3, 4).flatten(4)

    cell, seen = in_pixels(cell), in_pixels(seen)
    sums = (world[cell] * seen[..., None]).sum(dim=-2)
    # The sum over cells of their squared counts.
    alike = (cell[..., :, None] == cell[..., None, :]) & seen[..., :, None] & seen[..., None, :]
    variance = alike.sum(dim=(-1, -2)).clamp_min(1)
    found = (sums / variance[..., None].sqrt()).movedim(-1, 2)
    covered = seen.float().mean(dim=-1) >= 0.5
    return torch.where(covered[:, :, None], found, noise)
