"""A loss in a file of its own, which loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tests.experiments.made_up.losses.base import Loss


@dataclass(frozen=True, kw_only=True)
class Alone(Loss):
    name: Literal["alone"] = "alone"
    slope: float = 3.0

    def __call__(self, x: float) -> float:
        return float(self.slope * torch.tensor(x).abs())
