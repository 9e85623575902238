"""Settings of the data sets of the procedural world; nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from diffusion.limits import check_least, check_range
from gen3d.limits import check_elevations, check_fovy


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetConfig:
    """What pictures to make.

    shares: relative frequency of things, pairs, heads and, where there is a fourth number, close-ups of faces.
    held_out: pictures of captions training never sees.
    fovy_deg, elevation_deg: ranges drawn from, degrees; one draw a group. A close-up's views have elevations of their
        own, from -15..25.
    mixed_elevations: share of the other groups of which each view has an elevation of its own.
    domains: whether every picture comes with one of depth and one of normals, see `gen3d.domain_pictures`.
    num_guests: further pictures a scene, each from anywhere in `elevation_deg`, and half of them in another light
        before another background.
    """

    num_scenes: int = 6_000
    scenes_per_shard: int = 50
    num_views: int = 4
    size: int = 128
    seed: int = 0
    held_out: bool = False
    shares: tuple[float, ...] = (0.44, 0.31, 0.25)
    fovy_deg: tuple[float, float] = (40.0, 40.0)
    elevation_deg: tuple[float, float] = (-10.0, 45.0)
    mixed_elevations: float = 0.0
    domains: bool = False
    num_guests: int = 0

    def __post_init__(self) -> None:
        check_least(self, 1, "num_scenes", "scenes_per_shard", "num_views", "size")
        check_least(self, 0, "num_guests")
        check_range(self, 0, 1, "mixed_elevations")
        check_elevations("elevation_deg", self.elevation_deg)
        check_fovy("fovy_deg", self.fovy_deg)
        for name in ("fovy_deg", "elevation_deg"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must rise, got {low:g} ... {high:g}")
        if len(self.shares) not in (3, 4) or not min(self.shares) >= 0 or not 0 < sum(self.shares) < math.inf:
            raise ValueError(
                "shares must be three or four numbers >= 0 (things, pairs, heads, close-ups), not all zero, "
                f"got {', '.join(f'{share:g}' for share in self.shares) or 'none'}"
            )

    @property
    def num_shards(self) -> int:
        return -(-self.num_scenes // self.scenes_per_shard)

    @property
    def num_bytes(self) -> int:
        """Room the set needs, all but captions and cameras: a picture is three bytes a pixel, its mask one, and its
        depth and normals four."""
        pictures = self.num_views * (8 if self.domains else 4) + self.num_guests * 4
        return self.num_scenes * self.size**2 * pictures

    def settings(self) -> dict[str, object]:
        """What tells this set from others; nothing that is left out, so that sets from before it could be asked for
        are still known."""
        optional = ("mixed_elevations", "domains", "num_guests")
        return {name: value for name, value in asdict(self).items() if name not in optional or value}


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Probabilities and ranges. peak_db: level of the loudest sample, below full scale. noise_db: speech above
    noise.
    reverb_seconds: time in which the echo falls by 60 dB."""

    peak_db: tuple[float, float] = (-24.0, -0.5)
    noise: float = 0.6
    noise_db: tuple[float, float] = (8.0, 45.0)
    reverb: float = 0.4
    reverb_seconds: tuple[float, float] = (0.1, 0.7)
    telephone: float = 0.12
    equalizer: float = 0.6

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "noise", "reverb", "telephone", "equalizer")
        for name, least, most in (
            ("peak_db", -80.0, 0.0), ("noise_db", -20.0, 100.0), ("reverb_seconds", 0.02, 10.0)
        ):  # fmt: skip
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(f"{name} must rise within {least:g} ... {most:g}, got {low:g} ... {high:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TalkingConfig:
    """What clips to make.

    size: pixels, a multiple of 8. fps: frames a second. held_out: people, voices and sentences training never meets.
    speech: 'espeak' says sentences and needs the extra 'world'; 'formants' babbles and needs nothing; the share
    `wordless` of an espeak set babbles too (voices without words are in no held-out list).
    framing: by what share the camera's zoom varies from clip to clip, as crops about a face that was found do.
    still: share of heads that hold nearly still. pause: share of utterances with a longer silence at either end.
    """

    num_clips: int = 2_000
    clips_per_shard: int = 20
    num_frames: int = 24
    size: int = 128
    fps: int = 25
    seed: int = 0
    held_out: bool = False
    speech: Literal["espeak", "formants"] = "espeak"
    wordless: float = 0.1
    still: float = 0.4
    pause: float = 0.2
    framing: float = 0.08
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        check_least(self, 1, "num_clips", "clips_per_shard", "num_frames", "size", "fps")
        if self.size % 8:
            raise ValueError(f"size must be a multiple of 8 pixels, got {self.size}")
        if self.speech not in ("espeak", "formants"):
            raise ValueError(f"speech must be 'espeak' or 'formants', got {self.speech!r}")
        check_range(self, 0, 1, "wordless", "still", "pause", "framing")

    @property
    def num_shards(self) -> int:
        """Files the set fills."""
        return -(-self.num_clips // self.clips_per_shard)
