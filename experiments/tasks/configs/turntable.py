"""Settings of the pictures and the video of a finished mesh."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion.limits import check_least
from gen3d.limits import check_elevations
from video.config import EncodeConfig


@dataclass(frozen=True, kw_only=True)
class TurntableConfig:
    """num_frames: frames of one full turn. size: edge of each of the two pictures in a frame, even.

    preview_size: edge of preview.png, in pixels. elevation_deg: how high the camera stands.
    """

    num_frames: int = 48
    size: int = 256
    preview_size: int = 512
    elevation_deg: float = 15.0
    video: EncodeConfig = field(default_factory=EncodeConfig)

    def __post_init__(self) -> None:
        check_least(self, 1, "num_frames", "size", "preview_size")
        check_elevations("elevation_deg", [self.elevation_deg])
        if self.size % 2:
            raise ValueError(f"size is {self.size}; H.264 needs an even number, such as {self.size + 1}")
