"""Settings of `experiments.tasks.benchmark_speed`."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion.limits import check_least, check_range
from experiments.benchmark.config import check_asset_settings
from experiments.run.backbones import BackboneConfig, check_prompt
from experiments.run.settings import Settings, Text

PARTS = ("rasteriser", "hashgrid", "gaussians", "distillation", "quickstart")


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """What takes how long, beside what others need for the same.

    only: parts to measure, of rasteriser, hashgrid, gaussians, distillation and quickstart; none is all.
    turns, turn_seconds: how often two sides take turns, and how long each is repeated in one. limit_seconds: after so
        many there are no more turns, beyond the second; on a CPU of its own time.
    raster_sizes: pixels of the pictures. raster_subdivisions: of the shape, which has 20 x 4^subdivisions faces.
    ray_size, num_samples: rays along an edge and samples a ray of a training step. num_splats, splat_size: of a
        picture of Gaussians.
    method: the experiment whose steps are taken, with `asset_budget` and `method_settings`. losses: some of
        `distillation`; none is all. step_turns: as turns, of a few steps each. taken_apart: the loss whose step is
        shown part by part.
    prompt: of the steps and of the quickstart.
    """

    only: tuple[str, ...] = ()
    turns: int = 5
    turn_seconds: float = 0.2
    limit_seconds: float = 60.0
    raster_sizes: tuple[int, ...] = (512, 128)
    raster_subdivisions: int = 5
    ray_size: int = 64
    num_samples: int = 64
    num_splats: int = 10_000
    splat_size: int = 256
    method: str = "baseline/mvdream"
    method_settings: tuple[Text, ...] = ()
    asset_budget: str = "cpu"
    losses: tuple[str, ...] = ()
    step_turns: int = 3
    taken_apart: str = "sds"
    prompt: Text = "a green mug"
    backbone: BackboneConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [part for part in self.only if part not in PARTS]
        if unknown:
            raise ValueError(f"only names {unknown[0]!r}; there are {', '.join(PARTS)}")
        check_least(self, 1, "turns", "step_turns", "ray_size", "num_samples")
        check_range(self, 0, 3600, "turn_seconds", "limit_seconds")
        check_range(self, 0, 8, "raster_subdivisions")
        check_range(self, 8, 4096, "splat_size")
        check_range(self, 4, 10_000_000, "num_splats")
        if not self.raster_sizes or any(not 8 <= size <= 4096 for size in self.raster_sizes):
            raise ValueError(f"raster_sizes must lie in 8..4096, got {list(self.raster_sizes)}")
        check_asset_settings("method_settings", self.method_settings, "distillation", "negative_prompt")
        check_prompt(self.prompt)

    def measures(self, part: str) -> bool:
        """Whether a part is measured."""
        return not self.only or part in self.only
