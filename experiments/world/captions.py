"""Captions of the procedural world: parsing, phrasing, sampling, and which of them are held out of training.

The grammar: `a red mushroom`; `a mushroom with a red cap and a white stem`; `a blue cone on a yellow cube`; each may
end in `, on a light blue background`. Captions about people go to `experiments.world.head_spec`.
Left and right are as seen from the front (+Z): left is -X.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from experiments.world.head_spec import HeadSpec, head_caption, held_out_head, is_head_caption, parse_head, sample_head
from experiments.world.vocabulary import (
    BACKGROUNDS,
    COLOR_SYNONYMS,
    COLORS,
    FILLERS,
    OPENINGS,
    PART_SYNONYMS,
    PARTS,
    RELATIONS,
    RGB,
    SAID_RELATIONS,
    SAID_WORDS,
    SHAPES,
    SWAPPED,
    THING_WORDS,
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
    "kind_of",
    "parse",
    "sample_caption",
    "split_background",
    "with_background",
]

KINDS = ("thing", "two_color", "pair", "head")
# Shares of the kinds in training, unless the caller says otherwise.
DEFAULT_KINDS: dict[str, float] = {"thing": 0.55, "pair": 0.20, "head": 0.25}
# What another thing can stand on without looking silly; only the sampler cares.
SUPPORTS = ("cube", "cylinder", "table", "chair", "cake", "torus", "mug", "car", "house", "mushroom", "sphere", "cone")
SALT = "galatea-world"


@dataclass(frozen=True, kw_only=True, slots=True)
class ThingSpec:
    """One thing: its colour (None: natural colours) and the colours of parts named apart from it."""

    thing: str
    color: str | None = None
    secondary: dict[str, str] | None = field(default=None, hash=False)
    background: str | None = None

    def __post_init__(self) -> None:
        _check("thing", self.thing, THINGS)
        _check("background", self.background, (None, *BACKGROUNDS))
        for color in (self.color, *(self.secondary or {}).values()):
            _check("color", color, (None, *COLORS))
        for part in self.secondary or {}:
            _check(f"part of a {self.thing}", part, PARTS.get(self.thing, ())[1:])


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSpec:
    """Thing a in a relation to thing b: "a on b", "a left_of b"."""

    a: ThingSpec
    relation: str
    b: ThingSpec
    background: str | None = None

    def __post_init__(self) -> None:
        _check("relation", self.relation, RELATIONS)
        _check("background", self.background, (None, *BACKGROUNDS))


Spec = ThingSpec | PairSpec | HeadSpec


def _check(name: str, got: str | None, allowed: Iterable[str | None]) -> None:
    allowed = list(allowed)
    if got not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {got!r}")


def kind_of(spec: Spec) -> str:
    """One of KINDS."""
    if isinstance(spec, HeadSpec):
        return "head"
    if isinstance(spec, PairSpec):
        return "pair"
    return "two_color" if spec.secondary else "thing"


# Parsing


def parse(caption: str) -> Spec:
    """What a caption means. Case, punctuation and a closing background clause are taken in stride.

    Raises ValueError that names the first word not understood and lists what is known. A HeadSpec has no
    background; ask `split_background` for it.
    """
    text, background = split_background(caption)
    if is_head_caption(text):
        return parse_head(text)
    words = _words(text)
    # "a picture of a red car": the opening adds nothing.
    if "of" in words[:5] and any(word in OPENINGS for word in words[: words.index("of")]):
        words = words[words.index("of") + 1 :]
    if not words:
        raise ValueError(f"the caption {caption!r} names no thing; try 'a red mushroom'")
    _check_known(words, caption)
    split = _split_relation(words, caption)
    if split is None:
        return replace(_parse_thing(words, caption), background=background)
    first, relation, second = split
    return PairSpec(
        a=_parse_thing(first, caption), relation=relation, b=_parse_thing(second, caption), background=background
    )


def split_background(caption: str) -> tuple[str, str | None]:
    """The caption without its closing background clause, and that clause's colour (a key of BACKGROUNDS) or None."""
    match = re.search(
        r"^(?P<rest>.*)\b(?:on|against|with|over|in front of)\s+(?:an?|the)\s+"
        r"(?P<name>(?:[a-z]+[\s-]+){0,3})(?:background|backdrop)[\s.!]*$",
        caption,
        re.IGNORECASE | re.DOTALL,
    )
    if match is None:
        return caption, None
    name = " ".join(word for word in re.split(r"[\s-]+", match["name"].lower()) if word and word != "plain")
    name = name.replace("gray", "grey").replace("pale blue", "light blue")
    for shade in ("yellow", "green", "pink"):
        name = name.replace(f"light {shade}", f"pale {shade}")
    if name not in BACKGROUNDS:
        raise ValueError(
            f"unknown background {name!r} in the caption {caption!r}{_hint(name, BACKGROUNDS)} "
            f"Known backgrounds: {', '.join(BACKGROUNDS)}"
        )
    return match["rest"].strip(" \t\n,;"), name


