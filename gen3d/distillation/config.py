"""Settings of score distillation; nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Weighting = Literal["sds", "uniform", "fantasia3d"]


@dataclass(frozen=True, kw_only=True)
class AnnealingConfig:
    """Range of timesteps over a run, in fractions (0 clean, 1 noise).

    mode ``linear``: uniform in [min, max], both moving linearly from ``*_start`` to ``*_end`` over the first
    ``fraction`` of the steps. mode ``hifa``: the single value max - (max - min) sqrt(step / steps) (arXiv 2305.18766).
    """

    mode: Literal["linear", "hifa"] = "linear"
    min_start: float = 0.98
    min_end: float = 0.02
    max_start: float = 0.98
    max_end: float = 0.5
    fraction: float = 0.8

    def __post_init__(self) -> None:
        if self.mode not in ("linear", "hifa"):
            raise ValueError(f"annealing mode must be linear or hifa, got {self.mode!r}")
        for name in ("min_start", "min_end", "max_start", "max_end"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"annealing {name} is a fraction in 0..1, got {getattr(self, name)}")
        if self.min_start > self.max_start or self.min_end > self.max_end:
            raise ValueError(
                f"annealing min must not exceed max: start {self.min_start}..{self.max_start}, "
                f"end {self.min_end}..{self.max_end}"
            )
        if not 0.0 < self.fraction <= 1.0:
            raise ValueError(f"annealing fraction must lie above 0 and up to 1, got {self.fraction}")

    def range(self, step: int, num_steps: int) -> tuple[float, float]:
        """Least and greatest fraction at ``step`` (from 0) of ``num_steps``."""
        if self.mode == "hifa":
            value = self.max_start - (self.max_start - self.min_end) * math.sqrt(step / max(1, num_steps))
            return value, value
        part = min(1.0, step / max(1.0, self.fraction * num_steps))
        low = self.min_start + (self.min_end - self.min_start) * part
        high = self.max_start + (self.max_end - self.max_start) * part
        return low, high
