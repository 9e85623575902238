"""Which noise levels to distil from, as the optimisation goes on. Timesteps as fractions of the schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from gen3d.limits import check_unused
from gen3d.schedules import Points, check_points, value_at


@dataclass(frozen=True, kw_only=True)
class AnnealingConfig:
    """Range of timesteps over a run, in fractions (0 clean, 1 noise).

    low, high: numbers, or points [[share of the steps, fraction], ...] between which they are linear.
    mode: `uniform` draws uniformly in low..high; `hifa` is the single value high - (high - low) sqrt(share of the
        steps), from high's first value to low's last (arXiv 2305.18766).
    """

    mode: Literal["uniform", "hifa"] = "uniform"
    low: Points = ((0.0, 0.98), (0.8, 0.02))
    high: Points = ((0.0, 0.98), (0.8, 0.5))

    def __post_init__(self) -> None:
        check_points("annealing low", self.low, 0.0, 1.0)
        check_points("annealing high", self.high, 0.0, 1.0)
        if self.mode == "hifa":
            points = [one.name for one in fields(self) if _has_points(getattr(self, one.name))]
            check_unused("annealing", self, points, "mode is hifa, which goes from one number to another")
        shares = {0.0, 1.0}
        for points in (self.low, self.high):
            if isinstance(points, tuple):
                shares |= {share for share, _ in points}
        for share in sorted(shares):
            if value_at(self.low, share) > value_at(self.high, share) + 1e-9:
                raise ValueError(
                    f"annealing low must not exceed high, but after {share:g} of the steps it is "
                    f"{value_at(self.low, share):g} above {value_at(self.high, share):g}"
                )

    def range(self, progress: float) -> tuple[float, float]:
        """Least and greatest fraction when the share `progress` of the steps is done."""
        if self.mode == "hifa":
            high, low = value_at(self.high, 0.0), value_at(self.low, 1.0)
            value = high - (high - low) * math.sqrt(progress)
            return value, value
        return value_at(self.low, progress), value_at(self.high, progress)


def _has_points(points: Points | str) -> bool:
    return isinstance(points, tuple) and len(points) > 1
