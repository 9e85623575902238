"""Recipe of the VAE's decoder alone: sharp pictures from latents that stay as they are, and so every model on them.

A decoder that learns from errors of pixels alone draws the mean of all that a latent may stand for, which is soft. Here
the errors of edges count too, and a critic of patches holds out for what the world's pictures look like; what it sees
is whole pictures, as in use, of encoded latents and of latents as the models make them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avatar.face_box import FaceBox
from experiments.benchmark.sharpness import in_box, sharpness
from experiments.training.config import DecoderConfig
from experiments.training.patch_critic import PatchCritic
from experiments.training.picture_losses import critic_error, pyramid_error
from video.pixels import from_uint8


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """images: [N, 3, H, W] uint8, and latents: [N, C, h, w], in the backbone's scale, that should show them.

    share: share of a batch that comes from here. weight: how much their errors of pixels and edges count. boxes: the
    faces of N pictures that are portraits, where alone their sharpness is measured; else empty.
    """

    images: Tensor
    latents: Tensor
    share: float = 1.0
    weight: float = 1.0
    boxes: Sequence[FaceBox] = ()

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.latents), (self.images.shape, self.latents.shape)


class DecoderRecipe:
    """Encoder, `quant_conv` and scale stay as `vae` has them; a copy of `post_quant_conv` and decoder learns, and
    beside it the critic, whose weights are in the modules so that a continued run has them too."""

    def __init__(
        self,
        vae: nn.Module,
        train: Sequence[Pictures],
        held_out: Mapping[str, Pictures],
        config: DecoderConfig,
        device: torch.device,
    ) -> None:
        self.vae: Any = copy.deepcopy(vae).float()
        self.vae.encoder.requires_grad_(False)
        self.vae.quant_conv.requires_grad_(False)
        for learns in (self.vae.decoder, self.vae.post_quant_conv):
            learns.requires_grad_(True)
        self.scale = float(self.vae.config["scaling_factor"])
        self.shift = float(self.vae.config.get("shift_factor") or 0.0)
        self.critic = PatchCritic() if config.critic_weight else None
        modules = {"vae": self.vae} | ({} if self.critic is None else {"critic": self.critic})
        self.modules = nn.ModuleDict(modules).to(device)
        self.train, self.held_out, self.config, self.device = list(train), dict(held_out), config, device
        self.step = 0

    def begin(self, step: int) -> None:
        """The critic has a say from a certain step on."""
        self.step = step

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        images, latents, weights = self._draw(batch_size, generator)
        made = self._decode(latents)
        pixels = (made - images).abs().flatten(1).mean(1)
        edges = pyramid_error(made, images)
        loss = (weights * (pixels + self.config.pyramid_weight * edges)).mean()
        metrics = {"pixels": float(pixels.detach().mean()), "edges": float(edges.detach().mean())}
        if self.critic is not None:
            if self.step >= self.config.critic_from:
                loss = loss - self.config.critic_weight * self.critic.frozen(made).mean()
            told_apart = critic_error(self.critic(images), self.critic(made.detach()))
            loss = loss + told_apart
            metrics["critic"] = float(told_apart.detach())
        return loss, metrics

    def _draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures in [-1, 1], latents and weights of a batch."""
        shares = torch.tensor([source.share for source in self.train])
        sources = torch.multinomial(shares, batch_size, replacement=True, generator=generator)
        drawn = []
        for source in (self.train[int(i)] for i in sources):
            row = int(torch.randint(len(source.images), (), generator=generator))
            drawn.append((source.images[row], source.latents[row].float(), torch.tensor(source.weight)))
        images, latents, weights = (torch.stack(each).to(self.device) for each in zip(*drawn, strict=True))
        return images.float() / 127.5 - 1, latents, weights

    def _decode(self, latents: Tensor) -> Tensor:
        """Pictures in about [-1, 1] of latents in the backbone's scale."""
        return self.vae.decode(latents / self.scale + self.shift).sample.float()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """PSNR in dB, mean over pictures, and sharpness over the truth's, of whole held-out pictures of each kind."""
        measured = {}
        for name, pictures in self.held_out.items():
            truth = from_uint8(pictures.images)
            made = torch.cat(
                [
                    (self._decode(some.to(self.device).float()).cpu() * 0.5 + 0.5).clamp(0, 1)
                    for some in pictures.latents.split(16)
                ]
            )
            psnr = -10 * (made - truth).square().mean((1, 2, 3)).log10()
            measured[f"psnr_{name}_db"] = float(psnr.mean())
            measured[f"sharpness_{name}"] = _sharpness(made, truth, pictures.boxes)
        return measured


def _sharpness(made: Tensor, truth: Tensor, boxes: Sequence[FaceBox]) -> float:
    """Of pictures [N, 3, H, W]; with N boxes of the faces in them alone, the mean over the pictures."""
    if not boxes:
        return sharpness(made, truth)
    faces = [
        sharpness(in_box(one[None], box), in_box(true[None], box))
        for one, true, box in zip(made, truth, boxes, strict=True)
    ]
    return sum(faces) / len(faces)
