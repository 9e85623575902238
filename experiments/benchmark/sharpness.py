"""How sharp pictures are, held against the truth: of a blurred one little is left of the finest detail."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from avatar.face_box import FaceBox

_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
EXPLAINED = (
    "Sharpness: variance of the Laplacian over the truth's; 1 is as sharp, less is blurred, more is too hard."
)


def laplacian_variance(images: Tensor) -> Tensor:
    """Variance of the Laplacian of the brightness of `images [N, 3, H, W]`, `[N]`; of the whole picture but its
    outermost pixels."""
    kernel = torch.tensor(_LAPLACIAN, device=images.device, dtype=images.dtype)
    return F.conv2d(images.mean(1, keepdim=True), kernel[None, None]).flatten(1).var(1)


def sharpness(made: Tensor, truth: Tensor) -> float:
    """Variance of the Laplacian of each of the pictures `made [N, 3, H, W]` over that of its `truth [N, 3, H, W]`,
    or of one `[1, 3, H, W]` for all; the mean over the pictures: 1 is as sharp as the truth, less is blurred, more is
    noise or an edge drawn too hard.

    What is plain in truth is left out; NaN if all is.
    """
    wanted = laplacian_variance(truth).expand(len(made))
    ratios = laplacian_variance(made)[wanted > 0.0] / wanted[wanted > 0.0]
    return float(ratios.mean())


def in_box(images: Tensor, box: FaceBox) -> Tensor:
    """The pixels of `images [..., H, W]` that lie in a face box, as far as it lies in them."""
    top, left = max(round(box.y), 0), max(round(box.x), 0)
    return images[..., top : round(box.y + box.size), left : round(box.x + box.size)]
