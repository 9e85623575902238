"""The captions of a benchmark: the held-out ones of the world, or a file's, one a line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.errors import UserError
from experiments.world.captions import benchmark_captions, kind_of, parse

# Groups in the order of the table; the world's kinds that count as each.
GROUPS: dict[str, tuple[str, ...]] = {
    "things": ("thing", "two_color"),
    "pairs": ("pair",),
    "heads": ("head",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One asset to make. group: one of GROUPS."""

    index: int
    caption: str
    group: str

    @property
    def max_pieces(self) -> int:
        """Connected pieces a mesh of this caption may have: two things may or may not touch."""
        return 2 if self.group == "pairs" else 1


def default_cases(num_things: int, num_pairs: int, num_heads: int) -> list[Case]:
    """The held-out captions, the same for every call with the same numbers; UserError where there are not so many."""
    wanted = (("things", "thing", num_things), ("pairs", "pair", num_pairs), ("heads", "head", num_heads))
    captions: list[tuple[str, str]] = []
    for group, kind, number in wanted:
        try:
            captions += [(caption, group) for caption in (benchmark_captions(kind, number) if number else [])]
        except ValueError as error:
            raise UserError(f"num_{group} is {number}: {error}") from None
    return [Case(index=i, caption=caption, group=group) for i, (caption, group) in enumerate(captions)]


def read_cases(path: Path) -> list[Case]:
    """The captions of a UTF-8 text file, one a line; empty lines and lines that begin with # are left out.

    Raises:
        UserError: the file has no caption, one it does not understand (named with its line), or one twice.
        OSError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(
            f"prompts: {path} is no UTF-8 text; save it as UTF-8 with one caption a line"
        ) from None
    cases: list[Case] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        caption = line.strip()
        if not caption or caption.startswith("#"):
            continue
        if caption in seen:
            raise UserError(
                f"prompts: {path}, line {number} repeats line {seen[caption]} ({caption!r}); give each caption once"
            )
        try:
            kind = kind_of(parse(caption))
        except ValueError as error:
            raise UserError(f"prompts: {path}, line {number}: {error}") from None
        seen[caption] = number
        group = next(name for name, kinds in GROUPS.items() if kind in kinds)
        cases.append(Case(index=len(cases), caption=caption, group=group))
    if not cases:
        raise UserError(f"prompts: {path} holds no caption; write one a line, for example: a red mushroom")
    return cases
