"""A signed distance and colour, learnt by an encoding and a small network, with a density along rays.

    f(x) = |x| - sphere_radius + h(x),   c(x) = sigmoid(g(x)),   (h, g)(x) = MLP(encoding(x))

f is negative inside, and the surface is where it is 0. Its density, with a sharpness s that is learnt:

    neus (arXiv 2106.10689)     sigma = s sigmoid(-s f)
    volsdf (arXiv 2106.12052)   sigma = s Psi(-f),  Psi the cumulative Laplace distribution of scale 1 / s

The first is NeuS's opaque density of a ray that meets the surface head on: a field has one density at a point, whatever
ray asks for it. Eikonal: mean (|grad f| - 1)^2, which makes f a distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.limits import check_unused
from gen3d.representations.neural import NeuralConfig

if TYPE_CHECKING:
    from gen3d.representations.hash_encoding import Level
    from gen3d.representations.sdf_field import SdfField


@dataclass(frozen=True, kw_only=True)
class SdfConfig(NeuralConfig):
    """A signed distance with colours.

    density: how the distance becomes optical density per unit length. encoding: `hashgrid`, or `grid`: one grid of
        finest_resolution cells along an edge, with `features` at every corner.
    sphere_radius: of the ball that it begins as. sharpness, sharpness_rate: what s begins with, and the learning rate
        of log(s) / 10, relative to the stage's; at 0 it stays. Half of s is the density on the surface.
    eikonal: weight of the gradient's length being 1. curvature: weight of the mean squared sum of second derivatives,
        times the size of a finest cell (Neuralangelo, arXiv 2306.03092): smooth surfaces.
    """

    name: Literal["sdf"] = "sdf"
    density: Literal["neus", "volsdf"] = "neus"
    encoding: Literal["hashgrid", "grid"] = "hashgrid"
    sphere_radius: float = 0.8
    sharpness: float = 40.0
    sharpness_rate: float = 0.02
    eikonal: float = 0.1
    curvature: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0.01, 1, "sphere_radius", of="sdf")
        check_range(self, 1, 1e4, "sharpness", of="sdf")
        check_range(self, 0, 100, "sharpness_rate", of="sdf")
        check_range(self, 0, 1000, "eikonal", "curvature", of="sdf")
        if self.encoding == "grid":
            unused = ["num_levels", "log2_hashmap_size", "base_resolution", "active_levels"]
            check_unused("sdf", self, unused, "encoding is grid")
            if self.finest_resolution > 256:
                raise ValueError(
                    f"sdf finest_resolution must lie in 1..256 with encoding=grid, got {self.finest_resolution}"
                )

    def levels(self) -> list[Level]:
        if self.encoding == "hashgrid":
            return super().levels()
        from gen3d.representations.hash_encoding import Level

        return [Level(resolution=self.finest_resolution, rows=(self.finest_resolution + 1) ** 3)]

    def live(self) -> type[SdfField]:
        from gen3d.representations.sdf_field import SdfField

        return SdfField

    def check_beginning(self, why: str) -> None:
        check_unused("representation", self, ["sphere_radius"], why)

    def check_level(self, level: float | None) -> None:
        if level is not None:
            raise ValueError(
                f"extract level is {level:g}, which has no effect on a signed distance, for its surface is where the "
                "distance is 0; set it to null"
            )
