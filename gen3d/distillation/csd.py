"""Classifier score distillation (arXiv 2310.19415): gradient w(t) (eps_cond + b eps_negative + c eps_uncond).

It is the guidance of SDS without its denoising: with c = -1 alone, (SDS at scale s - SDS at scale 1) / (s - 1). In the
course of a run the weight goes from no words to the negative prompt. A choice of the linear form
(`gen3d.distillation.linear`). Three network evaluations a step, two where b or c is 0 all along.

Bad at stopping: it never asks whether the pictures are likely, so that colours go on saturating; the less so the
nearer the negative prompt is to what goes wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gen3d.distillation.base import Loss, Scores
from gen3d.distillation.linear import asked, is_zero, linear, unit
from gen3d.distillation.weighting import Weighting, weight
from gen3d.schedules import Points, check_points, value_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.cameras import Cameras
    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior


@dataclass(frozen=True, kw_only=True)
class CSD(Loss):
    """negative, uncond: b and c, numbers or points [[share of the steps, coefficient], ...], none above 0; the
    defaults are those of the first stage. weighting: w(t), see `weighting.weight`. normalize: each object's gradient
    is divided by its root mean square, so that all steps are of one size.
    """

    name: Literal["csd"] = "csd"
    negative: Points = ((0.0, 0.0), (0.5, -1.0))
    uncond: Points = ((0.0, -1.0), (0.5, 0.0))
    weighting: Weighting = "uniform"
    normalize: bool = True

    def __post_init__(self) -> None:
        for name in ("negative", "uncond"):
            check_points(f"csd {name}", getattr(self, name), -100.0, 0.0)
        if is_zero(self.negative) and is_zero(self.uncond):
            raise ValueError(
                "csd negative and uncond are both 0; what the prompt is held against is one of them"
            )

    def wants(self) -> frozenset[str]:
        return frozenset() if is_zero(self.negative) else frozenset({"negative"})

    def heeds(self) -> frozenset[str]:
        return self.wants()

    def conditions(self, prior: ScoringPrior, cameras: Cameras) -> tuple[str, ...]:
        others = [name for name in ("uncond", "negative") if not is_zero(getattr(self, name))]
        return asked(prior, cameras, [*others, "cond"])

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        now = {name: value_at(getattr(self, name), scores.progress) for name in ("uncond", "negative")}
        gradient = linear(scores, noise, {"cond": 1.0, **now})
        gradient = weight(scores.alpha(), scores.sigma(), self.weighting) * gradient
        return unit(gradient) if self.normalize else gradient
