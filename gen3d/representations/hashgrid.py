"""A radiance field on a multiresolution hash grid (Instant-NGP, arXiv 2201.05989).

    sigma(x) = act(density_scale (f(x) + blob(x))),   c(x) = sigmoid(g(x)),   (f, g)(x) = MLP(encoding(x))

It may begin as Magic3D's blob (arXiv 2211.10440), b (1 - |x| / r), or DreamFusion's (arXiv 2209.14988),
b exp(-|x|^2 / (2 r^2)). Colour does not depend on the direction: a mesh could not show it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusion.limits import check_range
from gen3d.limits import check_unused
from gen3d.representations.neural import NeuralConfig

if TYPE_CHECKING:
    from gen3d.representations.hash_field import HashField

SOLID = 25.0  # optical density per unit length inside a field that becomes a given shape


@dataclass(frozen=True, kw_only=True)
class HashgridConfig(NeuralConfig):
    """A hash grid of density and colour.

    density_activation: from raw to optical density per unit length. density_scale: multiplies what the network and the
        blob say; larger makes sharper surfaces for the same learning rate.
    blob, blob_radius, blob_strength: what it begins with: `magic3d` falls linearly from `blob_strength` at the centre
        through zero at `blob_radius`, `dreamfusion` is a bell of that height and standard deviation.
    smoothness: weight of the mean squared difference of the field (before `density_scale`) between points half a finest
        cell apart on either side, at random places.
    """

    name: Literal["hashgrid"] = "hashgrid"
    density_activation: Literal["softplus", "exp"] = "softplus"
    density_scale: float = 10.0
    blob: Literal["magic3d", "dreamfusion"] = "magic3d"
    blob_radius: float = 0.8
    blob_strength: float = 1.0
    smoothness: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 1e-3, 1000, "density_scale", "blob_radius", "blob_strength", of="hashgrid")
        check_range(self, 0, 1000, "smoothness", of="hashgrid")

    def live(self) -> type[HashField]:
        from gen3d.representations.hash_field import HashField

        return HashField

    def check_beginning(self, why: str) -> None:
        check_unused("representation", self, ["blob", "blob_radius", "blob_strength"], why)

    def check_level(self, level: float | None) -> None:
        if level is None:
            raise ValueError(
                "extract level must be a density, for a hash grid has no surface without one, such as 10"
            )
        raw = min(self.density_scale * self.blob_strength, 700.0)
        blob = math.exp(raw) if self.density_activation == "exp" else math.log1p(math.exp(raw))
        most = min(SOLID, blob)
        if not level < most:
            raise ValueError(
                f"extract level must lie below {most:g}, the density that representation.density_scale and "
                f"blob_strength begin with, got {level:g}: what a fit begins with would be empty"
            )
