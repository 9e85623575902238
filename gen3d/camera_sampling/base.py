"""The joint for camera sampling; nothing here imports torch before it is used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from gen3d.cameras import Cameras


@dataclass(frozen=True, kw_only=True)
class CameraSampler(ABC):
    """Draws the cameras of a step; the base of all that `cameras=` can choose."""

    @abstractmethod
    def draw(self, num_sets: int, num_views: int, progress: float, generator: torch.Generator) -> Cameras:
        """`num_sets * num_views` cameras, set by set, when the share `progress` (0 to 1) of the steps is done. The
        views of a set are what a multiview model sees together."""
