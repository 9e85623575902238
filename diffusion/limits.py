"""Bounds of settings: what every dataclass of settings checks of its numbers, in the same words."""

from __future__ import annotations

from typing import Any, Literal


def check_range(
    settings: Any,
    low: float,
    high: float,
    *names: str,
    of: str = "",
    ends: Literal["[]", "(]", "[)"] = "[]",
    hint: str = "",
) -> None:
    """Refuse values of the fields `names` of a dataclass that do not lie in low..high, and NaN, which lies nowhere.

    of: the settings' own name, which the ValueError begins with. ends: a round bracket leaves that end out. hint: what
        to add to the message, such as what 1 means.
    """
    bounds = {
        "[]": f"in {low:g}..{high:g}",
        "(]": f"above {low:g} and up to {high:g}",
        "[)": f"in [{low:g}, {high:g})",
    }[ends]
    for name in names:
        value = getattr(settings, name)
        if (
            not low <= value <= high
            or (value == low and ends[0] == "(")
            or (value == high and ends[1] == ")")
        ):
            raise ValueError(
                f"{_named(of, name)} must lie {bounds}, got {_said(value)}{hint and '; ' + hint}"
            )


def check_least(settings: Any, least: float, *names: str, of: str = "") -> None:
    """Refuse values of the fields `names` of a dataclass that are below `least`. `of`: as in check_range."""
    allowed = f"be at least {least:g}" if least else "not be negative"
    for name in names:
        value = getattr(settings, name)
        if not value >= least:
            raise ValueError(f"{_named(of, name)} must {allowed}, got {_said(value)}")


def _named(of: str, name: str) -> str:
    return f"{of} {name}" if of else name


def _said(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
