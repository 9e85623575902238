"""The parts of a backbone by themselves, on held-out pictures: its autoencoder and its CLIP towers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.backbone import Backbone
from experiments.benchmark.readback import Reader
from experiments.world.captions import distinct
from experiments.world.dataset import KINDS, Shards
from gen3d.metrics import psnr
from video.pixels import from_uint8

_BATCH = 32


@torch.no_grad()
def autoencode(backbone: Backbone, images: Tensor) -> Tensor:
    """Images [N, 3, H, W] in [0, 1] through the VAE and back, on the CPU."""
    parts = [
        backbone.decode(backbone.encode(part.to(backbone.device))).cpu() for part in images.split(_BATCH)
    ]
    return torch.cat(parts)


def reconstruction(made: Tensor, pictures: Shards) -> dict[str, float]:
    """PSNR in dB of `made` [N, 3, H, W] as every scene's first picture, a mean over pictures.

    Of all ("psnr_db") and of each kind there is ("psnr_db_thing", "psnr_db_pair", "psnr_db_head").
    """
    images = first_pictures(pictures)
    scores = torch.tensor([psnr(each, true) for each, true in zip(made, images, strict=True)])
    found = {"psnr_db": float(scores.mean())}
    for kind in KINDS:
        rows = [row for row, each in enumerate(pictures.kinds) if each == kind]
        if rows:
            found[f"psnr_db_{kind}"] = float(scores[rows].mean())
    return found


def first_pictures(pictures: Shards) -> Tensor:
    """[N, 3, H, W] in [0, 1], one a scene."""
    return from_uint8(pictures.images[:, 0])


def shrunk(images: Tensor, size: int) -> Tensor:
    """Images [N, 3, H, W] averaged down to `size` pixels and enlarged again: what an autoencoder has to beat."""
    small = F.interpolate(images, (size, size), mode="area")
    return F.interpolate(small, images.shape[-2:], mode="bicubic").clamp(0.0, 1.0)


def caption_retrieval(reader: Reader, pictures: Shards, num_captions: int) -> dict[str, float]:
    """Share of pictures whose own caption is the nearest ("top1"), or among the five nearest ("top5"), of the set.

    The set: the first `num_captions` captions that mean different things, with one picture each (the scene's first).
    "captions" is how many there were, "chance" what a blind guess would get for top1.
    """
    rows = distinct(pictures.captions)[:num_captions]
    captions = [pictures.captions[row] for row in rows]
    images = reader.pictures(first_pictures(pictures)[rows])
    ranks = own_ranks(images @ reader.captions(captions).T)
    return {
        "top1": float((ranks == 0).float().mean()),
        "top5": float((ranks < 5).float().mean()),
        "captions": float(len(captions)),
        "chance": 1.0 / len(captions),
    }


def own_ranks(similarity: Tensor) -> Tensor:
    """[N] long: how many columns of similarity [N, N] are at least as high as the diagonal, 0 for a hit."""
    return (similarity >= similarity.diagonal()[:, None]).sum(dim=1) - 1
