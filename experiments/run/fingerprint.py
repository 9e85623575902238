"""Which weights a backbone has. Its revision does not tell: a folder that is trained on keeps its name for it."""

from __future__ import annotations

import hashlib

import torch

from diffusion.backbone import Backbone


def fingerprint(backbone: Backbone) -> str:
    """SHA-256 in hexadecimal of what decides which views are drawn: the weights of text encoder, UNet and VAE, and the
    schedule's noise levels. Configs are left out, for they hold folders and versions of libraries too."""
    digest = hashlib.sha256()
    parts = {
        "text_encoder": backbone.text_encoder.state_dict(),
        "unet": backbone.unet.state_dict(),
        "vae": backbone.vae.state_dict(),
        "schedule": {"alphas": backbone.schedule.alphas},
    }
    for part, tensors in parts.items():
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{part}.{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
