"""What CLIP's towers are asked about the pictures of a data set."""

from __future__ import annotations

from collections.abc import Callable

import torch

from experiments.training.clip_captions import Said, exchanged, games, put_together, single_things
from experiments.world.caption_parsing import PairSpec, ThingSpec, parse
from experiments.world.captions import COLORS, RELATIONS, held_out, split_background
from experiments.world.dataset import Shards

known: list[str] = []


def as_they_are(captions: list[str]) -> torch.Tensor:
    """Tokens that tell captions apart, and nothing else."""
    known.extend(captions)
    return torch.arange(len(known) - len(captions), len(known))[:, None]


def words(tokens: torch.Tensor) -> list[str]:
    return [known[int(token)] for token in tokens.flatten()]


def right_and_wrong(said: Said) -> list[tuple[str, list[str]]]:
    """Of each picture; and what stands for a wrong caption that there is none of is nothing."""
    assert said.wrong is not None
    found = []
    for tokens, wrong in zip(said.tokens, said.wrong, strict=True):
        right, *others = words(tokens)
        assert [bool(other) for other in others] == wrong.tolist()
        found.append((right, [other for other in others if other]))
    return found


def test_what_is_said_in_each_game(shards: Callable[..., Shards]) -> None:
    data = shards()
    found = games(data, as_they_are)
    assert words(found["captions"].tokens) == data.captions
    assert words(found["thing"].tokens) == ["a red car", "a car", data.captions[2], "a blue cube"]
    assert words(found["pair"].tokens)[2] == "a green cat left of a yellow ball"
    assert words(found["head"].tokens) == data.captions[6:8]
    assert words(found["shape of thing"].tokens) == ["a car", "a car", "a mushroom", "a cube"]
    assert words(found["shape of pair"].tokens)[0] == "a car on a cube"
    # Two cars are one shape, and no two colours of a car one thing.
    assert found["shape of thing"].meanings is not None
    assert found["thing"].meanings is not None
    assert found["shape of thing"].meanings.tolist() == [0, 0, 1, 2]
    assert found["thing"].meanings.tolist() == [0, 1, 2, 3]
    assert [name for name, said in found.items() if said.recolored] == ["shape of thing", "shape of pair"]
    assert [name for name, said in found.items() if said.mirrored] == ["thing", "shape of thing"]
    for name, said in found.items():
        if said.recolored:
            named = {color for each in words(said.tokens) for color in COLORS if color in each.split()}
            assert not named, name


def test_wrong_captions_are_wrong_and_never_held_out(shards: Callable[..., Shards]) -> None:
    data = shards()
    found = games(data, as_they_are)["exchanges"]
    assert found.wrong is not None
    for row, (right, others) in zip(found.rows.tolist(), right_and_wrong(found), strict=True):
        assert others
        for other in others:
            assert parse(other) != parse(right)
            assert not held_out(parse(other))
        assert parse(right) == parse(split_background(data.captions[row])[0])
    # Who is left of whom depends on where the picture is taken from, but not who is on top.
    on, beside = (found.rows.tolist().index(row) for row in (3, 5))
    assert found.wrong.sum(1)[[on, beside]].tolist() == [3, 2]
    # Two blue things beside each other: every exchange is the same scene.
    assert 4 not in found.rows.tolist()


def test_no_pairs_no_exchanges() -> None:
    assert exchanged([ThingSpec(thing="car", color="red")], as_they_are) is None


def test_some_of_what_is_said(shards: Callable[..., Shards]) -> None:
    found = games(shards(), as_they_are)
    thing, pair = found["thing"][torch.tensor([3, 0])], found["exchanges"][torch.tensor([1])]
    assert words(thing.tokens) == ["a blue cube", "a red car"]
    assert thing.meanings is not None
    assert thing.meanings.tolist() == [3, 0]
    assert thing.rows.tolist() == [8, 0]
    assert thing.wrong is None
    assert thing.mirrored
    assert words(pair.tokens[:, 0]) == ["a green cat left of a yellow sphere"]
    assert pair.meanings is None
    assert pair.wrong is not None
    assert pair.wrong.tolist() == [[True, True, False]]


def test_a_data_set_without_a_kind_has_fewer_games(shards: Callable[..., Shards]) -> None:
    assert list(games(shards({"a red car": "thing"}), as_they_are)) == ["captions", "thing", "shape of thing"]


def test_pairs_are_put_together_of_things_of_one_named_colour(shards: Callable[..., Shards]) -> None:
    things = single_things(shards())
    assert things == {0: ThingSpec(thing="car", color="red"), 8: ThingSpec(thing="cube", color="blue")}
    count = 64
    first, second = torch.randint(2, (2, count), generator=torch.Generator().manual_seed(0))
    relations = torch.arange(count) % len(RELATIONS)
    said = put_together(list(things.values()), first, relations, second, as_they_are)
    assert said is not None
    assert said.meanings is not None
    assert said.meanings.tolist() == list(range(len(said.rows)))
    # A red car and a red car: nothing to exchange.
    assert set(said.rows.tolist()) <= {place for place in range(count) if first[place] != second[place]}
    for place, (right, others) in zip(said.rows.tolist(), right_and_wrong(said), strict=True):
        pair = list(things.values())
        assert parse(right) == PairSpec(
            a=pair[int(first[place])],
            relation=list(RELATIONS)[int(relations[place])],
            b=pair[int(second[place])],
        )
        assert others
        assert not any(held_out(parse(each)) for each in (right, *others))


def test_held_out_pairs_are_not_put_together() -> None:
    things = [ThingSpec(thing=thing, color=color) for thing in ("car", "cube", "duck") for color in COLORS]
    kept_out = [index for index, thing in enumerate(things) if held_out(thing)]
    other = next(index for index in range(len(things)) if index not in kept_out)
    first = torch.tensor(kept_out)
    same = torch.full_like(first, other)
    assert kept_out
    assert put_together(things, first, torch.zeros_like(first), same, as_they_are) is None
