"""Bounds that the settings of several stages have in common. Each ValueError begins with the setting's name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


def check_elevations(name: str, degrees: Sequence[float]) -> None:
    """Refuse elevations beyond straight above and below."""
    _check_degrees(name, degrees, -90.0, 90.0)


def check_fovy(name: str, degrees: Sequence[float]) -> None:
    """Refuse vertical fields of view of which no useful picture can be taken."""
    _check_degrees(name, degrees, 1.0, 170.0)


def check_mask_threshold(name: str, threshold: float) -> None:
    """Refuse differences of colour, in [0, 1], by which nothing or everything would be told from its background."""
    if not 0.0 < threshold <= 0.5:
        raise ValueError(f"{name} must lie above 0 and up to 0.5, got {threshold:g}")


def check_unused(name: str, settings: Any, unused: Sequence[str], why: str) -> None:
    """Refuse values of the fields `unused` of a dataclass that differ from their defaults, for nothing looks at them;
    `why`: what makes it so."""
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if each.name in unused and value != each.default:
            raise ValueError(
                f"{name} {each.name} is {value}, which has no effect while {why}; leave it at "
                f"{each.default if each.default != '' else repr('')}, or change that"
            )


def _check_degrees(name: str, degrees: Sequence[float], low: float, high: float) -> None:
    if not all(low <= value <= high for value in degrees):
        got = ", ".join(f"{value:g}" for value in degrees)
        raise ValueError(f"{name} must lie in {low:g}..{high:g} degrees, got {got}")
