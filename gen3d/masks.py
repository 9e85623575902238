"""Silhouettes: which pixels of pictures with one plain background show the object.

Legend: V views, H x W pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Range of the object's share in a pixel, about a half, over which a mask goes from 0 to 1: noise is neither.
_OUTLINE = 0.8


def border_color(images: Tensor) -> Tensor:
    """The background ``[3]`` of ``images [V, 3, H, W]``: the median colour along their borders.

    All views together, since an object that touches the border of one picture seldom touches all of them.
    """
    width = max(1, images.shape[-1] // 32)
    top, bottom = images[..., :width, :], images[..., -width:, :]
    left, right = images[..., width:-width, :width], images[..., width:-width, -width:]
    pixels = [part.transpose(0, 1).reshape(3, -1) for part in (top, bottom, left, right)]
    return torch.cat(pixels, dim=1).median(dim=1).values


def plain_background(images: Tensor) -> tuple[Tensor, float]:
    """The background ``[3]`` of ``images [V, 3, H, W]`` and how far most of it is from that colour.

    A model's pictures are often uneven, and odd in their outermost pixels. So this looks at a frame within those, an
    eighth of the picture wide, and leaves out what differs much from the border colour, with some room around it
    (Otsu's threshold). The colour is the median of the rest and the distance its 80 % quantile (largest difference of
    a channel), since pale parts of the object may be left.
    """
    border = border_color(images)
    difference = (images - border[:, None, None]).abs().amax(dim=1, keepdim=True)
    room = max(1, images.shape[-1] // 16)
    near_object = F.max_pool2d((difference > _otsu(difference)).float(), 2 * room + 1, stride=1, padding=room)
    frame = torch.zeros_like(near_object, dtype=torch.bool)
    outer, inner = (room + 1) // 2, 2 * room + (room + 1) // 2
    frame[..., outer:-outer, outer:-outer] = True
    frame[..., inner:-inner, inner:-inner] = False
    used = (frame & (near_object < 0.5))[:, 0]
    if int(used.sum()) < used.numel() // 100:
        return border, 0.0
    pixels = images.transpose(0, 1)[:, used]
    color = pixels.median(dim=1).values
    distance = (pixels - color[:, None]).abs().amax(dim=0)
    return color, float(distance.kthvalue(max(1, math.ceil(0.8 * len(distance)))).values)


def _otsu(values: Tensor, bins: int = 128) -> float:
    """The threshold that parts values in [0, 1] into two groups of the least spread (Otsu 1979)."""
    share = torch.histc(values.cpu().float(), bins, 0.0, 1.0).double()
    share = share / share.sum()
    centres = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    below, moment = share.cumsum(0), (share * centres).cumsum(0)
    between = (moment[-1] * below - moment).square() / (below * (1.0 - below)).clamp_min(1e-9)
    return float(centres[between.argmax()])


def soft_mask(images: Tensor, background: Tensor, threshold: float) -> Tensor:
    """Where ``images [V, 3, H, W]`` differ from ``background [3]``: ``[V, 1, H, W]`` in [0, 1].

    0 up to half the ``threshold`` (largest difference of a channel), 1 from one and a half of it. Specks are taken
    out and pinholes closed by a 3 x 3 median. Along the outline, where a pixel mixes object and background, the mask
    is the object's share in the mixture instead: a blurred outline stays where it is.
    """
    difference = (images - background[:, None, None]).abs().amax(dim=1, keepdim=True)
    mask = ((difference - 0.5 * threshold) / threshold).clamp(0.0, 1.0)
    patches = F.unfold(F.pad(mask, (1, 1, 1, 1), mode="replicate"), 3)
    mask = patches.median(dim=1).values.view_as(mask)
    reach = max(1, images.shape[-1] // 64)
    solid = (mask > 0.5).float()
    share = difference / _object_difference(difference, solid, reach)
    share = ((share - 0.5) / _OUTLINE + 0.5).clamp(0.0, 1.0)
    return torch.where(_erode(solid, reach) > 0.5, mask, torch.minimum(mask, share))


def _object_difference(difference: Tensor, solid: Tensor, reach: int) -> Tensor:
    """How far the object itself is from the background around each pixel, all ``[V, 1, H, W]``: the mean within
    ``reach`` of ``solid`` pixels that are not at its edge and not much weaker than others; the greatest where there
    are none, as on thin parts."""
    size = 2 * reach + 1
    greatest = F.max_pool2d(difference * solid, size, stride=1, padding=reach)
    whole = _erode(solid, 1) * (difference > 0.5 * greatest)
    count = F.avg_pool2d(whole, size, stride=1, padding=reach)
    mean = F.avg_pool2d(difference * whole, size, stride=1, padding=reach) / count.clamp_min(1e-6)
    return torch.where(count > 1e-6, mean, greatest).clamp_min(1e-6)


def _erode(solid: Tensor, reach: int) -> Tensor:
    """``solid [V, 1, H, W]`` less what lies within ``reach`` pixels of its outline; the picture's edge is none."""
    return -F.max_pool2d(-F.pad(solid, (reach,) * 4, value=1.0), 2 * reach + 1, stride=1)
