"""CLIP (arXiv 2103.00020): the mean over the views of the cosine similarity of picture and prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal

from gen3d.rewards.base import Reward

if TYPE_CHECKING:
    from torch import Tensor

    from diffusion.backbone import Backbone
    from gen3d.priors.base import ScoringPrior
    from gen3d.priors.text import TextPrior


@dataclass(frozen=True, kw_only=True)
class Clip(Reward):
    """folder: of a backbone in diffusers layout whose CLIP judges; "" for that of the prior's own backbone, as tiny has
    one."""

    name: Literal["clip"] = "clip"
    folder: Annotated[str, "folder"] = ""

    def check(self, prior: ScoringPrior) -> None:
        import torch

        judge, prompt = self._judge(prior), self._asked(prior).prompt
        size = judge.image_size
        judge.image_text_similarity(torch.zeros(1, 3, size, size, device=judge.device), [prompt])

    def score(self, images: Tensor, prior: ScoringPrior) -> Tensor:
        judge, prompt = self._judge(prior), self._asked(prior).prompt
        similar = judge.image_text_similarity(images.flatten(0, 1).to(judge.device), [prompt])
        return similar.view(images.shape[:2]).mean(dim=1).to(images.device)

    def _judge(self, prior: ScoringPrior) -> Backbone:
        own = self._asked(prior).backbone
        return _loaded(self.folder, str(own.device)) if self.folder else own

    @staticmethod
    def _asked(prior: ScoringPrior) -> TextPrior:
        from gen3d.priors.text import TextPrior

        if not isinstance(prior, TextPrior):
            raise ValueError(
                f"reward 'clip' compares with a prompt, which a {type(prior).__name__} does not have; choose prior=text"
            )
        return prior


@cache
def _loaded(folder: str, device: str) -> Backbone:
    from diffusion.backbone import load

    return load(folder, device=device)
