"""Pictures as numbers in [0, 1] and as bytes, as files and screens have them."""

from __future__ import annotations

import torch
from torch import Tensor


def to_uint8(images: Tensor) -> Tensor:
    """Float in [0, 1] (clamped) -> uint8, rounded to the nearest; any shape, on the same device."""
    return (images.detach().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


def from_uint8(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1]; any shape, on the same device."""
    return pixels.float() / 255.0
