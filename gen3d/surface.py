"""Settings of the surface of a representation; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SurfaceConfig:
    """The surface of a representation as a mesh.

    resolution: of the grid that is meshed.
    level: optical density per unit length at the surface; what is denser is inside. A fitted density rises within a
        voxel or two, and thin haze outside stays below about 5.
    max_gap: pieces so near each other (world units) are joined, where no view sees through between them; 0 joins none.
    min_fraction, min_extent: pieces below these shares of the largest one's volume and of its bounding box's diagonal
        go: floaters are small both ways, a sword beside a house is only thin.
    target_faces: after decimation. smooth: Taubin iterations.
    """

    resolution: int = 96
    level: float = 10.0
    max_gap: float = 0.35
    min_fraction: float = 0.03
    min_extent: float = 0.4
    target_faces: int = 12000
    smooth: int = 4

    def __post_init__(self) -> None:
        if not 8 <= self.resolution <= 512:
            raise ValueError(f"extract resolution must lie in 8..512, got {self.resolution}")
        if not self.level > 0:
            raise ValueError(f"extract level is an optical density above 0, got {self.level}")
        for name in ("min_fraction", "min_extent"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"extract {name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.max_gap <= 4:
            raise ValueError(f"extract max_gap must lie in 0..4, got {self.max_gap:g}")
        if self.target_faces < 4 or not 0 <= self.smooth <= 100:
            raise ValueError(
                f"extract target_faces must be at least 4 and smooth in 0..100, got {self.target_faces}, {self.smooth}"
            )
