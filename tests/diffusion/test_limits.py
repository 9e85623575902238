"""Bounds of settings: which numbers are refused, and in which words."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from diffusion.limits import check_least, check_range


@dataclass(frozen=True)
class Numbers:
    share: float = 0.5
    count: int = 1


@pytest.mark.parametrize(
    ("ends", "inside", "outside", "words"),
    [
        ("[]", (0.0, 0.3, 1.0), (-0.1, 1.1), "must lie in 0..1, got "),
        ("(]", (1e-9, 1.0), (0.0, 1.1), "must lie above 0 and up to 1, got "),
        ("[)", (0.0, 0.999), (-0.1, 1.0), "must lie in [0, 1), got "),
    ],
)
def test_ends_of_a_range(ends, inside, outside, words: str) -> None:
    for value in inside:
        check_range(Numbers(share=value), 0, 1, "share", ends=ends)
    for value in (*outside, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"^fit share must") as caught:
            check_range(Numbers(share=value), 0, 1, "share", ends=ends, of="fit")
        assert str(caught.value) == f"fit share {words}{value:g}"


def test_hints_and_large_numbers_are_said_in_full() -> None:
    with pytest.raises(ValueError, match=r"^count must lie in 0\.\.512, got 1234567; 64 is a good start$"):
        check_range(Numbers(count=1_234_567), 0, 512, "share", "count", hint="64 is a good start")


@pytest.mark.parametrize(("count", "least", "words"), [(0, 1, "be at least 1"), (-1, 0, "not be negative")])
def test_the_least(count: int, least: int, words: str) -> None:
    check_least(Numbers(count=least), least, "count")
    with pytest.raises(ValueError, match=rf"^fit count must {words}, got {count}$"):
        check_least(Numbers(count=count), least, "count", of="fit")
