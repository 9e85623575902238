"""Nerfstudio's field and proposal networks (arXiv 2302.04264), by their own torch code; the package is an extra.

    sigma(x) = exp(f(x) + blob(x)),   c(x) = sigmoid(g(x)),   (f, g)(x) = NerfactoField(x)
    blob(x)  = blob_strength (1 - |x| / blob_radius)

Samples lie where proposal networks, which are cheap and learn from the field alone, say that something is
(mip-NeRF 360, arXiv 2111.12077). Colour does not depend on the direction: a mesh could not show it.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from diffusion.limits import check_range
from gen3d.limits import check_unused
from gen3d.representations.base import RepresentationConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.asset import Mesh
    from gen3d.representations.nerfstudio_field import NerfstudioField

SOLID = 100.0  # optical density per unit length inside a field that becomes a given shape


@dataclass(frozen=True, kw_only=True)
class NerfstudioConfig(RepresentationConfig):
    """Nerfstudio's `NerfactoField` on the cube, without contraction, appearance or direction.

    num_levels, features, log2_hashmap_size, base_resolution, finest_resolution: of its hash grid. hidden_width,
        color_width: of its two networks.
    proposal_samples: samples along a ray that each proposal network looks at, one network for each number; num_samples:
        those that the field is then asked for.
    proposal_resolutions: cells along an edge of the finest level of each proposal network's hash grid, which has
        proposal_levels of up to 2 to the power proposal_log2_hashmap_size rows.
    interlevel: weight of the loss by which the proposal networks learn to cover what the field shows.
    blob_radius, blob_strength: the blob it begins with is one unit dense at that radius, and e to that strength at the
        centre.
    table_rate, network_rate: learning rates of the tables and of the networks, relative to the stage's.
    """

    is_field: ClassVar[bool] = True

    name: Literal["nerfstudio"] = "nerfstudio"
    num_levels: int = 8
    features: int = 2
    log2_hashmap_size: int = 15
    base_resolution: int = 8
    finest_resolution: int = 64
    hidden_width: int = 32
    color_width: int = 32
    proposal_samples: tuple[int, ...] = (48,)
    num_samples: int = 24
    proposal_resolutions: tuple[int, ...] = (64,)
    proposal_levels: int = 4
    proposal_log2_hashmap_size: int = 13
    interlevel: float = 1.0
    blob_radius: float = 0.6
    blob_strength: float = 4.0
    table_rate: float = 0.4
    network_rate: float = 0.1

    def __post_init__(self) -> None:
        kind = "nerfstudio"
        check_range(self, 1, 32, "num_levels", "proposal_levels", of=kind)
        check_range(self, 1, 8, "features", of=kind)
        check_range(self, 4, 24, "log2_hashmap_size", "proposal_log2_hashmap_size", of=kind)
        check_range(self, 1, 8192, "base_resolution", "finest_resolution", of=kind)
        check_range(self, 1, 1024, "hidden_width", "color_width", of=kind)
        check_range(self, 1, 4096, "num_samples", of=kind)
        check_range(self, 0, 1000, "interlevel", of=kind)
        check_range(self, 1e-3, 1000, "blob_radius", of=kind)
        check_range(self, 1e-3, 10, "blob_strength", of=kind)
        check_range(self, 0, 100, "table_rate", "network_rate", of=kind)
        if self.finest_resolution < self.base_resolution:
            raise ValueError(
                f"nerfstudio finest_resolution must be at least base_resolution, {self.base_resolution}, got "
                f"{self.finest_resolution}"
            )
        for name, most in (("proposal_samples", 4096), ("proposal_resolutions", 8192)):
            values = getattr(self, name)
            if not 1 <= len(values) <= 4 or not all(1 <= each <= most for each in values):
                raise ValueError(
                    f"nerfstudio {name} must be one to four numbers in 1..{most}, got {list(values)}"
                )
        if len(self.proposal_samples) != len(self.proposal_resolutions):
            raise ValueError(
                "nerfstudio proposal_samples and proposal_resolutions must have a number for each proposal network, "
                f"got {list(self.proposal_samples)} and {list(self.proposal_resolutions)}"
            )
        if importlib.util.find_spec("nerfstudio") is None:
            raise ValueError(
                'representation nerfstudio needs the package nerfstudio; pip install "galatea[nerfstudio]"'
            )

    @property
    def fit_resolution(self) -> int:
        """Of the grid on which a solid is given that the field becomes."""
        return min(max(self.finest_resolution + 1, 48), 129)

    def begin(self, device: torch.device | str = "cpu") -> NerfstudioField:
        """The blob that these settings describe; its networks begin the same every time."""
        from gen3d.representations.nerfstudio_field import NerfstudioField

        return NerfstudioField.fresh(self, device)

    def begin_from(self, mesh: Mesh, device: torch.device | str = "cpu") -> NerfstudioField:
        """The mesh's solid with the colours of its surface, learnt from points in and around it."""
        from gen3d.representations.voxelize import solid_of_mesh

        field = self.begin(device)
        field.become(*solid_of_mesh(mesh, self.fit_resolution))
        return field

    def load(self, tensors: Mapping[str, Tensor]) -> NerfstudioField:
        """The field with these tensors. ValueError for those of other settings."""
        from gen3d.representations.nerfstudio_field import NerfstudioField

        return NerfstudioField(tensors, self)

    def check_beginning(self, why: str) -> None:
        check_unused("representation", self, ["blob_radius", "blob_strength"], why)

    def check_level(self, level: float | None) -> None:
        if level is None:
            raise ValueError(
                "extract level must be a density, for a nerfstudio field has no surface without one, such as 3"
            )
        most = min(SOLID, math.exp(self.blob_strength))
        if not level < most:
            raise ValueError(
                f"extract level must lie below {most:g}, the density that representation.blob_strength begins with, "
                f"got {level:g}: what a fit begins with would be empty"
            )