def background_of(caption: str) -> RGB | None:
    """sRGB of the caption's background clause, None when it has none."""
    name = split_background(caption)[1]
    return None if name is None else BACKGROUNDS[name]


def with_background(caption: str, name: str) -> str:
    """The caption with a background clause; `name` is a key of BACKGROUNDS."""
    _check("background", name, BACKGROUNDS)
    return f"{caption}, on {article(name)} {name} background"


_NOUNS = {word: thing for thing, words in THING_WORDS.items() for word in words}
_COLOR_WORDS = {**{color: color for color in COLORS}, **COLOR_SYNONYMS}
_PART_WORDS = {*PART_SYNONYMS, *(part for parts in PARTS.values() for part in parts)}
_RELATION_WORDS = {word for phrases in RELATIONS.values() for phrase in phrases for word in phrase.split()}
# Longest first, so that "on top of" is not read as "on".
_PHRASES = sorted(
    ((phrase.split(), relation) for relation, phrases in RELATIONS.items() for phrase in phrases),
    key=lambda item: -len(item[0]),
)
_KNOWN = {*_NOUNS, *_COLOR_WORDS, *_PART_WORDS, *_RELATION_WORDS, *SWAPPED, *FILLERS, "with", "in"}


def _words(text: str) -> list[str]:
    words = re.findall(r"[^\s,.;:!?\-\"()]+", text.lower())
    return [word.replace("'s", "") for word in words]


