"""Reading mouths: a small network that tells how wide a mouth is open in a picture.

It was taught by rendered heads, whose opening is known, and serves as a measure only: no loss ever sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class MouthReaderConfig:
    """size: side in pixels that the mouth's region is brought to. channels: channels of the
    convolutions, each of which halves it."""

    size: int = 48
    channels: tuple[int, ...] = (24, 32, 48, 64)

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels must be positive, one or more, got {tuple(self.channels)}")
        if self.size < 2 ** len(self.channels):
            raise ValueError(
                f"size must be at least {2 ** len(self.channels)} for {len(self.channels)} halvings, got {self.size}"
            )


class MouthReader(nn.Module):
    """Mouth regions [N, 3, S, S] in [0, 1] -> opening [N]: 0 shut, about 0.15 wide open, relative to the head."""

    def __init__(self, config: MouthReaderConfig | None = None):
        super().__init__()
        self.config = config or MouthReaderConfig()
        layers: list[nn.Module] = []
        before = 3
        for width in self.config.channels:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            before = width
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(before, 1)

    def forward(self, mouths: Tensor) -> Tensor:
        if mouths.ndim != 4 or mouths.shape[1] != 3:
            raise ValueError(f"mouths must be [N, 3, S, S], got {list(mouths.shape)}")
        small = F.interpolate(
            mouths.float() - 0.5,
            size=(self.config.size,) * 2,
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        features = self.layers(small.to(self.out.weight)).amax((2, 3))
        # In tenths, so that the weights are of ordinary size.
        return 0.1 * self.out(features)[:, 0].float()


def mouth_region(frames: Tensor, centre: tuple[float, float], side: float) -> Tensor:
    """Squares of `side` pixels about `centre` (x, y) out of frames [F, 3, H, W] -> [F, 3, n, n].

    The square is moved, and where it is too large made smaller, so that it lies within the picture.
    """
    if frames.ndim != 4:
        raise ValueError(f"frames must be [F, 3, H, W], got {list(frames.shape)}")
    height, width = frames.shape[-2:]
    n = max(min(round(side), height, width), 1)
    left = min(max(round(centre[0] - n / 2), 0), width - n)
    top = min(max(round(centre[1] - n / 2), 0), height - n)
    return frames[:, :, top : top + n, left : left + n]
