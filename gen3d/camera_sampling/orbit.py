"""Sets of cameras evenly around the object, as multiview models have seen it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gen3d.camera_sampling.base import CameraSampler
from gen3d.limits import check_elevations, check_fovy

if TYPE_CHECKING:
    import torch

    from gen3d.cameras import Cameras


@dataclass(frozen=True, kw_only=True)
class Orbit(CameraSampler):
    """Each set stands on one ring, turned at random.

    elevations_deg: least and greatest elevation of a ring. fovy_deg: least and greatest vertical field of view.
    distance: least and greatest distance, in multiples of that at which the unit sphere just fits the picture.
    """

    name: Literal["orbit"] = "orbit"
    elevations_deg: tuple[float, float] = (0.0, 40.0)
    fovy_deg: tuple[float, float] = (40.0, 40.0)
    distance: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        check_elevations("cameras elevations_deg", self.elevations_deg)
        check_fovy("cameras fovy_deg", self.fovy_deg)
        check_ranges(self, "elevations_deg", "fovy_deg", "distance")
        check_distance(self.distance)

    def draw(self, num_sets: int, num_views: int, progress: float, generator: torch.Generator) -> Cameras:
        import torch

        from gen3d.cameras import fitting_distance, orbit

        drawn = torch.rand(num_sets, 4, generator=generator, device=generator.device).cpu()
        turn, *others = drawn.unbind(1)
        ranges = (self.elevations_deg, self.fovy_deg, self.distance)
        elevation, fovy, distance = (
            low + (high - low) * part for (low, high), part in zip(ranges, others, strict=True)
        )
        azimuths = 360.0 * (turn[:, None] + torch.arange(num_views) / num_views)
        repeated = (part.repeat_interleave(num_views) for part in (elevation, fovy, distance))
        elevation, fovy, distance = repeated
        return orbit(azimuths.flatten(), elevation, fovy_deg=fovy, distance=distance * fitting_distance(fovy))


def check_ranges(sampler: CameraSampler, *names: str) -> None:
    """Refuse ranges whose first value is the greater one."""
    for name in names:
        low, high = getattr(sampler, name)
        if low > high:
            raise ValueError(
                f"cameras {name} must be the least value and the greatest, got {low:g}, {high:g}"
            )


def check_distance(distance: tuple[float, float]) -> None:
    """Refuse cameras within the object, and those that see but a speck."""
    if not 0.5 <= distance[0] <= distance[1] <= 10:
        raise ValueError(
            f"cameras distance must lie in 0.5..10 of that at which the unit sphere fits, got {list(distance)}"
        )
