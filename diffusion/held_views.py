"""Views that a sampler is given: clean at every noise level, for the others to see."""

from __future__ import annotations

import torch

from diffusion.backbone import Backbone


def held_views(
    backbone: Backbone, images: torch.Tensor | None, fixed: torch.Tensor | None
) -> HeldViews | None:
    """The views that are given, if any are; ValueError where they cannot be."""
    if images is None or fixed is None:
        return None
    if fixed.shape != images.shape[:2] or fixed.dtype != torch.bool:
        raise ValueError(
            f"fixed must be bool {list(images.shape[:2])}, got {fixed.dtype} {list(fixed.shape)}"
        )
    if bool(fixed.all(dim=1).any()):
        raise ValueError("all views of an object are fixed; leave at least one to make")
    if backbone.num_views == 1:
        raise ValueError(
            f"views of backbone {backbone.name!r} do not see each other, so that none can be fixed for the others"
        )
    return HeldViews(backbone, images, fixed) if bool(fixed.any()) else None


class HeldViews:
    """images: [B, V, 3, H, W], of which those that are fixed, bool [B, V], count."""

    def __init__(self, backbone: Backbone, images: torch.Tensor, fixed: torch.Tensor) -> None:
        self.backbone = backbone
        self.images, self.fixed = images.to(backbone.device), fixed.to(backbone.device)
        with torch.no_grad():
            self.clean = backbone.encode(self.images[self.fixed])

    def keep(self, latents: torch.Tensor) -> torch.Tensor:
        """`latents` with the clean ones in their places."""
        latents = latents.clone()
        latents[self.fixed] = self.clean.to(latents.dtype)
        return latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The pictures of `latents`, and in their places those that were given."""
        images = self.images.to(latents.dtype, copy=True)
        images[~self.fixed] = self.backbone.decode(latents[~self.fixed])
        return images
