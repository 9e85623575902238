"""Captions that are wrong in one respect: another thing, another colour, two words exchanged.

What a CLIP is asked when it judges a picture, and what it has to be shown to learn the answer: captions of a random
batch differ in so much that colour alone tells most of them apart ("hard negatives", arXiv 2210.01936, section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from experiments.world.caption_parsing import (
    PairSpec,
    Spec,
    ThingSpec,
    parse,
    split_background,
    with_background,
)
from experiments.world.captions import COLORS, RELATIONS, THINGS, phrase
from experiments.world.head_spec import CLOTH_COLORS, GLASSES, HAIR_COLORS, HAIR_STYLES, SKIN_TONES, HeadSpec

# What may be changed about a head if its caption says it. Eyes are left out: most views do not show their colour.
_HEAD_WORDS = {
    "skin": SKIN_TONES, "hair_style": HAIR_STYLES, "hair_color": HAIR_COLORS, "glasses": GLASSES,
    "hat": CLOTH_COLORS, "shirt": CLOTH_COLORS,
}  # fmt: skip
_TRIES = 8


def exchanges(spec: PairSpec) -> dict[str, PairSpec]:
    """The pair with two words exchanged, by name: "colors_bound" and "things_bound" keep all else in its place,
    "places" exchanges the coloured things; without those that would mean the same."""
    a, b = spec.a, spec.b
    if a.secondary or b.secondary:
        return {}  # parts do not survive an exchange of things
    exchanged = {
        "colors_bound": replace(spec, a=replace(a, color=b.color), b=replace(b, color=a.color)),
        "things_bound": replace(spec, a=replace(a, thing=b.thing), b=replace(b, thing=a.thing)),
        "places": replace(spec, a=b, b=a),
    }
    if spec.relation == "next_to":
        del exchanged["places"]
    return {name: other for name, other in exchanged.items() if other != spec}


def contrasts(
    caption: str, count: int, rng: np.random.Generator, *, allowed: Callable[[Spec], bool] = lambda _: True
) -> list[str]:
    """Up to ``count`` captions, some perhaps alike, each wrong in one respect about what ``caption`` shows from
    anywhere around it; in varied phrasing, with its background. Fewer, or none, where few of a meaning that is
    ``allowed`` are found.

    Left and right, front and back are not exchanged: seen from the side, one becomes the other.
    """
    words, background = split_background(caption)
    spec = parse(words)
    found: list[str] = []
    for _ in range(count * _TRIES):
        if len(found) == count:
            break
        other = _changed(spec, rng)
        if other is not None and other != spec and allowed(other):
            said = phrase(other, rng)
            found.append(said if background is None else with_background(said, background))
    return found


def _changed(spec: Spec, rng: np.random.Generator) -> Spec | None:
    if isinstance(spec, HeadSpec):
        return _changed_head(spec, rng)
    if isinstance(spec, PairSpec):
        return _changed_pair(spec, rng)
    return _changed_thing(spec, rng)


def _changed_thing(spec: ThingSpec, rng: np.random.Generator) -> ThingSpec | None:
    """Another thing or another colour; of a thing in two colours, the two exchanged or one of them another."""
    if spec.secondary:
        part, color = next(iter(spec.secondary.items()))
        if spec.color is not None and rng.random() < 0.5:
            return replace(spec, color=color, secondary={**spec.secondary, part: spec.color})
        return replace(spec, secondary={**spec.secondary, part: _other(color, COLORS, rng)})
    if spec.color is None or rng.random() < 0.6:
        return replace(spec, thing=_other(spec.thing, THINGS, rng))
    return replace(spec, color=_other(spec.color, COLORS, rng))


def _changed_pair(spec: PairSpec, rng: np.random.Generator) -> PairSpec | None:
    """Colours or things exchanged, one thing or colour another, or on top of each other instead of side by side."""
    drawn = rng.random()
    if drawn < 0.5:
        exchanged = exchanges(spec)
        if spec.relation != "on":
            exchanged.pop("places", None)
        names = list(exchanged)
        return exchanged[names[int(rng.integers(len(names)))]] if names else None
    if drawn < 0.6:
        beside = [relation for relation in RELATIONS if relation != "on"]
        return replace(spec, relation=_other("on", beside, rng) if spec.relation == "on" else "on")
    if rng.random() < 0.5:
        return replace(spec, a=_changed_thing(spec.a, rng) or spec.a)
    return replace(spec, b=_changed_thing(spec.b, rng) or spec.b)


def _changed_head(spec: HeadSpec, rng: np.random.Generator) -> HeadSpec | None:
    said = [name for name in _HEAD_WORDS if getattr(spec, name) is not None]
    if not said:
        return None
    name = said[int(rng.integers(len(said)))]
    change: dict[str, Any] = {name: _other(getattr(spec, name), _HEAD_WORDS[name], rng)}
    return replace(spec, **change)


def _other(word: str, known: Any, rng: np.random.Generator) -> str:
    options = [each for each in known if each != word]
    return options[int(rng.integers(len(options)))]
