"""SDS as a bridge between what pictures are and what they should be (arXiv 2406.09417).

The "source" words describe what is wrong with pictures that are distilled: the prompt with the prior's `source_suffix`,
or its `source_prompt`. At first they stand in for no words,

    w(t) (eps_source + s (eps_cond - eps_source) - eps),

and after the share `switch` of the steps the gradient is w(t) s2 (eps_cond - eps_source): from the source to the
prompt. Two network evaluations a step; a prompt does what VSD trains a LoRA for.

Bad at what the source words do not name; in the second phase, as CSD, at stopping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.distillation.base import Loss, Scores, check_guidance_scale
from gen3d.distillation.linear import NOISE, asked, linear
from gen3d.distillation.weighting import Weighting, weight
from gen3d.limits import check_unused

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.cameras import Cameras
    from gen3d.distillation.base import Memory
    from gen3d.priors.base import ScoringPrior


@dataclass(frozen=True, kw_only=True)
class SDSBridge(Loss):
    """guidance_scale: s, the standard one, of the first phase. bridge_scale: s2, of the second. switch: share of the
    steps at which that begins; 1 for never. weighting: w(t), see `weighting.weight`."""

    name: Literal["sds_bridge"] = "sds_bridge"
    guidance_scale: float = 2.5
    bridge_scale: float = 20.0
    switch: float = 0.8
    weighting: Weighting = "uniform"

    def __post_init__(self) -> None:
        check_guidance_scale("sds_bridge", self.guidance_scale)
        check_range(self, 0, 1000, "bridge_scale", of="sds_bridge", ends="(]")
        check_range(self, 0, 1, "switch", of="sds_bridge")
        if self.switch == 0.0:
            check_unused("sds_bridge", self, ["guidance_scale"], "switch is 0, so that there is one phase")
        if self.switch == 1.0:
            check_unused("sds_bridge", self, ["bridge_scale"], "switch is 1, so that there is one phase")

    def wants(self) -> frozenset[str]:
        return frozenset({"source"})

    def heeds(self) -> frozenset[str]:
        return self.wants()

    def conditions(self, prior: ScoringPrior, cameras: Cameras) -> tuple[str, ...]:
        return asked(prior, cameras, ["source", "cond"])

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        s, s2 = self.guidance_scale, self.bridge_scale
        first = {"source": 1.0 - s, "cond": s, NOISE: -1.0}
        second = {"source": -s2, "cond": s2}
        w = weight(scores.alpha(), scores.sigma(), self.weighting)
        return w * linear(scores, noise, first if scores.progress < self.switch else second)
