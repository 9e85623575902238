"""Recipe of the text-to-multiview UNet: v-prediction on cached latents, four views of a thing at one noise level."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion.adapters.camera import camera_condition
from diffusion.backbone import Backbone
from diffusion.schedule import Schedule
from experiments.training.models import build_scheduler, build_unet
from experiments.world.dataset import Shards


class MultiviewRecipe:
    """The text tower and the VAE come from ``backbone`` and stay as they are.

    drop_text: share of objects whose caption is left out, for classifier-free guidance.
    """

    def __init__(
        self,
        backbone: Backbone,
        train: Shards,
        held_out: Shards,
        *,
        channels: tuple[int, ...] = (64, 128, 128),
        drop_text: float = 0.1,
    ) -> None:
        self.unet = build_unet(channels)
        self.modules = nn.ModuleDict({"unet": self.unet}).to(backbone.device)
        self.schedule = Schedule.from_scheduler(build_scheduler()).to(backbone.device)
        self.drop_text = drop_text
        self.empty = backbone.encode_prompt([""]).embeds
        self.train = _Cache.of(backbone, train)
        self.held_out = _Cache.of(backbone, held_out)

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(self.train.latents), (batch_size,), generator=generator)
        t = self.schedule.sample_timesteps(batch_size, generator=generator)
        text = self.train.text[rows]
        dropped = torch.rand(batch_size, generator=generator) < self.drop_text
        text = torch.where(dropped[:, None, None].to(text.device), self.empty, text)
        noise = torch.randn(self.train.latents[rows].shape, generator=generator)
        return self._error(self.train, rows, t, text, noise).mean(), {}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean squared error of v on held-out scenes, the same noise and eight timesteps each time."""
        generator = torch.Generator().manual_seed(0)
        errors = []
        for rows in torch.arange(len(self.held_out.latents)).split(16):
            t = torch.arange(len(rows)) % 8 * 125 + 62
            noise = torch.randn(self.held_out.latents[rows].shape, generator=generator)
            errors.append(self._error(self.held_out, rows, t, self.held_out.text[rows], noise))
        return {"v_error": float(torch.cat(errors).mean())}

    def _error(self, cache: _Cache, rows: Tensor, t: Tensor, text: Tensor, noise: Tensor) -> Tensor:
        """Squared error of each object, ``[B]``."""
        device = self.empty.device
        x0, camera = cache.latents[rows].to(device).float(), cache.camera[rows].to(device)
        noise, t = noise.to(device), t.to(device)
        views = x0.shape[1]
        target = self.schedule.target(x0, noise, t)
        output = self.unet(
            self.schedule.add_noise(x0, noise, t).flatten(0, 1),
            t.repeat_interleave(views),
            text,
            class_labels=camera.flatten(0, 1),
            cross_attention_kwargs={"num_views": views},
        ).sample
        return (output.float().view_as(target) - target).square().flatten(1).mean(1)


class _Cache:
    """What the UNet sees: latents ``[N, V, 4, h, w]``, camera numbers ``[N, V, 16]``, text ``[N, L, C]``."""

    def __init__(self, latents: Tensor, camera: Tensor, text: Tensor) -> None:
        self.latents, self.camera, self.text = latents, camera, text

    @staticmethod
    @torch.no_grad()
    def of(backbone: Backbone, shards: Shards) -> _Cache:
        with torch.autocast(backbone.device.type, torch.bfloat16):
            latents = [
                backbone.encode(images.to(backbone.device).float() / 255).half().cpu()
                for images in shards.images.split(8)
            ]
        text = [
            backbone.encode_prompt(shards.captions[i : i + 256]).embeds for i in range(0, len(shards), 256)
        ]
        return _Cache(torch.cat(latents), camera_condition(shards.c2w), torch.cat(text))
