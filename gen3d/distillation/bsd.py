"""Balanced score distillation (PlacidDreamer, arXiv 2407.13976): the shortest mixture of guidance and denoising.

With the classifier's part g = classifier_scale (eps_cond - eps_uncond) and the denoiser's d, both `[B, V, C, h, w]`,
gradient alpha (a g + (1 - a) d), where a in [0, 1] makes a g + (1 - a) d shortest: <d - g, d> / |d - g|^2, for each
object by itself. That is the descent of two tasks which worsens neither; how much guidance counts is found, not set.

d is eps_uncond (denoiser=noise), or denoiser_scale (eps_uncond - eps) with the drawn noise taken out
(denoiser=residual). Scales 5, where the paper has 15, and 1.25, the paper's. Two evaluations a step. The shortest
mixture is short: where one part is small it is that part alone, and of two opposite ones hardly anything is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Loss, Scores
from gen3d.limits import check_unused

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory


@dataclass(frozen=True, kw_only=True)
class BSD(Loss):
    """classifier_scale: of the guidance. denoiser: what it is balanced with, see the module. denoiser_scale: of the
    residual."""

    name: Literal["bsd"] = "bsd"
    classifier_scale: float = 5.0
    denoiser: Literal["noise", "residual"] = "noise"
    denoiser_scale: float = 1.25

    def __post_init__(self) -> None:
        check_range(self, 0, 1000, "classifier_scale", "denoiser_scale", of="bsd")
        if self.denoiser != "residual":
            check_unused("bsd", self, ["denoiser_scale"], f"denoiser is {self.denoiser}")

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        first, *_ = scores.prior.guidance_conditions(scores.cameras)
        base = scores.eps(first)
        classifier = self.classifier_scale * (scores.guided_eps(1.0) - base)
        denoiser = base if self.denoiser == "noise" else self.denoiser_scale * (base - noise)
        return scores.alpha() * shortest_mixture(classifier, denoiser)


def shortest_mixture(first: Tensor, second: Tensor) -> Tensor:
    """a first + (1 - a) second with a in [0, 1], the shortest there is, for each item of `[B, ...]`."""
    axes = tuple(range(1, first.ndim))
    across = second - first
    length = across.square().sum(axes, keepdim=True).clamp_min(1e-20)
    share = ((across * second).sum(axes, keepdim=True) / length).clamp(0.0, 1.0)
    return share * first + (1.0 - share) * second
