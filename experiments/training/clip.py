"""Recipe of the two CLIP towers: captions and pictures of the world, told apart (arXiv 2103.00020).

Among pictures of all sorts a caption is found by its colours and its background, and no tower need learn what a robot
looks like. So most steps play a harder game than that: among pictures of one kind, without backgrounds in the words;
things by their shape alone, their colours shuffled in the picture and left out of the words; and a pair's caption
among those with two of its words exchanged (arXiv 2210.01936). The pairs of a data set are soon known by heart, so that
game is played with pairs put together from two pictures of things too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTokenizer

from diffusion.backbone import IMAGE_MEAN, IMAGE_STD
from experiments.training.augment import blur_some, collage, mirror_some, recolor, zoom
from experiments.training.clip_captions import Said, exchanged, games, put_together, single_things
from experiments.training.models import build_image_encoder, build_text_encoder
from experiments.world.caption_parsing import Spec, ThingSpec, parse, split_background
from experiments.world.captions import RELATIONS, THINGS, distinct, phrase
from experiments.world.dataset import Shards
from video.pixels import from_uint8

# How often each game is played, of all steps.
_SHARES = {
    "captions": 2,
    "thing": 3,
    "pair": 1,
    "head": 1,
    "shape of thing": 3,
    "shape of pair": 2,
    "exchanges": 2,
    "collages": 4,
}
_MAX_SCALE = 100.0


class ClipRecipe:
    """Symmetric cross-entropy over the similarities of a batch, or of a picture with a few captions.

    `logit_scale` and, for captions without colours, which many pictures share, `shape_logit_scale` are the
    logarithms of what similarities are multiplied by. They learn too, and are not kept.
    """

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
        self.logit_scale = nn.Parameter(torch.tensor(math.log(50.0)))
        self.shape_logit_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.modules = nn.ModuleDict({"text": self.text, "image": self.image})
        self.modules.register_parameter("logit_scale", self.logit_scale)
        self.modules.register_parameter("shape_logit_scale", self.shape_logit_scale)
        self.modules.to(device)
        self.data, self.held_out = train, held_out
        self.games = games(train, self._tokenize)
        self.things = single_things(train)
        played = [*self.games, *(["collages"] if self.things else [])]
        self.names = [name for name in played for _ in range(_SHARES[name])]

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        name = self.names[int(torch.randint(len(self.names), (1,), generator=generator))]
        said, images = (
            self._draw_collages(batch_size, generator)
            if name == "collages"
            else self._draw(self.games[name], batch_size, generator)
        )
        images = zoom(blur_some(images, generator), generator)
        if said.mirrored:
            images = mirror_some(images, generator)
        if said.recolored:
            images = recolor(images, generator)
        image = self._embed_images(images)
        log_scale = self.shape_logit_scale if said.recolored else self.logit_scale
        image = image * log_scale.clamp(max=math.log(_MAX_SCALE)).exp()
        text = self._embed_tokens(said.tokens)
        losses = []
        if said.wrong is not None:
            logits = _among(image, text, said.wrong)
            losses.append(
                F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=self.device))
            )
            text = text[:, 0]
        if said.meanings is not None:
            losses.append(_contrast(image @ text.T, said.meanings.to(self.device)))
        return torch.stack(losses).mean(), {"scale": float(self.logit_scale.detach().exp())}

    def _draw(self, game: Said, count: int, generator: torch.Generator) -> tuple[Said, Tensor]:
        """What is said in a batch, and its pictures."""
        said = game[torch.randint(len(game.rows), (count,), generator=generator)]
        return said, self._pictures(self.data.images, said.rows, self._draw_views(count, generator))

    def _draw_collages(self, count: int, generator: torch.Generator) -> tuple[Said, Tensor]:
        """Likewise of pairs put together, fewer than `count`; single things where no pair can be made."""
        things = list(self.things.values())
        first, second = torch.randint(len(things), (2, count), generator=generator)
        relations = torch.randint(len(RELATIONS), (count,), generator=generator)
        said = put_together(things, first, relations, second, self._tokenize)
        if said is None:
            return self._draw(self.games["thing"], count, generator)
        parts = []
        for drawn in (first, second):
            rows = torch.tensor(list(self.things))[drawn[said.rows]]
            views = self._draw_views(len(rows), generator)
            parts += [
                self._pictures(pictures, rows, views) for pictures in (self.data.images, self.data.masks)
            ]
        on_top = relations[said.rows] == list(RELATIONS).index("on")
        return said, collage(*parts, on_top=on_top, generator=generator)

    def _draw_views(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.data.images.shape[1], (count,), generator=generator)

    def _pictures(self, of: Tensor, rows: Tensor, views: Tensor) -> Tensor:
        """`[B, C, H, W]` in [0, 1]."""
        return from_uint8(of[rows, views].to(self.device))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Shares of held-out pictures: `retrieval_top1`, whose own caption is the nearest of 100 that mean different
        things; `thing_top1`, of one thing, whose name is the nearest of all names, no colour said; `told_apart`, of
        a pair, whose own caption is nearer than those with two words exchanged."""
        rows = distinct(self.held_out.captions)[:100]
        own = self._embed_tokens(self._tokenize([self.held_out.captions[row] for row in rows]))
        nearest = (self._held_out_images(torch.tensor(rows)) @ own.T).argmax(1).cpu()
        found = {"retrieval_top1": _share(nearest == torch.arange(len(rows)))}
        specs = [parse(split_background(caption)[0]) for caption in self.held_out.captions]
        return {**found, **self._things_named(specs), **self._pairs_told_apart(specs)}

    def _things_named(self, specs: Sequence[Spec]) -> dict[str, float]:
        single = {row: spec.thing for row, spec in enumerate(specs) if isinstance(spec, ThingSpec)}
        if not single:
            return {}
        names = self._tokenize([phrase(ThingSpec(thing=thing)) for thing in THINGS])
        image = self._held_out_images(torch.tensor(list(single)))
        nearest = (image @ self._embed_tokens(names).T).argmax(1).cpu()
        right = torch.tensor([THINGS.index(thing) for thing in single.values()])
        return {"thing_top1": _share(nearest == right)}

    def _pairs_told_apart(self, specs: Sequence[Spec]) -> dict[str, float]:
        asked = exchanged(specs, self._tokenize)
        if asked is None or asked.wrong is None:
            return {}
        logits = _among(self._held_out_images(asked.rows), self._embed_tokens(asked.tokens), asked.wrong)
        return {"told_apart": _share(logits.argmax(1) == 0)}

    def _held_out_images(self, rows: Tensor) -> Tensor:
        """[N, D] of the first picture of each."""
        return torch.cat(
            [
                self._embed_images(self._pictures(self.held_out.images, part, torch.zeros_like(part)))
                for part in rows.split(256)
            ]
        )

    def _tokenize(self, captions: list[str]) -> Tensor:
        return self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")[
            "input_ids"
        ]

    def _embed_images(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
        return F.normalize(self.image(pixel_values=(images - mean) / std).image_embeds.float(), dim=-1)

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        """`[..., D]` of `[..., L]`."""
        embeds = self.text(input_ids=tokens.to(self.device).flatten(0, -2)).text_embeds
        return F.normalize(embeds.float(), dim=-1).unflatten(0, tokens.shape[:-1])


def _among(image: Tensor, text: Tensor, wrong: Tensor) -> Tensor:
    """Similarities `[B, 1 + K]` of `[B, D]` with own captions `[B, 1 + K, D]`; -inf where there is no wrong one.
    A scale belongs to the pictures: the gradient of one that -inf were multiplied by would be nan."""
    missing = F.pad(~wrong, (1, 0)).to(image.device)
    return (image[:, None] * text).sum(-1).masked_fill(missing, -torch.inf)


def _contrast(logits: Tensor, meanings: Tensor) -> Tensor:
    """Both ways, of pictures with captions `[B, B]`. Rows of one meaning are all right: the target is shared."""
    same = (meanings[:, None] == meanings[None]).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _share(right: Tensor) -> float:
    return float(right.float().mean())
