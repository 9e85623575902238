"""Captions of the procedural world: which are held out of training, how they are phrased, and sampling them.

The door to the grammar: `parse` and the specs of `experiments.world.caption_parsing` are named here too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import torch

from experiments.world.caption_parsing import (
    PairSpec,
    Spec,
    ThingSpec,
    background_of,
    check_word,
    parse,
    split_background,
    with_background,
)
from experiments.world.head_spec import HeadSpec, head_caption, held_out_head, sample_close_up, sample_head
from experiments.world.vocabulary import (
    BACKGROUNDS,
    COLORS,
    PARTS,
    RELATIONS,
    SAID_RELATIONS,
    SAID_WORDS,
    SHAPES,
    THINGS,
    article,
    is_plural,
)

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "KINDS",
    "RELATIONS",
    "THINGS",
    "PairSpec",
    "Spec",
    "ThingSpec",
    "background_of",
    "benchmark_captions",
    "held_out",
    "is_short",
    "kind_of",
    "parse",
    "phrase",
    "sample_caption",
    "split_background",
    "with_background",
]

KINDS = ("thing", "two_color", "pair", "head")
# Shares of the kinds in training, unless the caller says otherwise.
DEFAULT_KINDS: dict[str, float] = {"thing": 0.55, "pair": 0.20, "head": 0.25}
# What another thing can stand on without looking silly; only the sampler cares.
SUPPORTS = (
    "cube",
    "cylinder",
    "table",
    "chair",
    "cake",
    "torus",
    "mug",
    "car",
    "house",
    "mushroom",
    "sphere",
    "cone",
)
SALT = "galatea-world"


def kind_of(spec: Spec) -> str:
    """One of KINDS."""
    if isinstance(spec, HeadSpec):
        return "head"
    if isinstance(spec, PairSpec):
        return "pair"
    return "two_color" if spec.secondary else "thing"


# Held out


def _in_tenth(*words: str) -> bool:
    """Whether a stable hash of the words falls in the tenth kept out of training."""
    digest = hashlib.sha256("/".join((SALT, *words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 1000 < 100


def held_out(spec: Spec) -> bool:
    """Whether a caption of this meaning is kept out of training, and so may be used by benchmarks.

    Held out are a fixed tenth of all (thing, colour) pairs, a tenth of all (thing, relation, thing) triples,
    every scene with a held-out member, and the head combinations of `held_out_head`. A thing without a colour
    is not.
    """
    if isinstance(spec, HeadSpec):
        return held_out_head(spec)
    if isinstance(spec, ThingSpec):
        return spec.color is not None and _in_tenth(spec.thing, spec.color)
    return held_out(spec.a) or held_out(spec.b) or _in_tenth(*_canonical_triple(spec))


def _canonical_triple(spec: PairSpec) -> tuple[str, str, str]:
    """One name for scenes that look alike, as "a left of b" and "b right of a" do."""
    a, relation, b = spec.a.thing, spec.relation, spec.b.thing
    if relation in ("right_of", "behind"):
        return b, {"right_of": "left_of", "behind": "in_front_of"}[relation], a
    if relation == "next_to":
        a, b = sorted((a, b))
    return a, relation, b


# Phrasing and sampling


def sample_caption(
    rng: np.random.Generator,
    kinds: dict[str, float] | Sequence[str] | None = None,
    *,
    held_out: bool = False,
    plain: bool = False,
    close_up: bool = False,
) -> str:
    """A random caption, without a background clause.

    A "thing" now and then has two colours or none, unless `plain`.

    kinds: kinds to draw from, as a sequence (equal shares) or with weights; None for DEFAULT_KINDS.
    held_out: False draws only what training may see, True only what it never sees.
    plain: the canonical phrasing instead of a random one.
    close_up: heads are close-ups, and their captions short, see `is_short`.
    """
    weights = dict(DEFAULT_KINDS) if kinds is None else kinds
    if not isinstance(weights, dict):
        weights = dict.fromkeys(weights, 1.0)
    for kind in weights:
        check_word("kind", kind, KINDS)
    names = list(weights)
    share = np.asarray([weights[name] for name in names], dtype=np.float64)
    if not names or share.min() < 0 or share.sum() <= 0:
        raise ValueError(f"kinds must name at least one kind with a positive weight, got {kinds!r}")
    kind = names[int(rng.choice(len(names), p=share / share.sum()))]
    while True:
        spec = _sample_spec(rng, kind, plain, close_up)
        # The local name shadows the function on purpose: callers read `held_out=True`.
        if _is_held_out(spec) != held_out:
            continue
        caption = _phrase(spec, None if plain else rng)
        if not close_up or is_short(caption):
            return caption


_is_held_out = held_out


def is_short(caption: str) -> bool:
    """Whether a text encoder of 32 tokens reads a close-up's caption to its end: whether it has at most 24 words and
    commas, for eight tokens are the beginning, the end and the pieces that "close-up" and "face" may fall into."""
    return len(re.findall(r"\w+|,", caption)) <= 24


def benchmark_captions(kind: str, n: int, seed: int = 0) -> list[str]:
    """`n` distinct held-out captions in plain words, the same for every run of the same arguments."""
    check_word("kind", kind, KINDS)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    captions: dict[str, None] = {}
    stale = 0
    # Some kinds have few captions; many draws in a row without a new one mean that all are found.
    while stale < 500:
        caption = sample_caption(rng, (kind,), held_out=True, plain=True)
        stale = stale + 1 if caption in captions else 0
        captions[caption] = None
        if len(captions) == n:
            return list(captions)
    raise ValueError(
        f"only {len(captions)} distinct held-out captions of kind {kind!r} exist, got n={n}; ask for fewer"
    )


def meaning(caption: str) -> tuple[Spec, str | None]:
    """What a caption says, background included: equal for two phrasings, such as "one red ball" and "a red sphere"."""
    return parse(caption), split_background(caption)[1]


def distinct(captions: Sequence[str]) -> list[int]:
    """Where each meaning among `captions` stands first."""
    first: dict[tuple[Spec, str | None], int] = {}
    for index, caption in enumerate(captions):
        first.setdefault(meaning(caption), index)
    return list(first.values())


def phrase(spec: Spec) -> str:
    """The spec in its plainest words, without its background: `parse` reads the same spec back."""
    return _phrase(spec, None)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _sample_spec(rng: np.random.Generator, kind: str, plain: bool, close_up: bool) -> Spec:
    if kind == "head":
        return (sample_close_up if close_up else sample_head)(_torch_generator(rng))
    if kind == "pair":
        relation = _pick(rng, list(RELATIONS))
        b = _pick(rng, SUPPORTS if relation == "on" else THINGS)
        a = _pick(rng, [thing for thing in _pair_pool(rng) if thing != b])
        return PairSpec(
            a=ThingSpec(thing=a, color=_pick(rng, list(COLORS))),
            relation=relation,
            b=ThingSpec(thing=b, color=_pick(rng, list(COLORS))),
        )
    colors = list(COLORS)
    chance = 1.0 if plain else float(rng.random())
    if kind == "thing" and chance >= 0.2:
        thing = _pick(rng, THINGS)
        # The bare thing keeps its natural colours.
        return ThingSpec(thing=thing, color=None if chance < 0.25 and thing in PARTS else _pick(rng, colors))
    thing, main = _pick(rng, list(PARTS)), _pick(rng, colors)
    part = PARTS[thing][1] if rng.random() < 0.7 else _pick(rng, PARTS[thing][1:])
    return ThingSpec(
        thing=thing, color=main, secondary={part: _pick(rng, [color for color in colors if color != main])}
    )


def _pair_pool(rng: np.random.Generator) -> Sequence[str]:
    """Plain shapes make half of the pairs."""
    return SHAPES if rng.random() < 0.5 else THINGS


def _torch_generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def _phrase(spec: Spec, rng: np.random.Generator | None) -> str:
    """The spec in words; `parse` reads the same spec back. Without rng always the plainest form."""
    if isinstance(spec, HeadSpec):
        return head_caption(spec, None if rng is None else _torch_generator(rng))
    if isinstance(spec, ThingSpec):
        return _phrase_thing(spec, rng)
    said = SAID_RELATIONS[spec.relation]
    relation = said[0] if rng is None else _pick(rng, said)
    be = " is" if rng is not None and rng.random() < 0.06 else ""
    return f"{_phrase_thing(spec.a, rng, short=True)}{be} {relation} {_phrase_thing(spec.b, rng, short=True)}"


def _phrase_thing(spec: ThingSpec, rng: np.random.Generator | None, *, short: bool = False) -> str:
    """Forms of one thing; `short` leaves out those that would read badly inside a longer sentence."""
    color = spec.color or ""
    noun = SAID_WORDS[spec.thing][0] if rng is None else _pick(rng, SAID_WORDS[spec.thing])
    lead = f"{color} {noun}".strip()
    form = 0.0 if rng is None else float(rng.random())
    if spec.secondary:
        extras = [
            f"{c} {part}" if is_plural(part) else f"{article(c)} {c} {part}"
            for part, c in spec.secondary.items()
        ]
        main = PARTS[spec.thing][0]
        if form < 0.5 and color:
            painted = f"{color} {main}" if is_plural(main) else f"{article(color)} {color} {main}"
            return f"{article(noun)} {noun} with {' and '.join([painted, *extras])}"
        return f"{article(lead)} {lead} with {' and '.join(extras)}"
    if form < 0.70 or (short and form < 0.90):
        return f"{article(lead)} {lead}"
    if form < 0.78 or short:
        return f"the {lead}"
    if form < 0.84:
        return f"one {lead}"
    if form < 0.90:
        return f"a toy {lead}" if form < 0.87 else f"{article(lead)} {lead} toy"
    if form < 0.95 and color:
        return f"{article(noun)} {noun} that is {color}"
    return f"a picture of {article(lead)} {lead}" if form < 0.97 else lead
