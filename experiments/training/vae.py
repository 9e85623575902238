"""Recipe of the VAE: crops of the world's pictures, absolute and squared error, a light pull to a normal posterior.

Some pictures are talking portraits: a face that fills the picture has details which a whole figure hardly shows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.training.config import LATENT_CHANNELS
from experiments.training.models import build_vae
from experiments.world.dataset import Shards


class VaeRecipe:
    """Trains on crops about the middle, where the things are: plain background teaches nothing."""

    def __init__(
        self,
        train: Shards,
        held_out: Shards,
        device: torch.device,
        *,
        portraits: tuple[Tensor, Tensor] | None = None,
        portrait_share: float = 0.3,
        latent_channels: int = LATENT_CHANNELS,
        crop: int = 64,
        decoder_only: bool = False,
    ) -> None:
        """portraits: pictures [N, 3, H, W] uint8 to train on and to measure on; portrait_share of a batch are such.

        decoder_only leaves the latents as they are, so that a UNet trained on them stays valid.
        """
        # diffusers' annotations of its outputs leave the useful half out.
        self.vae: Any = build_vae(latent_channels)
        self.decoder_only = decoder_only
        if decoder_only:
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)
        self.modules = nn.ModuleDict({"vae": self.vae}).to(device)
        self.device, self.crop = device, crop
        self.data, self.held_out = train, held_out
        self.portraits, self.portrait_share = portraits, portrait_share

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        sources = [self.data.images.flatten(0, 1)]
        counts = [batch_size]
        if self.portraits is not None:
            sources.append(self.portraits[0])
            counts = [
                batch_size - round(self.portrait_share * batch_size),
                round(self.portrait_share * batch_size),
            ]
        crops = [
            crop
            for source, count in zip(sources, counts, strict=True)
            for crop in self._crops(source, count, generator)
        ]
        images = torch.stack(crops).to(self.device).float() / 127.5 - 1
        posterior = self.vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(self.device)
        # With fixed latents their own spread is too small to matter, and decoding the mode is what is wanted.
        latents = posterior.mean if self.decoder_only else posterior.mean + posterior.std * noise
        output = self.vae.decode(latents).sample
        error = output.float() - images
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        loss = error.abs().mean() + 2 * error.square().mean() + 2e-4 * kl
        return loss, {"kl": float(kl.detach())}

    def _crops(self, images: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
        rows = torch.randint(len(images), (count,), generator=generator)
        room = images.shape[-1] - self.crop
        # The sum of two dice: the middle is likeliest, the border still seen.
        corners = (torch.rand(count, 2, 2, generator=generator).mean(1) * (room + 1)).long()
        return [
            images[row, :, y : y + self.crop, x : x + self.crop]
            for row, (y, x) in zip(rows.tolist(), corners.tolist(), strict=True)
        ]

    def validate(self) -> dict[str, float]:
        """PSNR on whole held-out pictures in dB, mean over pictures, and the latents' spread."""
        psnr, spread = self._measure(self.held_out.images[:, 0])
        measured = {"psnr_db": psnr, "latent_std": spread}
        if self.portraits is not None:
            measured["psnr_portraits_db"] = self._measure(self.portraits[1])[0]
        return measured

    @torch.no_grad()
    def _measure(self, pictures: Tensor) -> tuple[float, float]:
        scores, latents = [], []
        for images in pictures.split(32):
            x = images.to(self.device).float() / 127.5 - 1
            z = self.vae.encode(x).latent_dist.mode()
            y = self.vae.decode(z).sample.clamp(-1, 1)
            scores.append(-10 * ((y - x) / 2).square().mean((1, 2, 3)).log10())
            latents.append(z)
        return float(torch.cat(scores).mean()), float(torch.cat(latents).std())
