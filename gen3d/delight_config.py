"""Settings of taking the light out of colours; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion.limits import check_least, check_range
from gen3d.limits import check_unused


@dataclass(frozen=True, kw_only=True)
class DelightConfig:
    """strength: share of the fitted light that is taken out; 0 leaves colours as they are. num_pairs: of samples
    compared. usual: strength of the light that is expected; 0 for pictures of even light. chroma: angle between two
    colours, in radians, at which a pair counts for a third. robustness: the difference in log luminance that a pair
    may have beyond the light's before it counts for a quarter; the fit begins with seven times as much. ridge: pull
    of the coefficients to the expected light. floor: least shading corrected for, and so the bound: a colour becomes
    at most 1 / floor times as bright.
    """

    strength: float = 1.0
    num_pairs: int = 50_000
    usual: float = 1.0
    chroma: float = 0.2
    robustness: float = 0.2
    ridge: float = 5e-4
    floor: float = 0.25

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "strength", of="delight")
        check_least(self, 1, "num_pairs", of="delight")
        check_range(self, 0, 10, "usual", of="delight")
        check_range(self, 1e-9, 1000, "chroma", "robustness", "ridge", of="delight")
        check_range(self, 1e-3, 1, "floor", of="delight")
        if self.strength == 0.0:
            rest = ["num_pairs", "usual", "chroma", "robustness", "ridge", "floor"]
            check_unused("delight", self, rest, "strength is 0")
