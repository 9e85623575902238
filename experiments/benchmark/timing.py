"""How long pieces of work take, side by side, so that a busy machine disturbs all of them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# What prepares one go of a piece of work, untimed, and returns the go itself, which is timed.
Work = Callable[[], Callable[[], object]]
_MOST_GOES = 1000
_FEWEST = 2  # turns, whatever the time they take


@dataclass(frozen=True, kw_only=True)
class Timing:
    """seconds: of one go, a mean of each turn."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    def over(self, other: Timing) -> dict[str, float]:
        """How many times as long as `other`: median, least and greatest of what the turns, one by one, say."""
        ratios = [mine / its for mine, its in zip(self.seconds, other.seconds, strict=True)]
        return {"median": median(ratios), "least": min(ratios), "greatest": max(ratios)}

    def shared(self, count: int) -> Timing:
        """Of one of the `count` equal parts that a go has."""
        return Timing(seconds=tuple(each / count for each in self.seconds))


def plain(go: Callable[[], object]) -> Work:
    """Work that nothing has to be prepared for."""
    return lambda: go


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds on that device: of this process's threads on a CPU, which others on the machine hardly change; passed
    time, when all that was asked for is done, on a GPU."""
    if device.type == "cpu":
        return time.process_time

    def now() -> float:
        import torch

        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def side_by_side(
    works: Mapping[str, Work],
    now: Callable[[], float],
    *,
    turns: int,
    turn_seconds: float = 0.0,
    limit_seconds: float = math.inf,
) -> dict[str, Timing]:
    """Times of `works`, which take turns: the first, the second, ..., and again.

    Each has a go that does not count (kernels are compiled, memory is found) before the first turn. In a turn, one has
    as many goes as fill `turn_seconds`, at least one. After `limit_seconds` there are no more turns, beyond the second.
    """
    began = now()
    goes = {}
    for name, work in works.items():
        _once(work, now)
        took = _once(work, now) if turn_seconds else math.inf
        goes[name] = min(max(1, math.ceil(turn_seconds / max(took, 1e-9))), _MOST_GOES)
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns):
        if turn >= _FEWEST and now() - began > limit_seconds:
            break
        for name, work in works.items():
            taken[name].append(sum(_once(work, now) for _ in range(goes[name])) / goes[name])
    return {name: Timing(seconds=tuple(each)) for name, each in taken.items()}


def _once(work: Work, now: Callable[[], float]) -> float:
    go = work()
    began = now()
    go()
    return now() - began