def _hint(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else "."


def _check_known(words: Sequence[str], caption: str) -> None:
    for word in words:
        if word not in _KNOWN:
            raise ValueError(
                f"unknown word {word!r} in the caption {caption!r}{_hint(word, _KNOWN - FILLERS)} "
                f"Things: {', '.join(THINGS)}. Colours: {', '.join(COLORS)}. "
                f"Relations: {', '.join(phrases[0] for phrases in RELATIONS.values())}. "
                "For a head, begin with 'a portrait of'."
            )


def _split_relation(words: list[str], caption: str) -> tuple[list[str], str, list[str]] | None:
    """The words before a relation, the relation, the words after it; None for a single thing."""
    found: tuple[list[str], str, list[str]] | None = None
    start = 0
    while start < len(words):
        width, relation = _relation_at(words, start)
        if width and found is not None:
            raise ValueError(f"the caption {caption!r} has more than one relation; at most two things can be placed")
        if width:
            before, after = words[:start], words[start + width :]
            swapped = words[start] in SWAPPED
            found = (after, relation, before) if swapped else (before, relation, after)
        start += max(width, 1)
    if found is None and "and" in words and "with" not in words:
        where = words.index("and")
        return words[:where], "next_to", words[where + 1 :]
    return found


def _relation_at(words: list[str], start: int) -> tuple[int, str]:
    """How many words from `start` make a relation (0 for none), and which."""
    if words[start] in SWAPPED:
        return 1, SWAPPED[words[start]]
    for phrase, relation in _PHRASES:
        if words[start : start + len(phrase)] == phrase:
            return len(phrase), relation
    return 0, ""


def _parse_thing(words: list[str], caption: str) -> ThingSpec:
    """One thing's phrase, such as "toy red car with black wheels" or "car that is red"."""
    where = words.index("with") if "with" in words else len(words)
    nouns = [word for word in words[:where] if word in _NOUNS]
    if len(nouns) != 1:
        got = "none" if not nouns else ", ".join(nouns)
        raise ValueError(
            f"expected one thing in {' '.join(words)!r} (caption {caption!r}), got {got}. "
            f"Name one of {', '.join(THINGS)}; two things need a relation such as 'on' or 'next to'"
        )
    thing = _NOUNS[nouns[0]]
    color = _one_color([_COLOR_WORDS[word] for word in words[:where] if word in _COLOR_WORDS], words, caption)
    for word in words[:where]:
        if word not in _NOUNS and word not in _COLOR_WORDS and word not in FILLERS and word != "in":
            raise ValueError(f"{word!r} is out of place in {' '.join(words)!r} (caption {caption!r})")
    parts = _parse_parts(thing, words[where + 1 :], caption) if "with" in words else {}
    main = PARTS[thing][0] if thing in PARTS else ""
    if main in parts:
        color = _one_color([c for c in (color, parts.pop(main)) if c], words, caption)
    return ThingSpec(thing=thing, color=color, secondary=parts or None)


def _parse_parts(thing: str, words: list[str], caption: str) -> dict[str, str]:
    """Colours of the parts in "a red cap and a white stem"."""
    allowed = PARTS.get(thing, ())
    parts: dict[str, str] = {}
    color: str | None = None
    for word in words:
        if word in _COLOR_WORDS:
            if color is not None:
                raise ValueError(f"{color!r} and {word!r} stand for one part in the caption {caption!r}; keep one")
            color = _COLOR_WORDS[word]
        elif word in _PART_WORDS:
            part = word if word in allowed else PART_SYNONYMS.get(word, word)
            if part not in allowed:
                known = f"its parts are {', '.join(allowed)}" if allowed else "it has no parts to colour"
                raise ValueError(f"a {thing} has no {word!r} (caption {caption!r}); {known}")
            if color is None:
                raise ValueError(f"the part {word!r} needs a colour in the caption {caption!r}")
            if parts.setdefault(part, color) != color:
                raise ValueError(f"the caption {caption!r} colours {part!r} twice; keep one colour")
            color = None
        elif word not in FILLERS and word != "with":
            raise ValueError(f"{word!r} is out of place after 'with' in the caption {caption!r}")
    if color is not None or not parts:
        raise ValueError(f"the caption {caption!r} needs a colour and a part after 'with', as in 'with a red cap'")
    return parts


def _one_color(colors: Sequence[str], words: Sequence[str], caption: str) -> str | None:
    if len(set(colors)) > 1:
        raise ValueError(
            f"{' '.join(words)!r} (caption {caption!r}) has several colours: {', '.join(colors)}. Keep one, or colour "
            "parts as in 'a mushroom with a red cap and a white stem'"
        )
    return colors[0] if colors else None


# Held out


def _in_tenth(*words: str) -> bool:
    """Whether a stable hash of the words falls in the tenth kept out of training."""
    digest = hashlib.sha256("/".join((SALT, *words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 1000 < 100


def held_out(spec: Spec) -> bool:
    """Whether a caption of this meaning is kept out of training, and so may be used by benchmarks.

    Held out are a fixed tenth of all (thing, colour) pairs, a tenth of all (thing, relation, thing) triples, every
    scene with a held-out member, and the head combinations of `held_out_head`. A thing without a colour is not.
    """
    if isinstance(spec, HeadSpec):
        return held_out_head(spec)
    if isinstance(spec, ThingSpec):
        return spec.color is not None and _in_tenth(spec.thing, spec.color)
    return held_out(spec.a) or held_out(spec.b) or _in_tenth(*_canonical_triple(spec))


def _canonical_triple(spec: PairSpec) -> tuple[str, str, str]:
    """One name for scenes that look alike: "a left of b" and "b right of a", "a next to b" and "b next to a"."""
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
) -> str:
    """A random caption, without a background clause.

    A "thing" now and then has two colours or none, unless `plain`.

    kinds: kinds to draw from, as a sequence (equal shares) or with weights; None for DEFAULT_KINDS.
    held_out: False draws only what training may see, True only what it never sees.
    plain: the canonical phrasing instead of a random one.
    """
    weights = dict(DEFAULT_KINDS) if kinds is None else kinds
    if not isinstance(weights, dict):
        weights = {kind: 1.0 for kind in weights}
    for kind in weights:
        _check("kind", kind, KINDS)
    names = list(weights)
    share = np.asarray([weights[name] for name in names], dtype=np.float64)
    if not names or share.min() < 0 or share.sum() <= 0:
        raise ValueError(f"kinds must name at least one kind with a positive weight, got {kinds!r}")
    kind = names[int(rng.choice(len(names), p=share / share.sum()))]
    while True:
        spec = _sample_spec(rng, kind, plain)
        # The local name shadows the function on purpose: callers read `held_out=True`.
        if _is_held_out(spec) == held_out:
            return _phrase(spec, None if plain else rng)


_is_held_out = held_out


def benchmark_captions(kind: str, n: int, seed: int = 0) -> list[str]:
    """`n` distinct held-out captions in plain words, the same for every run of the same arguments."""
    _check("kind", kind, KINDS)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    captions: dict[str, None] = {}
    for _ in range(200 * n):
        captions[sample_caption(rng, (kind,), held_out=True, plain=True)] = None
        if len(captions) == n:
            return list(captions)
    raise ValueError(f"only {len(captions)} distinct held-out captions of kind {kind!r} exist, got n={n}; ask for fewer")


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _sample_spec(rng: np.random.Generator, kind: str, plain: bool) -> Spec:
    if kind == "head":
        return sample_head(_torch_generator(rng))
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
        extras = [f"{c} {part}" if is_plural(part) else f"{article(c)} {c} {part}" for part, c in spec.secondary.items()]
        main = PARTS[spec.thing][0]
        if form < 0.5 and color:
            painted = f"{color} {main}" if is_plural(main) else f"{article(color)} {color} {main}"
            return f"{article(noun)} {noun} with {' and '.join([painted, *extras])}"
        return f"{article(lead)} {lead} with {' and '.join(extras)}"
    if form < 0.70 or short and form < 0.90:
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
