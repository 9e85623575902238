"""Settings of the scores; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass


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
        for name in ("resolution", "mesh_resolution"):
            if not 8 <= getattr(self, name) <= 512:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in 8 ... 512")
        if self.num_points < 100:
            raise ValueError(f"num_points is {self.num_points}; it must be at least 100")
        if self.threshold <= 0.0:
            raise ValueError(f"threshold is {self.threshold}; it must be above 0")
