"""HiFA (arXiv 2305.18766): SDS in latents, and the same distance again between pictures.

With x0_hat `[B, V, C, h, w]` the clean latents under guidance, gradient w(t) (eps_hat - eps), which is
w(t) alpha / sigma (z - x0_hat), and for the pictures `[B, V, 3, H, W]` themselves
image_weight w(t) alpha / sigma (images - decode(x0_hat)).

Its timesteps fall by the root of the steps (`annealing.mode=hifa`), and its z-variance is a weight of the distill
stage (`z_variance`). Default scale 2.5 here; threestudio's 100 is 101 of the standard convention. Two evaluations a
step and one pass of the decoder, which costs more than the denoiser where latents are large. Pictures that the decoder
draws badly are learnt as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.weighting import Weighting, weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory


@dataclass(frozen=True, kw_only=True)
class HiFA(Loss):
    """guidance_scale: the standard one (threestudio's plus 1). weighting: w(t), see `weighting.weight`. image_weight:
    of the pictures beside the latents; 0 leaves them out, and the loss is SDS."""

    name: Literal["hifa"] = "hifa"
    guidance_scale: float = 2.5
    weighting: Weighting = "sds"
    image_weight: float = 0.1

    def __post_init__(self) -> None:
        check_guidance_scale("hifa", self.guidance_scale)
        check_range(self, 0, 1e6, "image_weight", of="hifa")

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        w = weight(scores.alpha(), scores.sigma(), self.weighting)
        return w * (scores.guided_eps(self.guidance_scale) - noise)

    def image_gradient(self, scores: Scores, images: Tensor, latents: Tensor) -> Tensor | None:
        if self.image_weight == 0.0:
            return None
        alpha, sigma = scores.alpha(), scores.sigma()
        w = self.image_weight * weight(alpha, sigma, self.weighting) * alpha / sigma
        return w * (images - scores.prior.decode(scores.guided_x0(self.guidance_scale)))
