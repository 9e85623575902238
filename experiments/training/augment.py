"""What is done to pictures `[B, 3, H, W]` in [0, 1] before a reader learns from them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mirror_some(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of `[B, 3, H, W]`, left and right exchanged."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)


def recolor(images: Tensor, generator: torch.Generator, grey: float = 0.3) -> Tensor:
    """Each of `[B, 3, H, W]` with its channels shuffled and partly mixed, or, of a share `grey`, without colour.
    What is grey stays as it is."""
    count = len(images)
    order = torch.rand(count, 3, generator=generator).argsort(1)
    mix = F.one_hot(order, 3).float()
    part = 0.5 * torch.rand(count, 1, 1, generator=generator)
    mix = (1 - part) * mix + part * mix.roll(1, 1)
    mix[torch.rand(count, generator=generator) < grey] = 1 / 3
    return torch.einsum("bij,bjhw->bihw", mix.to(images), images)


def blur_some(images: Tensor, generator: torch.Generator, share: float = 0.4) -> Tensor:
    """Soften a share of `[B, 3, H, W]`: what the towers will judge is often blurrier than renders."""
    soft = torch.rand(len(images), generator=generator) < share
    if not bool(soft.any()):
        return images
    small = F.interpolate(images[soft.to(images.device)], scale_factor=0.5, mode="area")
    images = images.clone()
    images[soft.to(images.device)] = F.interpolate(small, size=images.shape[-2:], mode="bilinear")
    return images


def zoom(images: Tensor, generator: torch.Generator, most: float = 0.25, shift: float = 0.12) -> Tensor:
    """Each of `[B, 3, H, W]` larger or smaller by up to `most` and moved by up to `shift` of its side.

    What comes in at the borders repeats the border, which is background. The few thousand scenes of a data set are soon
    known by heart otherwise.
    """
    drawn = 2 * torch.rand(len(images), 3, generator=generator).to(images) - 1
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + most * drawn[:, 0]
    theta[:, :, 2] = 2 * shift * drawn[:, 1:]
    at = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, at, padding_mode="border", align_corners=False)


def collage(
    first: Tensor,
    first_mask: Tensor,
    second: Tensor,
    second_mask: Tensor,
    *,
    on_top: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The first thing and the second, smaller, in one picture `[B, 3, H, W]`, on the background of the second.

    Masks are `[B, 1, H, W]` in [0, 1]. on_top: `[B]`, whether the first stands above the second. Of two things
    beside each other, which is on the left and how far one hides the other is chance.
    """
    count = len(first)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    def chance() -> Tensor:
        return torch.rand(count, generator=generator) < 0.5

    beside = torch.stack([torch.where(chance(), 1.0, -1.0) * between(0.25, 0.5), between(-0.08, 0.08)], 1)
    above = torch.stack([between(-0.08, 0.08), -between(0.25, 0.45)], 1)  # rows go down
    place = torch.where(on_top[:, None], above, beside)
    parts = []
    for picture, mask, at in ((first, first_mask, place), (second, second_mask, -place)):
        size = between(0.45, 0.7)
        theta = torch.zeros(count, 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = 1 / size
        theta[:, :, 2] = -at / size[:, None]
        grid = F.affine_grid(theta.to(picture), list(picture.shape), align_corners=False)
        parts.append(F.grid_sample(torch.cat([picture, mask], 1), grid, align_corners=False))
    first_in_front = (on_top | chance()).to(first.device)[:, None, None, None]
    behind, front = torch.where(first_in_front, parts[1], parts[0]), torch.where(first_in_front, *parts)
    picture = second[:, :, :1, :1].expand_as(second)
    for part in (behind, front):
        picture = torch.lerp(picture, part[:, :3], part[:, 3:])
    return picture
