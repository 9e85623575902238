"""Score Jacobian chaining (arXiv 2212.00774): the denoiser's estimate against the latents, clean or noisy.

In variance-exploding coordinates the noise level is s = sigma / alpha and the noisy latents are z + s eps; the
denoiser's estimate is D = z_noisy - s eps_hat, and the gradient -(D - z_noisy) / s, which is eps_hat, or -(D - z) / s,
which is eps_hat - eps. Written so, it is finite at pure noise too, where s is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gen3d.distillation.base import Loss, Scores, check_guidance_scale

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory


@dataclass(frozen=True, kw_only=True)
class SJC(Loss):
    """guidance_scale: the standard one. variance_reduction: compare with the clean latents, which takes the drawn noise
    out (SDS with w = 1); without it, with the noisy ones, as the paper derives it."""

    name: Literal["sjc"] = "sjc"
    guidance_scale: float = 2.5
    variance_reduction: bool = True

    def __post_init__(self) -> None:
        check_guidance_scale("sjc", self.guidance_scale)

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        predicted = scores.guided_eps(self.guidance_scale)
        return predicted - noise if self.variance_reduction else predicted
