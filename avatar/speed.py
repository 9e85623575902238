"""Speed of the head as a condition (EMO, arXiv 2402.17485, section 3.2): soft buckets over degrees per second."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from diffusion.limits import check_least


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedConfig:
    """centers, radii: middles and half widths of the buckets, in degrees per second. width: numbers in the embedding.

    The centres lie closer together where heads mostly are: nearly still.
    """

    centers: tuple[float, ...] = (0.0, 3.0, 6.0, 10.0, 15.0, 22.0, 32.0, 48.0, 72.0)
    radii: tuple[float, ...] = (3.0, 3.0, 3.0, 4.0, 5.0, 7.0, 10.0, 16.0, 24.0)
    width: int = 64

    def __post_init__(self) -> None:
        if not self.centers or len(self.centers) != len(self.radii):
            raise ValueError(
                f"centers and radii must be as many, at least one each, got {len(self.centers)} and {len(self.radii)}"
            )
        if min(self.radii) <= 0.0:
            raise ValueError(f"radii must be above 0, got {tuple(self.radii)}")
        check_least(self, 1, "width")


def speed_buckets(speed: torch.Tensor, config: SpeedConfig) -> torch.Tensor:
    """Speeds [...] in degrees per second -> [..., D] in (-1, 1): tanh(3 (speed - center) / radius)."""
    centers = torch.tensor(config.centers, dtype=speed.dtype, device=speed.device)
    radii = torch.tensor(config.radii, dtype=speed.dtype, device=speed.device)
    return torch.tanh(3.0 * (speed[..., None] - centers) / radii)


class SpeedEmbedding(nn.Module):
    """Speeds [B, F] in degrees per second -> embeddings [B, F, S].

    Each motion module adds its own linear map of them to the frames. EMO lets frames attend to the speeds, which
    for a speed that is constant over the clip, as at inference, is such a map as well.
    """

    def __init__(self, config: SpeedConfig):
        super().__init__()
        self.config = config
        self.proj1 = nn.Linear(len(config.centers), config.width)
        self.proj2 = nn.Linear(config.width, config.width)

    def forward(self, speed: torch.Tensor) -> torch.Tensor:
        if speed.ndim != 2:
            raise ValueError(f"speed must be [B, F] in degrees per second, got {list(speed.shape)}")
        buckets = speed_buckets(speed.float(), self.config)
        return self.proj2(F.silu(self.proj1(buckets.to(self.proj1.weight))))
