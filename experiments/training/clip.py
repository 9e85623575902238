"""Recipe of the two CLIP towers: captions and pictures of the world, told apart (arXiv 2103.00020).

Among pictures of all sorts a caption is found by its colours and its background, and no tower need learn what a robot
looks like. So most steps play a harder game than that: among pictures of one kind, without backgrounds in the words;
things by their shape alone, their colours shuffled in the picture and left out of the words; and a pair's caption
among those with two of its words exchanged (arXiv 2210.01936).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTokenizer

from diffusion.backbone import IMAGE_MEAN, IMAGE_STD
from experiments.training.models import build_image_encoder, build_text_encoder
from experiments.world.caption_parsing import PairSpec, Spec, ThingSpec, parse, split_background
from experiments.world.captions import THINGS, distinct, held_out, meaning, phrase
from experiments.world.dataset import Shards
from experiments.world.head_spec import HeadSpec
from experiments.world.variations import exchanges, without_colors

# How often each game is played, of all steps.
_SHARES = {
    "captions": 2,
    "thing": 3,
    "pair": 1,
    "head": 1,
    "shape of thing": 3,
    "shape of pair": 2,
    "exchanges": 3,
}
_MAX_SCALE = 100.0


@dataclass(frozen=True, slots=True)
class Said:
    """N pictures and what is said of them. rows: ``[N]`` of the data set. tokens: ``[N, L]``, or ``[N, 1 + K, L]`` with
    K wrong captions after the right one. meanings: ``[N]``, equal where the words mean the same. wrong: ``[N, K]``,
    which of the wrong captions there are. mirrored: mirror images are as good; recolored: colours do not matter."""

    rows: Tensor
    tokens: Tensor
    meanings: Tensor
    wrong: Tensor | None = None
    mirrored: bool = False
    recolored: bool = False


class ClipRecipe:
    """Symmetric cross-entropy over the similarities of a batch, or of a picture with a few captions.

    ``logit_scale`` and, for captions without colours, which many pictures share, ``shape_logit_scale`` are the
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
        self.names = [name for name in self.games for _ in range(_SHARES[name])]

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        game = self.games[self.names[int(torch.randint(len(self.names), (1,), generator=generator))]]
        drawn = torch.randint(len(game.rows), (batch_size,), generator=generator)
        views = torch.randint(self.data.images.shape[1], (batch_size,), generator=generator)
        images = self.data.images[game.rows[drawn], views].to(self.device).float() / 255
        images = zoom(blur_some(images, generator), generator)
        if game.mirrored:
            images = mirror_some(images, generator)
        if game.recolored:
            images = recolor(images, generator)
        image = self._embed_images(images)
        log_scale = self.shape_logit_scale if game.recolored else self.logit_scale
        scale = log_scale.clamp(max=math.log(_MAX_SCALE)).exp()
        tokens, meanings = game.tokens[drawn], game.meanings[drawn].to(self.device)
        if game.wrong is None:
            loss = _contrast(scale * image @ self._embed_tokens(tokens.to(self.device)).T, meanings)
        else:
            logits = self._among(scale * image, tokens, game.wrong[drawn])
            loss = F.cross_entropy(logits, torch.zeros(batch_size, dtype=torch.long, device=self.device))
        return loss, {"scale": float(self.logit_scale.detach().exp())}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Shares of held-out pictures: ``retrieval_top1``, whose own caption is the nearest of 100 that mean different
        things; ``thing_top1``, of one thing, whose name is the nearest of all names, no colour said; ``told_apart``, of
        a pair, whose own caption is nearer than those with two words exchanged."""
        rows = distinct(self.held_out.captions)[:100]
        own = self._embed_tokens(
            self._tokenize([self.held_out.captions[row] for row in rows]).to(self.device)
        )
        nearest = (self._held_out_images(torch.tensor(rows)) @ own.T).argmax(1).cpu()
        found = {"retrieval_top1": _share(nearest == torch.arange(len(rows)))}
        specs = [parse(split_background(caption)[0]) for caption in self.held_out.captions]
        return {**found, **self._things_named(specs), **self._pairs_told_apart(specs)}

    def _things_named(self, specs: Sequence[Spec]) -> dict[str, float]:
        single = {row: spec.thing for row, spec in enumerate(specs) if isinstance(spec, ThingSpec)}
        if not single:
            return {}
        names = self._tokenize([phrase(ThingSpec(thing=thing)) for thing in THINGS]).to(self.device)
        image = self._held_out_images(torch.tensor(list(single)))
        nearest = (image @ self._embed_tokens(names).T).argmax(1).cpu()
        right = torch.tensor([THINGS.index(thing) for thing in single.values()])
        return {"thing_top1": _share(nearest == right)}

    def _pairs_told_apart(self, specs: Sequence[Spec]) -> dict[str, float]:
        asked = _exchanged(specs, lambda _: True, self._tokenize)
        if asked is None or asked.wrong is None:
            return {}
        logits = self._among(self._held_out_images(asked.rows), asked.tokens, asked.wrong)
        return {"told_apart": _share(logits.argmax(1) == 0)}

    def _among(self, image: Tensor, tokens: Tensor, wrong: Tensor) -> Tensor:
        """Similarities ``[B, 1 + K]`` of ``[B, D]`` with own captions ``[B, 1 + K, L]``; -inf where there is no
        wrong one. A scale belongs to the pictures: the gradient of one that -inf were multiplied by would be nan."""
        text = self._embed_tokens(tokens.flatten(0, 1).to(self.device)).unflatten(0, tokens.shape[:2])
        missing = F.pad(~wrong, (1, 0)).to(self.device)
        return (image[:, None] * text).sum(-1).masked_fill(missing, -torch.inf)

    def _held_out_images(self, rows: Tensor) -> Tensor:
        """[N, D] of the first picture of each."""
        return torch.cat(
            [
                self._embed_images(part.to(self.device).float() / 255)
                for part in self.held_out.images[rows, 0].split(256)
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
        return F.normalize(self.text(input_ids=tokens).text_embeds.float(), dim=-1)


def games(data: Shards, tokenize: Callable[[list[str]], Tensor]) -> dict[str, Said]:
    """What is said of the pictures in each game that the data set has pictures for, by the names of ``_SHARES``."""
    plain = [split_background(caption)[0] for caption in data.captions]
    specs = [parse(caption) for caption in plain]
    found: dict[str, Said | None] = {
        "captions": _said(
            range(len(data)), data.captions, [meaning(caption) for caption in data.captions], tokenize
        )
    }
    for kind in ("thing", "pair", "head"):
        rows = [row for row, own in enumerate(data.kinds) if own == kind]
        mirrored = kind == "thing"  # no word of theirs is about left or right
        found[kind] = _said(rows, plain, specs, tokenize, mirrored=mirrored)
        if kind != "head":
            shapes = ["" if isinstance(spec, HeadSpec) else phrase(without_colors(spec)) for spec in specs]
            found[f"shape of {kind}"] = _said(
                rows, shapes, shapes, tokenize, mirrored=mirrored, recolored=True
            )
    # A held-out caption must not be learned as one that is always wrong.
    found["exchanges"] = _exchanged(specs, allowed=lambda spec: not held_out(spec), tokenize=tokenize)
    return {name: said for name, said in found.items() if said is not None}


def _said(
    rows: Iterable[int],
    captions: Sequence[str],
    meanings: Sequence[object],
    tokenize: Callable[[list[str]], Tensor],
    *,
    mirrored: bool = False,
    recolored: bool = False,
) -> Said | None:
    """Of these rows of captions and meanings; None without rows."""
    rows = list(rows)
    if not rows:
        return None
    known: dict[object, int] = {}
    return Said(
        rows=torch.tensor(rows),
        tokens=tokenize([captions[row] for row in rows]),
        meanings=torch.tensor([known.setdefault(meanings[row], len(known)) for row in rows]),
        mirrored=mirrored,
        recolored=recolored,
    )


def _exchanged(
    specs: Sequence[Spec], allowed: Callable[[Spec], bool], tokenize: Callable[[list[str]], Tensor]
) -> Said | None:
    """The pairs among these specs with their captions and what `exchanges` makes of them; None without any."""
    most = 3
    rows, captions, wrong = [], [], []
    for row, spec in enumerate(specs):
        exchanged = exchanges(spec) if isinstance(spec, PairSpec) else {}
        if isinstance(spec, PairSpec) and spec.relation != "on":
            # From behind, left is right: a picture shows no side that it was taken from.
            exchanged.pop("places", None)
        others = [other for other in exchanged.values() if other != spec and allowed(other)]
        others = list(dict.fromkeys(phrase(other) for other in others))
        if others:
            rows.append(row)
            captions += [phrase(spec), *others, *[""] * (most - len(others))]
            wrong.append([place < len(others) for place in range(most)])
    if not rows:
        return None
    return Said(
        rows=torch.tensor(rows),
        tokens=tokenize(captions).unflatten(0, (-1, 1 + most)),
        meanings=torch.arange(len(rows)),
        wrong=torch.tensor(wrong),
    )


def _contrast(logits: Tensor, meanings: Tensor) -> Tensor:
    """Both ways, of pictures with captions ``[B, B]``. Rows of one meaning are all right: the target is shared."""
    same = (meanings[:, None] == meanings[None]).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def mirror_some(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of ``[B, 3, H, W]``, left and right exchanged."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)


def recolor(images: Tensor, generator: torch.Generator, grey: float = 0.3) -> Tensor:
    """Each of ``[B, 3, H, W]`` with its channels shuffled and partly mixed, or, of a share ``grey``, without colour.
    What is grey stays as it is."""
    count = len(images)
    order = torch.rand(count, 3, generator=generator).argsort(1)
    mix = F.one_hot(order, 3).float()
    part = 0.5 * torch.rand(count, 1, 1, generator=generator)
    mix = (1 - part) * mix + part * mix.roll(1, 1)
    mix[torch.rand(count, generator=generator) < grey] = 1 / 3
    return torch.einsum("bij,bjhw->bihw", mix.to(images), images)


def blur_some(images: Tensor, generator: torch.Generator, share: float = 0.4) -> Tensor:
    """Soften a share of ``[B, 3, H, W]``: what the towers will judge is often blurrier than renders."""
    soft = torch.rand(len(images), generator=generator) < share
    if not bool(soft.any()):
        return images
    small = F.interpolate(images[soft.to(images.device)], scale_factor=0.5, mode="area")
    images = images.clone()
    images[soft.to(images.device)] = F.interpolate(small, size=images.shape[-2:], mode="bilinear")
    return images


def zoom(images: Tensor, generator: torch.Generator, most: float = 0.25, shift: float = 0.12) -> Tensor:
    """Each of ``[B, 3, H, W]`` larger or smaller by up to ``most`` and moved by up to ``shift`` of its side.

    What comes in at the borders repeats the border, which is background. The few thousand scenes of a data set are soon
    known by heart otherwise.
    """
    drawn = 2 * torch.rand(len(images), 3, generator=generator).to(images) - 1
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + most * drawn[:, 0]
    theta[:, :, 2] = 2 * shift * drawn[:, 1:]
    at = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, at, padding_mode="border", align_corners=False)
