"""3D Gaussian splatting (arXiv 2308.04079): settings; nothing here needs torch before `begin`.

The numbers of an optimisation are DreamGaussian's (arXiv 2309.16653, configs/text.yaml and gs_renderer.py), where a
stage's learning rate is its opacity's, 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_least, check_range
from gen3d.limits import check_unused
from gen3d.representations.base import RepresentationConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.asset import Mesh
    from gen3d.representations.splat_cloud import SplatCloud


@dataclass(frozen=True, kw_only=True)
class GaussiansConfig(RepresentationConfig):
    """Anisotropic Gaussians, each with an opacity and a colour.

    num_points: at the beginning, evenly in a ball of `radius`, of `opacity` and as large as their distance to their
        nearest neighbours; or evenly on the mesh that it begins with.
    degree: of the spherical harmonics that make colours differ with the direction they are seen from; 0 is one colour.
    position_rate, feature_rate, opacity_rate, scale_rate, rotation_rate: learning rates, times the stage's; that of the
        positions falls to the share `position_decay` of itself over a run, by a constant factor a step.
    antialias: a splat smaller than a pixel becomes fainter rather than larger, so that pictures of any size show the
        same (Mip-Splatting); most viewers do without.
    densify_every: after so many steps, between the shares densify_from and densify_until of a run, splats whose place
        in the pictures has a gradient above `densify_above` times the mean one are doubled: one no longer than
        `split_above` by its copy, a longer one by two smaller ones drawn from it. Up to max_points; 0 is never.
    prune_opacity, prune_scale: at the same steps, splats fainter than the one or longer than the other go.
    reset_every: after so many steps opacities above twice prune_opacity fall to that; 0 is never.
    scale_weight, flat_weight: weights of the mean length of splats, and of that of their shortest axis: small splats,
        and flat ones.
    backend: `warp` for any device, `gsplat` for CUDA, from the package of that name; `auto` takes gsplat where it can.
    """

    name: Literal["gaussians"] = "gaussians"
    num_points: int = 5000
    radius: float = 0.5
    opacity: float = 0.1
    degree: int = 0
    position_rate: float = 0.02
    position_decay: float = 0.02
    feature_rate: float = 0.2
    opacity_rate: float = 1.0
    scale_rate: float = 0.1
    rotation_rate: float = 0.1
    antialias: bool = False
    densify_every: int = 50
    densify_from: float = 0.2
    densify_until: float = 0.8
    densify_above: float = 2.0
    split_above: float = 0.04
    max_points: int = 20000
    prune_opacity: float = 0.01
    prune_scale: float = 0.4
    reset_every: int = 0
    scale_weight: float = 0.0
    flat_weight: float = 0.0
    backend: Literal["auto", "warp", "gsplat"] = "auto"

    def __post_init__(self) -> None:
        if not 4 <= self.num_points <= self.max_points <= 10_000_000:
            raise ValueError(
                "gaussians num_points must be at least 4 and at most max_points, and that at most 10000000, got "
                f"{self.num_points} and {self.max_points}"
            )
        check_range(self, 0, 3, "degree", of="gaussians", hint="0 is one colour")
        check_range(self, 0.01, 2, "radius", of="gaussians")
        check_range(self, 0.005, 0.99, "opacity", of="gaussians")
        rates = ("position_rate", "feature_rate", "opacity_rate", "scale_rate", "rotation_rate")
        check_range(self, 0, 1000, *rates, "scale_weight", "flat_weight", of="gaussians")
        check_range(self, 1e-6, 1, "position_decay", of="gaussians")
        check_range(self, 0, 1e6, "densify_above", of="gaussians")
        check_range(self, 1e-4, 10, "split_above", "prune_scale", of="gaussians")
        check_range(self, 0, 0.4, "prune_opacity", of="gaussians")
        check_least(self, 0, "densify_every", "reset_every", of="gaussians")
        if not 0.0 <= self.densify_from <= self.densify_until <= 1.0:
            raise ValueError(
                "gaussians densify_from and densify_until are shares of a run, the first no greater than the second, "
                f"got {self.densify_from:g} and {self.densify_until:g}"
            )
        if self.densify_every == 0:
            unused = ["densify_from", "densify_until", "densify_above", "split_above", "prune_scale"]
            check_unused("gaussians", self, unused, "densify_every is 0")

    def begin(self, device: torch.device | str = "cpu") -> SplatCloud:
        """A ball of splats."""
        from gen3d.representations.splat_cloud import ball

        return ball(self, device)

    def begin_from(self, mesh: Mesh, device: torch.device | str = "cpu") -> SplatCloud:
        """Flat splats on the mesh's surface, with its colours."""
        from gen3d.representations.splat_cloud import on_surface

        return on_surface(mesh, self, device)

    def load(self, tensors: Mapping[str, Tensor]) -> SplatCloud:
        """The splats with these tensors, those of `SplatCloud.tensors`."""
        from gen3d.representations.splat_cloud import TENSORS, SplatCloud

        missing = [name for name in TENSORS if name not in tensors]
        if missing:
            raise ValueError(f"gaussians need the tensors {list(TENSORS)}; missing: {missing}")
        return SplatCloud({name: tensors[name] for name in TENSORS}, self)

    def check_level(self, level: float | None) -> None:
        if level is None:
            raise ValueError(
                "extract level must be a density, for gaussians have no surface without one, such as 3"
            )
        # A point's neighbours are about 0.72 cube roots of its share of the ball away; see `splat_cloud.peaks`.
        volume = 4.0 / 3.0 * math.pi * self.radius**3
        apart = 0.72 * (volume / self.num_points) ** (1.0 / 3.0)
        most = -math.log1p(-self.opacity) * 2.0 * math.pi * apart**2 * self.num_points / volume
        if not level < most:
            raise ValueError(
                f"extract level must lie below the density of the ball that a fit begins with, {most:.3g}, got "
                f"{level:g}; take a lower one, or more representation.opacity or num_points"
            )
