"""Delta denoising score (arXiv 2304.07090): gradient w(t) (eps_hat(z_t; prompt) - eps_hat(z'_t; source words)).

z' are the pictures that the distillation began with, from the same cameras, with the same noise: what SDS does wrong to
pictures that were right already is subtracted. It changes a thing by words: begin with a mesh or an earlier stage, and
describe that with the prior's `source_prompt`. Four network evaluations a step, in two passes.

Bad at making a thing from nothing: begun with a blob it asks what the prompt has and the source words have not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.weighting import Weighting, weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.distillation.base import Memory


@dataclass(frozen=True, kw_only=True)
class DDS(Loss):
    """guidance_scale: the standard one, of both. weighting: w(t), see `weighting.weight`."""

    name: Literal["dds"] = "dds"
    guidance_scale: float = 10.0
    weighting: Weighting = "uniform"

    def __post_init__(self) -> None:
        check_guidance_scale("dds", self.guidance_scale)

    def wants(self) -> frozenset[str]:
        return frozenset({"source", "source_latents"})

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        assert scores.source is not None, "the stage gives what `wants` names"
        prior, t = scores.prior, scores.timestep
        together = ["source" if name == "cond" else name for name in scores.together]
        began = scores.at(prior.schedule.add_noise(scores.source, noise, t), t, together)
        s = self.guidance_scale
        w = weight(scores.alpha(), scores.sigma(), self.weighting)
        return w * (scores.guided_eps(s) - began.guided_eps(s, toward="source"))
