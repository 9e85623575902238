"""R-precision: does the CLIP of a backbone find an asset's own caption among all captions of the set?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.backbone import Backbone
from gen3d.asset import Mesh
from gen3d.cameras import ring
from gen3d.render.shading import render_mesh

NUM_VIEWS = 4
# The world's own plain grey. The caption's background is not shown: it would give the caption away.
_BACKGROUND = (0.83, 0.83, 0.83)


def views(mesh: Mesh, size: int = 128) -> Tensor:
    """[4, 3, size, size] shaded pictures, the first from the front."""
    with torch.no_grad():
        cameras = ring(NUM_VIEWS, elevation_deg=15.0)
        return render_mesh(mesh, cameras, size, size, background=_BACKGROUND, supersample=2).images.cpu()


@torch.no_grad()
def embed_captions(backbone: Backbone, captions: Sequence[str]) -> Tensor:
    """[P, D] unit vectors."""
    return torch.cat([backbone.embed_text([caption]).cpu() for caption in captions])


@torch.no_grad()
def embed_views(backbone: Backbone, images: Tensor) -> Tensor:
    """[D] unit vector: the mean over the views [V, 3, H, W] of one asset."""
    return F.normalize(backbone.embed_image(images.to(backbone.device)).cpu().mean(0), dim=-1)


def retrieved(embedding: Tensor, captions: Tensor, index: int) -> bool:
    """Whether caption `index` of [P, D] is the nearest to an asset's embedding [D]."""
    return int((captions @ embedding).argmax()) == index
