"""Colours of one thing: what the caption named, and natural colours for everything it did not name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from experiments.world.sdf import Part

RGB = tuple[float, float, float]  # sRGB, each in [0, 1]

WHITE: RGB = (0.95, 0.95, 0.94)
CREAM: RGB = (0.96, 0.91, 0.80)
DARK: RGB = (0.13, 0.13, 0.15)
TYRE: RGB = (0.16, 0.16, 0.18)
STEEL: RGB = (0.70, 0.73, 0.77)
GOLD: RGB = (0.87, 0.69, 0.26)
WOOD: RGB = (0.71, 0.49, 0.29)
BARK: RGB = (0.44, 0.29, 0.17)
GLASS: RGB = (0.68, 0.85, 0.94)
LEAF: RGB = (0.25, 0.60, 0.25)
TERRACOTTA: RGB = (0.76, 0.42, 0.27)
GLOW: RGB = (1.00, 0.92, 0.62)

Proportions = np.random.Generator | None


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Named colours of one thing, sRGB in [0, 1].

    main: colour of the dominant part, or None for the thing's natural colour.
    parts: colours of parts the caption names, such as {"stem": (r, g, b)}.
    """

    main: RGB | None = None
    parts: Mapping[str, RGB] = field(default_factory=dict)

    def body(self, natural: RGB) -> RGB:
        """Colour of the dominant part."""
        return natural if self.main is None else self.main

    def part(self, name: str, natural: RGB) -> RGB:
        """Colour of a secondary part: the caption's, else `natural`."""
        return self.parts.get(name, natural)


Builder = Callable[[Palette, Proportions], list[Part]]


def mix(a: RGB, b: RGB, amount: float) -> RGB:
    """Blend from a (amount 0) to b (amount 1)."""
    return (
        a[0] + (b[0] - a[0]) * amount,
        a[1] + (b[1] - a[1]) * amount,
        a[2] + (b[2] - a[2]) * amount,
    )


def distance(a: RGB, b: RGB) -> float:
    """Largest difference over the three channels."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def contrasting(wanted: RGB, against: RGB, otherwise: RGB) -> RGB:
    """`wanted`, or `otherwise` where `wanted` could not be told from its surroundings."""
    return wanted if distance(wanted, against) > 0.22 else otherwise


def vary(rng: Proportions, value: float, spread: float = 0.18) -> float:
    """`value`, or with a generator `value` scaled by a uniform factor in [1 - spread, 1 + spread]."""
    return value if rng is None else value * float(rng.uniform(1.0 - spread, 1.0 + spread))


def tapered_box(half_x: float, half_y: float, half_z: float, inset: float, rounding: float = 0.0) -> Part:
    """Box of these half sizes at its bottom, its top smaller by `inset` on every side."""
    r = rounding
    return Part((half_x - r, half_z - r, 0.0, -1.0, half_y - r, inset, r))
