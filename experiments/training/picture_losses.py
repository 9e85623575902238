"""Losses of pictures: how far a picture is from another at several scales, and whether a critic takes it for real."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def laplacian_pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """Bands of `images [B, C, H, W]`, from the finest on, each half as large as the one before and without what the
    next holds; what is left below them all is not among them. H and W must be multiples of 2 to the power of levels."""
    height, width = images.shape[-2:]
    if levels < 1 or height % 2**levels or width % 2**levels:
        raise ValueError(
            f"levels is {levels}, for pictures of {height} x {width}; it must be at least 1, and both sides multiples "
            "of 2 to its power"
        )
    bands = []
    for _ in range(levels):
        smaller = F.avg_pool2d(images, 2)
        bands.append(images - F.interpolate(smaller, scale_factor=2, mode="bilinear", align_corners=False))
        images = smaller
    return bands


def pyramid_error(made: Tensor, truth: Tensor, levels: int = 3) -> Tensor:
    """Mean absolute error of the bands of `laplacian_pyramid`, mean over the bands, `[B]`: an edge that is missing
    counts as much as a plain that is off, though it fills far less of the picture."""
    bands = laplacian_pyramid(made - truth, levels)
    return torch.stack([band.abs().flatten(1).mean(1) for band in bands]).mean(0)


def critic_error(real: Tensor, made: Tensor) -> Tensor:
    """Hinge loss of a critic whose scores of real pictures should be above 1, and of made ones below -1 (arXiv
    1705.02894); any shapes, a number."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + made).mean())
