"""Captions that differ from one in a known respect: what a reader of pictures must not mix up, or may leave out."""

from __future__ import annotations

from dataclasses import replace

from experiments.world.caption_parsing import PairSpec, ThingSpec


def without_colors(spec: ThingSpec | PairSpec) -> ThingSpec | PairSpec:
    """The same things in the same places, and nothing said about their colours."""
    if isinstance(spec, PairSpec):
        return replace(
            spec, a=replace(spec.a, color=None, secondary=None), b=replace(spec.b, color=None, secondary=None)
        )
    return replace(spec, color=None, secondary=None)


def exchanges(spec: PairSpec) -> dict[str, PairSpec]:
    """The pair with two words exchanged, by the name of what tells the two apart.

    colors_bound: the two colours ("a blue cone on a red cube" for "a red cone on a blue cube"). things_bound: the two
    things, the colours staying. places: the two coloured things. Of things beside each other, no exchange that would
    mean the same. Nothing for a pair with parts coloured apart: parts do not survive an exchange of things. An exchange
    may leave the pair as it is.
    """
    a, b = spec.a, spec.b
    if a.secondary or b.secondary:
        return {}
    exchanged = {
        "colors_bound": replace(spec, a=replace(a, color=b.color), b=replace(b, color=a.color)),
        "things_bound": replace(spec, a=replace(a, thing=b.thing), b=replace(b, thing=a.thing)),
        "places": replace(spec, a=b, b=a),
    }
    if spec.relation == "next_to":
        del exchanged["places"]
        if a.color == b.color:
            del exchanged["things_bound"]
    return exchanged
