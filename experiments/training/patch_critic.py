"""A small critic of patches: for each place of a picture, whether what is about it looks like one of the world's.

A patch is what it sees, not the picture (PatchGAN, arXiv 1611.07004): about edges and texture it has an opinion, about
what a picture shows it has none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from experiments.training.picture_losses import laplacian_pyramid

# How much stronger than the picture its finest band is shown, in which soft pictures differ most from the world's.
_FINEST = 8.0
_SLOPE = 0.2


class PatchCritic(nn.Module):
    """Four convolutions: pictures [B, 3, H, W] in [-1, 1] -> scores [B, 1, H / 4, W / 4], above 0 for real. A score
    goes by about 26 x 26 pixels. H and W are multiples of 4."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(6, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(2 * channels, 1, 3, padding=1),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
                nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, images: Tensor) -> Tensor:
        (finest,) = laplacian_pyramid(images, 1)
        return self.layers(torch.cat([images, _FINEST * finest], dim=1))

    def frozen(self, images: Tensor) -> Tensor:
        """The scores, whose gradient reaches the pictures but not the critic."""
        weights = {name: value.detach() for name, value in self.named_parameters()}
        return functional_call(self, weights, (images,))
