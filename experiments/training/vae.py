"""Recipe of the VAE: crops of the world's pictures, absolute and squared error, a light pull to a normal posterior."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

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
        crop: int = 64,
        decoder_only: bool = False,
    ) -> None:
        """decoder_only leaves the latents as they are, so that a UNet trained on them stays valid."""
        self.vae: Any = build_vae()  # diffusers' annotations of its outputs leave the useful half out
        self.decoder_only = decoder_only
        if decoder_only:
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)
        self.modules = nn.ModuleDict({"vae": self.vae}).to(device)
        self.device, self.crop = device, crop
        self.data, self.held_out = train, held_out

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(self.data), (batch_size,), generator=generator)
        views = torch.randint(self.data.images.shape[1], (batch_size,), generator=generator)
        room = self.data.images.shape[-1] - self.crop
        # The sum of two dice: the middle is likeliest, the border still seen.
        corners = (torch.rand(batch_size, 2, 2, generator=generator).mean(1) * (room + 1)).long()
        crops = [
            self.data.images[r, v, :, y : y + self.crop, x : x + self.crop]
            for r, v, (y, x) in zip(rows.tolist(), views.tolist(), corners.tolist(), strict=True)
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

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """PSNR on whole held-out pictures in dB, mean over pictures, and the latents' spread."""
        scores, latents = [], []
        for images in self.held_out.images[:, 0].split(32):
            x = images.to(self.device).float() / 127.5 - 1
            z = self.vae.encode(x).latent_dist.mode()
            y = self.vae.decode(z).sample.clamp(-1, 1)
            scores.append(-10 * ((y - x) / 2).square().mean((1, 2, 3)).log10())
            latents.append(z)
        spread = torch.cat(latents)
        return {"psnr_db": float(torch.cat(scores).mean()), "latent_std": float(spread.std())}
