"""Two losses whose settings stand together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from experiments.run.settings import FilePath, Text
from tests.experiments.made_up.losses.base import Loss


@dataclass(frozen=True, kw_only=True)
class Square(Loss):
    name: Literal["square"] = "square"
    scale: float = 1.0
    weighting: Literal["flat", "steep"] = "flat"
    note: Text = ""

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale is {self.scale}; it must be above 0")

    def __call__(self, x: float) -> float:
        return self.scale * x * x


@dataclass(frozen=True, kw_only=True)
class Table(Loss):
    name: Literal["table"] = "table"
    scale: float = 2.0
    points: tuple[float, float] = (0.0, 1.0)
    files: tuple[FilePath, ...] = ()

    def __call__(self, x: float) -> float:
        return self.scale * self.points[x > 0]
