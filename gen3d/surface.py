"""Settings of the surface of a representation; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion.limits import check_least, check_range


@dataclass(frozen=True, kw_only=True)
class SurfaceConfig:
    """The surface of a representation as a mesh.

    resolution: of the grid that is meshed.
    level: optical density per unit length at the surface; what is denser is inside. A fitted density rises within a
        voxel or two, and thin haze outside stays below about 5. None for a representation that knows its surface
        without, such as a signed distance.
    max_gap: pieces so near each other (world units) are joined, where no view sees through between them; 0 joins none.
    min_fraction, min_extent: pieces below these shares of the largest one's volume and of its bounding box's diagonal
        go: floaters are small both ways, a sword beside a house is only thin.
    target_faces: after decimation. smooth: Taubin iterations.
    """

    resolution: int = 96
    level: float | None = 10.0
    max_gap: float = 0.35
    min_fraction: float = 0.03
    min_extent: float = 0.4
    target_faces: int = 12000
    smooth: int = 4

    def __post_init__(self) -> None:
        check_range(self, 8, 512, "resolution", of="extract")
        if self.level is not None and not self.level > 0:
            raise ValueError(f"extract level is an optical density above 0, got {self.level}")
        check_range(self, 0, 1, "min_fraction", "min_extent", ends="[)", of="extract")
        check_range(self, 0, 4, "max_gap", of="extract")
        check_least(self, 4, "target_faces", of="extract")
        check_range(self, 0, 100, "smooth", of="extract")
