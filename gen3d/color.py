"""The sRGB transfer function, both ways.

Images, vertex colours and textures are display-referred sRGB in [0, 1] everywhere in this package.
Light is added and averaged, and colour errors are measured, in linear space.
"""

from __future__ import annotations

import torch
from torch import Tensor


def srgb_to_linear(color: Tensor) -> Tensor:
    """Display-referred sRGB in [0, 1] -> linear light in [0, 1], any shape. Differentiable."""
    toe = color / 12.92
    curve = ((color.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(color <= 0.04045, toe, curve)


def linear_to_srgb(color: Tensor) -> Tensor:
    """Linear light in [0, 1] -> display-referred sRGB in [0, 1], any shape. Differentiable."""
    toe = color * 12.92
    # The clamp keeps the unused branch away from the infinite slope of the power at zero.
    curve = 1.055 * color.clamp_min(0.0031308) ** (1.0 / 2.4) - 0.055
    return torch.where(color <= 0.0031308, toe, curve)
