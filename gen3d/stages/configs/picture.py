"""Settings of the stage that takes pictures of a representation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from diffusion.limits import check_range
from gen3d.limits import check_elevations, check_fovy
from gen3d.stages.base import Given, StageConfig

if TYPE_CHECKING:
    from gen3d.stages.picture import TakePictures


@dataclass(frozen=True, kw_only=True)
class PictureConfig(StageConfig):
    """Pictures of the representation, taken as views for the stages that come after: `fit`, `refine` and `texture`.

    num_views, elevations_deg: evenly around, on one ring an elevation; num_views 0 leaves the stage out. fovy_deg:
    vertical field of view. size: pixels along an edge. domains: what is taken beside colour and opacity, for `fit`.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"representation"})
    reads: ClassVar[frozenset[str]] = frozenset({"representation"})
    makes: ClassVar[frozenset[str]] = frozenset({"views"})

    name: Literal["picture"] = "picture"
    num_views: int = 8
    elevations_deg: tuple[float, ...] = (-15.0, 15.0, 45.0)
    fovy_deg: float = 40.0
    size: int = 128
    domains: tuple[Literal["depth", "normals"], ...] = ()

    def __post_init__(self) -> None:
        check_range(self, 0, 1000, "num_views", of="picture")
        if not self.elevations_deg:
            raise ValueError("picture elevations_deg needs at least one entry")
        check_elevations("picture elevations_deg", self.elevations_deg)
        check_fovy("picture fovy_deg", [self.fovy_deg])
        check_range(self, 16, 4096, "size", of="picture")

    @property
    def left_out(self) -> bool:
        return self.num_views == 0

    def build(self, given: Given) -> TakePictures:
        from gen3d.stages.picture import TakePictures

        return TakePictures(self, given)
