"""Recipe of the two CLIP towers: captions and pictures of the world, told apart within a batch (arXiv 2103.00020), and
each picture's own caption from some that are wrong in one respect (arXiv 2210.01936)."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTokenizer

from diffusion.backbone import IMAGE_MEAN, IMAGE_STD
from experiments.training.models import build_image_encoder, build_text_encoder
from experiments.world.captions import distinct, held_out, meaning
from experiments.world.contrasts import contrasts
from experiments.world.dataset import Shards

_KEPT = 12  # wrong captions of each picture, of which every step draws some


class ClipRecipe:
    """Symmetric cross-entropy over the similarities of a batch; pictures also choose among ``num_contrasts``
    captions that are wrong in one respect. None of those has a meaning that is held out: it would be learned as always
    wrong."""

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        train: Shards,
        held_out: Shards,
        device: torch.device,
        *,
        num_contrasts: int = 4,
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
        self.num_contrasts = num_contrasts
        if num_contrasts:
            self.wrong, self.num_wrong = self._wrong(train.captions)
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
        by_text = F.cross_entropy(logits.T, target)
        if self.num_contrasts:
            logits = torch.cat([logits, self._wrong_logits(rows, image, generator)], dim=1)
            target = F.pad(target, (0, self.num_contrasts))
        loss = (F.cross_entropy(logits, target) + by_text) / 2
        return loss, {"scale": float(self.logit_scale.detach().exp())}

    def _wrong_logits(self, rows: Tensor, image: Tensor, generator: torch.Generator) -> Tensor:
        """Of each picture [B, D] with wrong captions of its own, [B, num_contrasts]; hardly any where it has none."""
        drawn = torch.rand(len(rows), self.num_contrasts, generator=generator)
        known = self.num_wrong[rows, None]
        tokens = self.wrong[rows[:, None], (drawn * known).long()].long().to(self.device)
        text = self._embed_tokens(tokens.flatten(0, 1)).view(*drawn.shape, -1)
        logits = (image[:, None] * text).sum(-1) * self.logit_scale.clamp(max=math.log(100)).exp()
        return logits.masked_fill((known == 0).to(self.device), -1e4)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of held-out pictures whose own caption is the nearest of 100 that mean different things; and share of
        those that prefer it to every one of a few captions that are wrong in one respect."""
        rows = distinct(self.held_out.captions)[:100]
        captions = [self.held_out.captions[row] for row in rows]
        images = self.held_out.images[rows, 0].to(self.device).float() / 255
        image, text = self._embed_images(images), self._embed_tokens(self._tokenize(captions).to(self.device))
        nearest = (image @ text.T).argmax(1).cpu()
        rng = np.random.default_rng(0)
        preferred = []
        for row, caption in enumerate(captions):
            wrong = contrasts(caption, _KEPT, rng)
            if wrong:
                against = self._embed_tokens(self._tokenize(wrong).to(self.device)) @ image[row]
                preferred.append(bool(text[row] @ image[row] > against.max()))
        return {
            "retrieval_top1": float((nearest == torch.arange(len(rows))).float().mean()),
            "told_apart": sum(preferred) / max(len(preferred), 1),
        }

    def _wrong(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens [N, _KEPT, L] of captions that are wrong in one respect, and how many of them there are, [N]."""
        rng = np.random.default_rng(0)
        found = [
            contrasts(caption, _KEPT, rng, allowed=lambda spec: not held_out(spec)) for caption in captions
        ]
        tokens = self._tokenize([each for wrong in found for each in [*wrong, *[""] * (_KEPT - len(wrong))]])
        return tokens.view(len(captions), _KEPT, -1).short(), torch.tensor([len(wrong) for wrong in found])

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
