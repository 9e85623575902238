"""Captions that are wrong in one respect."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.world.caption_parsing import PairSpec
from experiments.world.captions import held_out, meaning, parse, sample_caption, with_background
from experiments.world.contrasts import contrasts, exchanges


def test_they_are_never_right_nor_held_out_and_keep_the_background() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        caption = with_background(sample_caption(rng), "pale green")
        for wrong in contrasts(caption, 6, rng, allowed=lambda spec: not held_out(spec)):
            assert meaning(wrong)[0] != meaning(caption)[0]
            assert meaning(wrong)[1] == "pale green"
            assert not held_out(parse(wrong))


def test_every_kind_of_caption_has_them_and_chance_repeats() -> None:
    for caption in (
        "a red mug", "a table with a white top and orange legs", "a cat", "a red ball on a blue cube",
        "a portrait of a man with short black hair",
    ):  # fmt: skip
        wrong = contrasts(caption, 5, np.random.default_rng(3))
        assert len(wrong) == 5
        assert wrong == contrasts(caption, 5, np.random.default_rng(3))
    # Nothing is said of this head that could be wrong.
    assert contrasts("a portrait of a person", 5, np.random.default_rng(3)) == []


def test_one_respect_at_a_time() -> None:
    rng = np.random.default_rng(1)
    spec = parse("a red mug")
    for wrong in map(parse, contrasts("a red mug", 40, rng)):
        assert (wrong.thing == spec.thing) != (wrong.color == spec.color)  # type: ignore[union-attr]


@pytest.mark.parametrize("relation", ["left of", "in front of", "next to"])
def test_sides_are_not_exchanged(relation: str) -> None:
    """From the other side "left of" looks like "right of"; on top of each other looks the same from everywhere."""
    rng = np.random.default_rng(2)
    pair = parse(f"a red cone {relation} a blue cube")
    assert isinstance(pair, PairSpec)
    wrong = [parse(each) for each in contrasts(f"a red cone {relation} a blue cube", 60, rng)]
    assert {each.relation for each in wrong if isinstance(each, PairSpec)} == {pair.relation, "on"}
    assert exchanges(pair)["colors_bound"] in wrong
    assert exchanges(pair)["things_bound"] in wrong
    places = exchanges(pair).get("places")
    assert places is None or places not in wrong


def test_exchanges_that_would_mean_the_same_are_left_out() -> None:
    assert set(exchanges(parse("a red cone on a red cube"))) == {"things_bound", "places"}  # type: ignore[arg-type]
    assert set(exchanges(parse("a red cone next to a blue cube"))) == {"colors_bound", "things_bound"}  # type: ignore[arg-type]
