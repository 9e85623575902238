"""Single cameras anywhere within ranges, with jitter (DreamFusion, arXiv 2209.14988, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.camera_sampling.base import CameraSampler
from gen3d.camera_sampling.orbit import check_distance, check_ranges
from gen3d.limits import check_elevations, check_fovy

if TYPE_CHECKING:
    import torch

    from gen3d.cameras import Cameras


@dataclass(frozen=True, kw_only=True)
class Ranges(CameraSampler):
    """Views of one step share the circle: each has its own part of the azimuths.

    elevations_deg, fovy_deg, distance: as of `orbit`; half of the elevations are uniform in degrees, half on the
        sphere.
    position_jitter: greatest shift of a camera along each axis; center_jitter, up_jitter: standard deviations of the
        point looked at and of the direction that is up. World units, as the unit sphere's radius.
    progressive: over this share of the steps the ranges of angles open from the front (azimuth 0, elevation 15) to
        their whole width.
    """

    name: Literal["ranges"] = "ranges"
    elevations_deg: tuple[float, float] = (-10.0, 90.0)
    fovy_deg: tuple[float, float] = (40.0, 70.0)
    distance: tuple[float, float] = (0.8, 1.0)
    position_jitter: float = 0.1
    center_jitter: float = 0.2
    up_jitter: float = 0.02
    progressive: float = 0.0

    def __post_init__(self) -> None:
        check_elevations("cameras elevations_deg", self.elevations_deg)
        check_fovy("cameras fovy_deg", self.fovy_deg)
        check_ranges(self, "elevations_deg", "fovy_deg", "distance")
        check_distance(self.distance)
        check_range(self, 0, 0.5, "position_jitter", "center_jitter", "up_jitter", of="cameras")
        check_range(self, 0, 1, "progressive", of="cameras")

    def draw(self, num_sets: int, num_views: int, progress: float, generator: torch.Generator) -> Cameras:
        import math

        import torch

        from gen3d.cameras import Cameras, fitting_distance, look_at, orbit

        count = num_sets * num_views
        device = generator.device
        uniform = torch.rand(count, 8, generator=generator, device=device).cpu()
        normal = torch.randn(count, 6, generator=generator, device=device).cpu()
        width = min(1.0, progress / self.progressive) if self.progressive else 1.0
        low, high = (15.0 + (edge - 15.0) * width for edge in self.elevations_deg)
        azimuth = width * 360.0 * ((torch.arange(count) + uniform[:, 0]) / count - 0.5)
        in_degrees = low + (high - low) * uniform[:, 1]
        heights = [math.sin(math.radians(edge)) for edge in (low, high)]
        on_sphere = torch.rad2deg(torch.asin(heights[0] + (heights[1] - heights[0]) * uniform[:, 1]))
        elevation = torch.where(uniform[:, 2] < 0.5, in_degrees, on_sphere)
        fovy = self.fovy_deg[0] + (self.fovy_deg[1] - self.fovy_deg[0]) * uniform[:, 3]
        distance = self.distance[0] + (self.distance[1] - self.distance[0]) * uniform[:, 4]
        cameras = orbit(azimuth, elevation, fovy_deg=fovy, distance=distance * fitting_distance(fovy))
        positions = cameras.positions + self.position_jitter * (2.0 * uniform[:, 5:8] - 1.0)
        up = torch.tensor([0.0, 1.0, 0.0]) + self.up_jitter * normal[:, 3:]
        return Cameras(
            c2w=look_at(positions, self.center_jitter * normal[:, :3], up=up), fovy_deg=cameras.fovy_deg
        )
