"""How a representation is fitted to views."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FittingConfig:
    """How a field is fitted to views.

    num_rays: a step. mask, distortion: weights beside the mean squared colour error: of opacity against the
        silhouettes, and against fog (the light of a ray comes from one place).
    learning_rate: falls to learning_rate * learning_rate_decay over a fit (all rounds together), by a constant factor
        a step.
    refresh_every: after so many steps what is empty is found anew.
    """

    num_rays: int = 1024
    learning_rate: float = 0.1
    learning_rate_decay: float = 0.1
    mask: float = 1.0
    distortion: float = 0.1
    refresh_every: int = 16

    def __post_init__(self) -> None:
        for name in ("num_rays", "refresh_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"fit {name} must be at least 1, got {getattr(self, name)}")
        for name in ("mask", "distortion"):
            if not 0 <= getattr(self, name) <= 1000:
                raise ValueError(
                    f"fit {name} is a weight and must lie in 0..1000, got {getattr(self, name):g}"
                )
        if not 0 < self.learning_rate <= 10:
            raise ValueError(f"fit learning_rate must lie above 0 and up to 10, got {self.learning_rate:g}")
        if not 0 < self.learning_rate_decay <= 1:
            raise ValueError(
                f"fit learning_rate_decay must lie above 0 and up to 1, got {self.learning_rate_decay}"
            )
