"""What a picture shows, read back by a CLIP: of captions that differ in one respect, is the right one the nearest?

A *question* is a set of options, of which one is right, and an option is a set of captions. An option's score is
log sum exp(50 cos(picture, caption)) over its captions: its share of a softmax over all of them, so an option of
several captions is judged with what they differ in marginalised. 50 is near the scale that CLIP learns; between 20
and 100 the answers hardly change. Captions are in the world's plainest words and name the picture's background.

The reader errs, above all about what stands in a pair and on a head. Its answers on the world's own pictures are the
ceiling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion.backbone import Backbone
from experiments.world.caption_parsing import PairSpec, Spec, ThingSpec, parse, split_background
from experiments.world.captions import COLORS, THINGS, phrase, with_background
from experiments.world.head_spec import CLOTH_COLORS, HAIR_COLORS, SKIN_TONES, HeadSpec
from experiments.world.variations import exchanges

Say = Callable[[Spec], str]

SCALE = 50.0
_BATCH = 128
# What a head's caption may colour, and with what.
_HEAD_COLORS = {"skin": SKIN_TONES, "hair_color": HAIR_COLORS, "hat": CLOTH_COLORS, "shirt": CLOTH_COLORS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """name: the score it counts for. options: captions, one tuple for each option. answer: index of the right one."""

    name: str
    options: tuple[tuple[str, ...], ...]
    answer: int


def questions(prompt: str) -> list[Question]:
    """What is asked about pictures of a prompt (a caption, with or without a background clause).

    thing, color: one thing among all things times colours of the vocabulary, "a {colour} {thing}". Which thing is
        asked with the colour marginalised, which colour with the thing marginalised. For a pair, each of its two
        things and two colours is asked with the rest of the caption as it is; for a head, each colour that the
        caption states (skin, hair, hat, shirt).
    colors_bound, things_bound, places: pairs only, the right caption against one of its `exchanges`.
    """
    background = split_background(prompt)[1]
    spec = parse(split_background(prompt)[0])

    def say(meant: Spec) -> str:
        words = phrase(meant)
        return words if background is None else with_background(words, background)

    if isinstance(spec, HeadSpec):
        return _about_head(spec, say)
    if isinstance(spec, PairSpec):
        return _about_pair(spec, say)
    return _about_thing(spec, say)


def _about_thing(spec: ThingSpec, say: Say) -> list[Question]:
    if spec.color is None or spec.secondary:
        return []  # a caption of no colour or of several is not among the options
    said = {(thing, color): say(ThingSpec(thing=thing, color=color)) for thing in THINGS for color in COLORS}
    by_thing = tuple(tuple(said[thing, color] for color in COLORS) for thing in THINGS)
    by_color = tuple(tuple(said[thing, color] for thing in THINGS) for color in COLORS)
    return [
        Question(name="thing", options=by_thing, answer=THINGS.index(spec.thing)),
        Question(name="color", options=by_color, answer=list(COLORS).index(spec.color)),
    ]


def _about_pair(spec: PairSpec, say: Say) -> list[Question]:
    asked = []
    for slot in ("a", "b"):
        member: ThingSpec = getattr(spec, slot)
        for name, field, known in (("thing", "thing", THINGS), ("color", "color", tuple(COLORS))):
            value = getattr(member, field)
            if value is None or member.secondary:
                continue
            options = tuple(
                (say(replace(spec, **{slot: replace(member, **{field: other})})),) for other in known
            )
            asked.append(Question(name=name, options=options, answer=known.index(value)))
    return asked + _about_binding(spec, say)


def _about_binding(spec: PairSpec, say: Say) -> list[Question]:
    right = say(spec)
    return [
        Question(name=name, options=((right,), (say(other),)), answer=0)
        for name, other in exchanges(spec).items()
        if say(other) != right
    ]


def colors_exchanged(prompt: str) -> str | None:
    """The prompt of a pair with its two colours exchanged; None for other prompts, and when both are one colour."""
    caption, background = split_background(prompt)
    spec = parse(caption)
    other = exchanges(spec).get("colors_bound") if isinstance(spec, PairSpec) else None
    if other is None or other == spec:
        return None
    return phrase(other) if background is None else with_background(phrase(other), background)


def _about_head(spec: HeadSpec, say: Say) -> list[Question]:
    asked = []
    for field, known in _HEAD_COLORS.items():
        value = getattr(spec, field)
        if value is not None:
            options = tuple((say(replace(spec, **{field: other})),) for other in known)
            asked.append(Question(name="color", options=options, answer=known.index(value)))
    return asked


class Reader:
    """The CLIP of a backbone, with the captions it has embedded kept."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def captions(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors [P, D]."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            self._known.update(zip(batch, self.backbone.embed_text(batch).cpu(), strict=True))
        return torch.stack([self._known[caption] for caption in captions])

    @torch.no_grad()
    def pictures(self, images: Tensor) -> Tensor:
        """Unit vectors [N, D] of images [N, 3, H, W] in [0, 1]."""
        return torch.cat(
            [self.backbone.embed_image(part.to(self.backbone.device)).cpu() for part in images.split(_BATCH)]
        )

    def ranks(self, embeddings: Tensor, question: Question) -> Tensor:
        """[V] long: how many wrong options are at least as near to each of [V, D] as the right one."""
        return ranks([embeddings @ self.captions(option).T for option in question.options], question.answer)


def ranks(similarities: Sequence[Tensor], answer: int) -> Tensor:
    """How many wrong options score at least as high as option `answer`: [V] long, 0 where it wins.

    similarities: for each option, how well V pictures fit its captions, [V, number of captions].
    """
    scores = torch.stack([(SCALE * each).logsumexp(dim=-1) for each in similarities], dim=-1)
    return (scores >= scores[:, answer, None]).sum(dim=-1) - 1


def read_back(reader: Reader, embeddings: Tensor, asked: Sequence[Question]) -> dict[str, float]:
    """Share of the views [V, D] whose right option wins, by name, over all questions of that name.

    "thing_top5": whether the right thing is among the five best.
    """
    hits: dict[str, list[Tensor]] = {}
    for question in asked:
        places = reader.ranks(embeddings, question)
        hits.setdefault(question.name, []).append(places == 0)
        if question.name == "thing":
            hits.setdefault("thing_top5", []).append(places < 5)
    return {name: float(torch.stack(each).float().mean()) for name, each in hits.items()}
