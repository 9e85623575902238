"""Captions that differ from one in a known respect."""

from __future__ import annotations

import pytest

from experiments.world.caption_parsing import PairSpec, ThingSpec, parse
from experiments.world.captions import phrase
from experiments.world.variations import exchanges, without_colors


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red cone on top of a blue cube", {
            "colors_bound": "a blue cone on top of a red cube", "things_bound": "a red cube on top of a blue cone",
            "places": "a blue cube on top of a red cone",
        }),
        ("a red cone next to a blue cube", {
            "colors_bound": "a blue cone next to a red cube", "things_bound": "a red cube next to a blue cone",
        }),
        # Beside each other, the two of one colour: what is exchanged is where it was.
        ("a red cone next to a red cube", {"colors_bound": "a red cone next to a red cube"}),
    ],
)  # fmt: skip
def test_exchanges(caption: str, expected: dict[str, str]) -> None:
    spec = parse(caption)
    assert isinstance(spec, PairSpec)
    assert exchanges(spec) == {name: parse(other) for name, other in expected.items()}
    for other in exchanges(spec).values():
        assert spec in exchanges(other).values()


def test_parts_do_not_survive_an_exchange() -> None:
    painted = ThingSpec(thing="mushroom", color="red", secondary={"stem": "blue"})
    assert exchanges(PairSpec(a=painted, relation="on", b=ThingSpec(thing="cube", color="red"))) == {}


def test_without_colors() -> None:
    spec = parse("a red cone on top of a blue cube")
    assert isinstance(spec, PairSpec)
    assert phrase(without_colors(spec)) == "a cone on a cube"
    painted = ThingSpec(thing="mushroom", color="red", secondary={"stem": "blue"})
    assert without_colors(painted) == ThingSpec(thing="mushroom")
