"""What losses have in common that hold a prediction at one noise level against that at another: B objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory, Scores

_FIXED = "noise"


def shares(scores: Scores, generator: torch.Generator) -> Tensor:
    """Random numbers in [0, 1), one an object: `[B]`."""
    import torch

    drawn = torch.rand(len(scores.timestep), generator=generator, device=generator.device)
    return drawn.to(scores.timestep.device)


def later(scores: Scores, by: Tensor | float) -> Tensor:
    """The drawn timesteps `[B]` moved by so many timesteps, rounded down, as far as the schedule goes."""
    last = scores.prior.schedule.num_timesteps - 1
    return (scores.timestep + by).floor().long().clamp(0, last)


def noised(
    scores: Scores, latents: Tensor, noise: Tensor, timestep: Tensor, together: Sequence[str] | None = None
) -> Scores:
    """The scores of clean `latents` with `noise` at other timesteps `[B]`."""
    return scores.at(scores.prior.schedule.add_noise(latents, noise, timestep), timestep, together)


def keep_noise(memory: Memory, shape: tuple[int, ...], generator: torch.Generator) -> None:
    """Draw the one noise of a run, of `shape` (V, C, h, w)."""
    import torch

    memory[_FIXED] = torch.randn(shape, generator=generator, device=generator.device)


def kept_noise(memory: Memory, like: Tensor) -> Tensor:
    """The one noise of a run for each object of `like [B, V, C, h, w]`."""
    return memory[_FIXED].to(like).expand_as(like)
