"""Recipe of the two CLIP towers: captions and pictures of the world, told apart within a batch (arXiv 2103.00020)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTokenizer

from diffusion.backbone import IMAGE_MEAN, IMAGE_STD
from experiments.training.models import build_image_encoder, build_text_encoder
from experiments.world.captions import distinct, meaning
from experiments.world.dataset import Shards


class ClipRecipe:
    """Symmetric cross-entropy over the similarities of a batch."""

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        train: Shards,
        held_out: Shards,
        device: torch.device,
    ) -> None:
        self.tokenizer = tokenizer
        self.device = device
        self.text, self.image = build_text_encoder(tokenizer), build_image_encoder()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.modules = nn.ModuleDict({"text": self.text, "image": self.image})
        self.modules.register_parameter("logit_scale", self.logit_scale)
        self.modules.to(device)
        self.data, self.held_out = train, held_out
        self.tokens = self._tokenize(train.captions)
        known: dict[object, int] = {}
        self.meanings = torch.tensor([known.setdefault(meaning(c), len(known)) for c in train.captions])

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(self.data), (batch_size,), generator=generator)
        views = torch.randint(self.data.images.shape[1], (batch_size,), generator=generator)
        images = self.data.images[rows, views].to(self.device).float() / 255
        images = zoom(blur_some(images, generator), generator)
        image, text = self._embed_images(images), self._embed_tokens(self.tokens[rows].to(self.device))
        logits = image @ text.T * self.logit_scale.clamp(max=math.log(100)).exp()
        # Two rows of one meaning are both right: the target is shared among them.
        same = (self.meanings[rows][:, None] == self.meanings[rows][None]).to(self.device).float()
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return loss, {"scale": float(self.logit_scale.detach().exp())}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of held-out pictures whose own caption is the nearest of 100 that mean different things."""
        rows = distinct(self.held_out.captions)[:100]
        captions = [self.held_out.captions[row] for row in rows]
        images = self.held_out.images[rows, 0].to(self.device).float() / 255
        image, text = self._embed_images(images), self._embed_tokens(self._tokenize(captions).to(self.device))
        nearest = (image @ text.T).argmax(1).cpu()
        return {"retrieval_top1": float((nearest == torch.arange(len(rows))).float().mean())}

    def _tokenize(self, captions: list[str]) -> Tensor:
        return self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")[
            "input_ids"
        ]

    def _embed_images(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
        return F.normalize(self.image(pixel_values=(images - mean) / std).image_embeds.float(), dim=-1)

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.text(input_ids=tokens).text_embeds.float(), dim=-1)


def blur_some(images: Tensor, generator: torch.Generator, share: float = 0.4) -> Tensor:
    """Soften a share of ``[B, 3, H, W]``: what the towers will judge is often blurrier than renders."""
    soft = torch.rand(len(images), generator=generator) < share
    if not bool(soft.any()):
        return images
    small = F.interpolate(images[soft.to(images.device)], scale_factor=0.5, mode="area")
    images = images.clone()
    images[soft.to(images.device)] = F.interpolate(small, size=images.shape[-2:], mode="bilinear")
    return images


def zoom(images: Tensor, generator: torch.Generator, most: float = 0.15, shift: float = 0.08) -> Tensor:
    """Each of ``[B, 3, H, W]`` larger or smaller by up to ``most`` and moved by up to ``shift`` of its side.

    What comes in at the borders repeats the border, which is background. Nothing is mirrored: captions tell left from
    right. The few thousand scenes of a data set are soon known by heart otherwise.
    """
    drawn = 2 * torch.rand(len(images), 3, generator=generator).to(images) - 1
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + most * drawn[:, 0]
    theta[:, :, 2] = 2 * shift * drawn[:, 1:]
    at = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, at, padding_mode="border", align_corners=False)
