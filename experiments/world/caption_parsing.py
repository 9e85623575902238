"""Reading captions of the procedural world: what a caption means, and what to say when it means nothing.

The grammar: `a red mushroom`; `a mushroom with a red cap and a white stem`; `a blue cone on a yellow cube`;
each may end in `, on a light blue background`. Captions about people, `a portrait of a man with a beard` and
`a close-up of the face of a woman with green eyes`, go to `experiments.world.head_spec`.
Left and right are as seen from the front (+Z): left is -X.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from experiments.world.head_spec import HeadSpec, is_head_caption, parse_head
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
    SWAPPED,
    THING_WORDS,
    THINGS,
    article,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ThingSpec:
    """One thing: its colour (None: natural colours) and the colours of parts named apart from it."""

    thing: str
    color: str | None = None
    secondary: dict[str, str] | None = field(default=None, hash=False)
    background: str | None = None

    def __post_init__(self) -> None:
        check_word("thing", self.thing, THINGS)
        check_word("background", self.background, (None, *BACKGROUNDS))
        for color in (self.color, *(self.secondary or {}).values()):
            check_word("color", color, (None, *COLORS))
        for part in self.secondary or {}:
            check_word(f"part of a {self.thing}", part, PARTS.get(self.thing, ())[1:])


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSpec:
    """Thing a in a relation to thing b: "a on b", "a left_of b"."""

    a: ThingSpec
    relation: str
    b: ThingSpec
    background: str | None = None

    def __post_init__(self) -> None:
        check_word("relation", self.relation, RELATIONS)
        check_word("background", self.background, (None, *BACKGROUNDS))


Spec = ThingSpec | PairSpec | HeadSpec


def check_word(name: str, got: str | None, allowed: Iterable[str | None]) -> None:
    allowed = list(allowed)
    if got not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {got!r}")


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
        a=_parse_thing(first, caption),
        relation=relation,
        b=_parse_thing(second, caption),
        background=background,
    )


def split_background(caption: str) -> tuple[str, str | None]:
    """The caption without its closing background clause, and that clause's key of BACKGROUNDS or None."""
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
    check_word("background", name, BACKGROUNDS)
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
                "For a head, begin with 'a portrait of', for its face with 'a close-up of', then name a person"
            )


def _split_relation(words: list[str], caption: str) -> tuple[list[str], str, list[str]] | None:
    """The words before a relation, the relation, the words after it; None for a single thing."""
    found: tuple[list[str], str, list[str]] | None = None
    start = 0
    while start < len(words):
        width, relation = _relation_at(words, start)
        if width and found is not None:
            raise ValueError(
                f"the caption {caption!r} has more than one relation; at most two things can be placed"
            )
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
                raise ValueError(
                    f"{color!r} and {word!r} stand for one part in the caption {caption!r}; keep one"
                )
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
        raise ValueError(
            f"the caption {caption!r} needs a colour and a part after 'with', as in 'with a red cap'"
        )
    return parts


def _one_color(colors: Sequence[str], words: Sequence[str], caption: str) -> str | None:
    if len(set(colors)) > 1:
        raise ValueError(
            f"{' '.join(words)!r} (caption {caption!r}) has several colours: {', '.join(colors)}. "
            "Keep one, or colour parts as in 'a mushroom with a red cap and a white stem'"
        )
    return colors[0] if colors else None
