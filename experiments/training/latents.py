"""Latents of pictures that are learned from, kept beside the pictures so that they are encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from diffusion.backbone import Backbone
from diffusion.files import save_tensors
from diffusion.finite import check_finite
from video.pixels import from_uint8


@torch.no_grad()
def cached_latents(backbone: Backbone, images: Tensor, cache: Path | None) -> Tensor:
    """Latents ``[N, V, C, h, w]`` in half precision of pictures ``[N, V, 3, H, W]`` uint8, read from ``cache`` if this
    VAE encoded them before."""

    def encode() -> Tensor:
        with torch.autocast(backbone.device.type, torch.bfloat16):
            parts = [
                backbone.encode(from_uint8(some.to(backbone.device))).half().cpu() for some in images.split(8)
            ]
        return check_finite(
            torch.cat(parts), "an encoding in half precision", "the VAE's latents are too large for it"
        )

    of = [str(backbone.vae.config["scaling_factor"]), *backbone.vae.state_dict().values(), images]
    return kept_latents(cache, "latents", of, encode)


def kept_latents(
    cache: Path | None, name: str, of: Sequence[str | Tensor], make: Callable[[], Tensor]
) -> Tensor:
    """What ``make`` makes, read from the folder ``cache`` if it was made of the same, ``of``, before."""
    if cache is None:
        return make()
    digest = hashlib.sha256()
    for each in of:
        digest.update(each.encode() if isinstance(each, str) else each.cpu().contiguous().numpy().data)
    path = cache / f"{name}_{digest.hexdigest()[:16]}.safetensors"
    if path.is_file():
        return load_file(path)["latents"]
    latents = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, {"latents": latents})
    return latents
