"""Face locator (EMO, arXiv 2402.17485, section 3.2): light convolutions say where in the picture the face may be."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class LocatorConfig:
    """channels: of the mask's picture, then of each resolution; every further one halves the size."""

    channels: tuple[int, ...] = (1, 8, 16, 32, 64)

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or any(c < 1 for c in self.channels):
            raise ValueError(f"channels must be two or more positive numbers, got {tuple(self.channels)}")

    @property
    def downscale(self) -> int:
        """Pixels of the mask for one place of the features."""
        return 2 ** (len(self.channels) - 2)


class FaceLocator(nn.Module):
    """Masks [B, F, 1, H, W] in [0, 1] -> features [B, F, C0, h, w] that are added to the output of `conv_in`.

    The mask of a clip is the union of its face regions, so one mask (F = 1) serves all its frames. It starts
    at zero: the last convolution has no weights yet.
    """

    def __init__(self, out_channels: int, config: LocatorConfig):
        super().__init__()
        self.config = config
        first, *widths = config.channels
        self.conv_in = nn.Conv2d(first, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for near, far in pairwise(widths):
            self.blocks.append(nn.Conv2d(near, near, 3, padding=1))
            self.blocks.append(nn.Conv2d(near, far, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        assert self.conv_out.bias is not None
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        scale = self.config.downscale
        if masks.ndim != 5 or masks.shape[2] != 1 or masks.shape[-2] % scale or masks.shape[-1] % scale:
            raise ValueError(
                f"masks must be [B, F, 1, H, W] with H and W multiples of {scale}, got {list(masks.shape)}"
            )
        x = masks.flatten(0, 1).expand(-1, self.config.channels[0], -1, -1)
        x = F.silu(self.conv_in(x.to(self.conv_in.weight)))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x).unflatten(0, masks.shape[:2])
