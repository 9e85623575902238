"""What CLIP's towers are asked about the pictures of a data set: each game's captions, right and wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experiments.world.caption_parsing import PairSpec, Spec, ThingSpec, parse, split_background
from experiments.world.captions import RELATIONS, held_out, meaning, phrase
from experiments.world.dataset import Shards
from experiments.world.head_spec import HeadSpec
from experiments.world.variations import exchanges, without_colors

Tokenize = Callable[[list[str]], Tensor]


@dataclass(frozen=True, slots=True)
class Said:
    """N pictures and what is said of them.

    rows: `[N]` of the data set. tokens: `[N, L]`, or `[N, 1 + K, L]` with K wrong captions after the right one.
    meanings: `[N]`, equal where the words mean the same; None where only the wrong captions are to be told from the
    right one. wrong: `[N, K]`, which of them there are. mirrored: mirror images are as good. recolored: colours do
    not matter.
    """

    rows: Tensor
    tokens: Tensor
    meanings: Tensor | None = None
    wrong: Tensor | None = None
    mirrored: bool = False
    recolored: bool = False

    def __getitem__(self, places: Tensor) -> Said:
        """Some of them, in the order of `places`."""
        return replace(
            self,
            rows=self.rows[places],
            tokens=self.tokens[places],
            meanings=None if self.meanings is None else self.meanings[places],
            wrong=None if self.wrong is None else self.wrong[places],
        )


def games(data: Shards, tokenize: Tokenize) -> dict[str, Said]:
    """What is said of the pictures in each game that the data set has pictures for, by the names of `_SHARES`."""
    plain = [split_background(caption)[0] for caption in data.captions]
    specs = [parse(caption) for caption in plain]
    found: dict[str, Said | None] = {
        "captions": _said(
            range(len(data)), data.captions, [meaning(caption) for caption in data.captions], tokenize
        )
    }
    for kind in ("thing", "pair", "head"):
        rows = _rows(data, kind)
        mirrored = kind == "thing"  # no word of theirs is about left or right
        found[kind] = _said(rows, plain, specs, tokenize, mirrored=mirrored)
        if kind != "head":
            shapes = ["" if isinstance(spec, HeadSpec) else phrase(without_colors(spec)) for spec in specs]
            found[f"shape of {kind}"] = _said(
                rows, shapes, shapes, tokenize, mirrored=mirrored, recolored=True
            )
    found["exchanges"] = exchanged(specs, tokenize, allowed=_may_be_learned)
    return {name: said for name, said in found.items() if said is not None}


def _said(
    rows: Iterable[int],
    captions: Sequence[str],
    meanings: Sequence[object],
    tokenize: Tokenize,
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


def exchanged(
    specs: Sequence[Spec], tokenize: Tokenize, *, allowed: Callable[[Spec], bool] = lambda _: True
) -> Said | None:
    """The pairs among these specs with their captions and what `exchanges` makes of them; None without any."""
    most = 3
    rows, captions, wrong = [], [], []
    for row, spec in enumerate(specs):
        others = list(exchanges(spec).items()) if isinstance(spec, PairSpec) else []
        if isinstance(spec, PairSpec) and spec.relation != "on":
            # From behind, left is right: a picture shows no side that it was taken from.
            others = [(name, other) for name, other in others if name != "places"]
        said = dict.fromkeys(phrase(other) for _, other in others if other != spec and allowed(other))
        if said:
            rows.append(row)
            captions += [phrase(spec), *said, *[""] * (most - len(said))]
            wrong.append([place < len(said) for place in range(most)])
    if not rows:
        return None
    return Said(
        rows=torch.tensor(rows),
        tokens=tokenize(captions).unflatten(0, (-1, 1 + most)),
        wrong=torch.tensor(wrong),
    )


def single_things(data: Shards) -> dict[int, ThingSpec]:
    """The rows that show one thing of one named colour, from which pairs can be put together."""
    specs = {row: parse(split_background(data.captions[row])[0]) for row in _rows(data, "thing")}
    return {
        row: spec
        for row, spec in specs.items()
        if isinstance(spec, ThingSpec) and spec.color is not None and not spec.secondary
    }


def put_together(
    things: Sequence[ThingSpec], first: Tensor, relations: Tensor, second: Tensor, tokenize: Tokenize
) -> Said | None:
    """What is said of pairs of these things, with what `exchanged` makes of it.

    first, second: `[B]` indices of things; relations: `[B]` indices of `RELATIONS`. The rows are places in the
    batch, fewer than B: pairs that are held out, and those that no exchange changes, are left out. None when none is
    left.
    """
    specs: dict[int, Spec] = {}
    for place, (a, relation, b) in enumerate(
        zip(first.tolist(), relations.tolist(), second.tolist(), strict=True)
    ):
        spec = PairSpec(a=things[a], relation=list(RELATIONS)[relation], b=things[b])
        if _may_be_learned(spec):
            specs[place] = spec
    said = exchanged(list(specs.values()), tokenize, allowed=_may_be_learned)
    if said is None:
        return None
    return replace(said, rows=torch.tensor(list(specs))[said.rows], meanings=torch.arange(len(said.rows)))


def _rows(data: Shards, kind: str) -> list[int]:
    return [row for row, own in enumerate(data.kinds) if own == kind]


def _may_be_learned(spec: Spec) -> bool:
    """A held-out caption must not be learned, and not as one that is always wrong either."""
    return not held_out(spec)
