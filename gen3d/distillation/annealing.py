"""Which noise levels to distil from, as the optimisation goes on. Timesteps as fractions of the schedule."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_timestep(low: float, high: float, num_timesteps: int, generator: torch.Generator) -> Tensor:
    """One timestep, int64 ``[1]``, uniform between two fractions of a schedule of ``num_timesteps``."""
    first, last = round(low * (num_timesteps - 1)), round(high * (num_timesteps - 1))
    return torch.randint(first, last + 1, (1,), generator=generator, device=generator.device)
