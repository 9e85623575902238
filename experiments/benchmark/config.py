"""Settings of the scores; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusion.limits import check_least, check_range


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """resolution: edge of the occupancy grid over [-1, 1]^3. num_points: surface samples of each mesh.

    mesh_resolution: samples a side of the world's own mesh (the oracle).
    threshold: distance within which the F-score counts a point as met, in world units (the scene fits the unit sphere).
    """

    resolution: int = 128
    mesh_resolution: int = 128
    num_points: int = 50_000
    threshold: float = 0.02

    def __post_init__(self) -> None:
        check_range(self, 8, 512, "resolution", "mesh_resolution")
        check_least(self, 100, "num_points")
        if self.threshold <= 0.0:
            raise ValueError(f"threshold is {self.threshold}; it must be above 0")


# What a benchmark sets itself for the assets that it makes.
_OWN_KEYS = ("experiment", "prompt", "out", "overwrite", "seed", "device", "threads", "budget", "backbone")


def check_asset_settings(name: str, settings: Sequence[str], *own: str) -> None:
    """Refuse settings of assets that are not KEY=VALUE, or whose key the benchmark sets itself; own: further such."""
    keys = (*_OWN_KEYS, *own)
    for setting in settings:
        if "=" not in setting or setting.partition("=")[0].lstrip("+~") in keys:
            raise ValueError(
                f"{name} holds {setting!r}; it must hold KEY=VALUE, where KEY is not {', '.join(keys)}"
            )
