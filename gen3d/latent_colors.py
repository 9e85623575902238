"""What a model's latents look like, each by itself.

A decoder makes pictures of whole maps of latents, and differently so from every side; a voxel or a vertex has a latent
alone, and one colour. An affine map of the channels, fitted to what the decoder shows, gives it that: it agrees with
itself from all sides, needs no model afterwards, and loses the finest detail alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from gen3d.priors.base import ScoringPrior

_PICTURES, _PATCHES = 32, 4


@torch.no_grad()
def affine_rgb(prior: ScoringPrior, device: torch.device | str) -> Tensor:
    """`[C + 1, 3]`: sRGB of a latent is `latent @ map[:C] + map[C]`, least squares over pictures of soft patches of all
    colours, as the prior's decoder shows them."""
    colors = torch.rand(_PICTURES, 3, _PATCHES, _PATCHES, generator=torch.Generator().manual_seed(0))
    full = (prior.image_size, prior.image_size)
    pictures = F.interpolate(colors.to(device), full, mode="bilinear", align_corners=False)
    latents = prior.encode(pictures)
    shown = F.interpolate(prior.decode(latents), latents.shape[-2:], mode="area")
    rows = latents.movedim(1, -1).flatten(0, 2).float().cpu()
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    return torch.linalg.lstsq(rows, shown.movedim(1, -1).flatten(0, 2).float().cpu()).solution.to(device)
