"""The linear form: gradient w(t) (a eps_cond + b eps_negative + c eps_uncond + d eps), its coefficients free.

Most losses that need one look at the noisy latents are choices of the four coefficients (after Classifier Score
Distillation, arXiv 2310.19415), and `linear` is the function behind them:

    SDS        s, 0, 1 - s, -1      (with a negative prompt: s, 1 - s, 0, -1)
    CSD        1, b, c, 0           with b + c = -1, shifted from c to b
    NFSD       s, -1 or 0, 1 - s, 0

A sum of coefficients that is not 0 leaves noise in the gradient, in the mean or in each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gen3d.distillation.base import Loss, Scores
from gen3d.distillation.weighting import Weighting, weight
from gen3d.schedules import Points, check_points, value_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.cameras import Cameras
    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior

NOISE = "noise"
"""Among the names of coefficients: the noise that was drawn."""


def linear(scores: Scores, noise: Tensor, coefficients: Mapping[str, float | Tensor]) -> Tensor:
    """The sum of noises times `coefficients`, in the shape of the latents.

    A name is a condition of the prior, for what it predicts, or "noise", for the drawn `noise`. What has the number 0
    is not predicted. Under Perp-Neg, "cond" has the perpendicular part of the negatives in it.
    """
    total = noise.new_zeros(noise.shape)
    for name, coefficient in coefficients.items():
        if isinstance(coefficient, float) and coefficient == 0.0:
            continue
        total = total + coefficient * (noise if name == NOISE else _predicted(scores, name))
    return total


def _predicted(scores: Scores, name: str) -> Tensor:
    return scores.guided_eps(1.0) if name == "cond" else scores.eps(name)


def asked(prior: ScoringPrior, cameras: Cameras, names: Iterable[str]) -> tuple[str, ...]:
    """What a prior must predict for `linear` of the conditions `names`, once each."""
    names = list(names)
    guided = prior.guidance_conditions(cameras)
    perpendicular = guided if "cond" in names and len(guided) > 2 else ()
    return tuple(dict.fromkeys((*perpendicular, *names)))


def is_zero(points: Points) -> bool:
    """Whether a coefficient is 0 all along."""
    return points == 0 if isinstance(points, (int, float)) else all(value == 0 for _, value in points)


def unit(gradient: Tensor) -> Tensor:
    """Each item of `gradient [B, ...]` divided by its root mean square; 0 stays 0."""
    rms = gradient.square().mean(dim=tuple(range(1, gradient.ndim)), keepdim=True).sqrt()
    return gradient / rms.clamp_min(1e-12)


@dataclass(frozen=True, kw_only=True)
class Linear(Loss):
    """cond, negative, uncond, noise: the coefficients a, b, c and d, numbers or points
    [[share of the steps, coefficient], ...]; the defaults are SDS at scale 5. What is 0 all along is not predicted.
    weighting: w(t), see `weighting.weight`. normalize: each object's gradient is divided by its root mean square.
    """

    name: Literal["linear"] = "linear"
    cond: Points = 5.0
    negative: Points = 0.0
    uncond: Points = -4.0
    noise: Points = -1.0
    weighting: Weighting = "sds"
    normalize: bool = False

    def __post_init__(self) -> None:
        for name, points in self._coefficients().items():
            check_points(f"linear {name}", points, -1000.0, 1000.0)
        if all(is_zero(points) for name, points in self._coefficients().items() if name != NOISE):
            raise ValueError(
                "linear has no prediction in it: give cond, negative or uncond another value than 0"
            )

    def _coefficients(self) -> dict[str, Points]:
        return {name: getattr(self, name) for name in ("uncond", "negative", "cond", NOISE)}

    def wants(self) -> frozenset[str]:
        return frozenset() if is_zero(self.negative) else frozenset({"negative"})

    def heeds(self) -> frozenset[str]:
        return self.wants()

    def conditions(self, prior: ScoringPrior, cameras: Cameras) -> tuple[str, ...]:
        used = [name for name, points in self._coefficients().items() if not is_zero(points)]
        return asked(prior, cameras, [name for name in used if name != NOISE])

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        now = {name: value_at(points, scores.progress) for name, points in self._coefficients().items()}
        gradient = weight(scores.alpha(), scores.sigma(), self.weighting) * linear(scores, noise, now)
        return unit(gradient) if self.normalize else gradient
