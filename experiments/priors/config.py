"""Settings of the priors of the procedural world; nothing here needs torch before `build`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from gen3d.priors.base import PriorConfig, Request
from gen3d.priors.config import check_background

if TYPE_CHECKING:
    from experiments.priors.truth import TruthPrior


@dataclass(frozen=True, kw_only=True)
class TruthConfig(PriorConfig):
    """The world's own pictures of the prompt, which must be one of its captions.

    background: behind the scene; "auto" chooses as the text prior does.
    """

    name: Literal["truth"] = "truth"
    background: Annotated[str, "text"] = "auto"

    @property
    def predicts(self) -> bool:
        return False

    @property
    def is_model(self) -> bool:
        return False

    def check_words(self, prompt: str, negative_prompt: str) -> None:
        check_background(self.background, prompt)
        if negative_prompt:
            raise ValueError("prior truth shows its captions as they are; leave negative_prompt out")

    def build(self, request: Request) -> TruthPrior:
        from experiments.priors.truth import TruthPrior

        return TruthPrior(self, request)
