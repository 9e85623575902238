"""How a representation is fitted to views."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion.limits import check_least, check_range


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
        check_least(self, 1, "num_rays", "refresh_every", of="fit")
        check_range(self, 0, 1000, "mask", "distortion", of="fit")
        check_range(self, 0, 10, "learning_rate", ends="(]", of="fit")
        check_range(self, 0, 1, "learning_rate_decay", ends="(]", of="fit")
