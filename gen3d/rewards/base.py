"""The joint between losses and what judges pictures: how well they show what a prompt asks for.

Nothing here imports torch before it is used. Legend: B objects, V views of each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from gen3d.priors.base import ScoringPrior


@dataclass(frozen=True, kw_only=True)
class Reward(ABC):
    """Settings of a reward, and the reward; the base of all that `reward=` can choose, one file each."""

    def check(self, prior: ScoringPrior) -> None:  # noqa: B027
        """Refuse, with a ValueError, a prior that lacks what is needed to judge its pictures; before any work."""

    @abstractmethod
    def score(self, images: Tensor, prior: ScoringPrior) -> Tensor:
        """`[B]`, higher for better: pictures `[B, V, 3, H, W]` in [0, 1], of what `prior` is asked for."""
