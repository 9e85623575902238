"""Settings that fields of an encoding and a small network share; nothing here needs torch."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from diffusion.limits import check_range
from gen3d.representations.base import RepresentationConfig
from gen3d.schedules import Points, check_points, value_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.asset import Mesh
    from gen3d.representations.hash_encoding import Level
    from gen3d.representations.neural_field import NeuralField


@dataclass(frozen=True, kw_only=True)
class NeuralConfig(RepresentationConfig):
    """A field whose values at a point come from a multiresolution hash encoding (Instant-NGP, arXiv 2201.05989) through
    a small network.

    num_levels, features: of the encoding; each level has so many features. log2_hashmap_size: a level has at most two
        to this power rows of features, which corners share beyond that. base_resolution, finest_resolution: cells along
        an edge of the first level and of the last, and between them by a constant factor.
    active_levels: share of the levels that learn, coarse ones first: a number or points [[share of the steps, share
        of the levels], ...]. What has not learnt yet says next to nothing.
    hidden_width, hidden_layers: of the network.
    table_rate, network_rate: learning rates of the tables and of the network, relative to the stage's.
    table_decay: weight of the mean squared feature, level by level (Zip-NeRF's): against what nothing asks for, most of
        all in the fine levels.
    num_samples: along a ray, in training; whole pictures take one a cell of the finest level, from as many as these up
        to four times as many.
    occupancy_resolution, occupancy_decay: cells along an edge of the grid that tells what is empty, and what is left of
        a cell's density when it is looked at again and found less.
    """

    is_field: ClassVar[bool] = True

    num_levels: int = 8
    features: int = 2
    log2_hashmap_size: int = 15
    base_resolution: int = 8
    finest_resolution: int = 48
    active_levels: Points = 1.0
    hidden_width: int = 32
    hidden_layers: int = 1
    table_rate: float = 0.1
    network_rate: float = 0.02
    table_decay: float = 0.0
    num_samples: int = 64
    occupancy_resolution: int = 48
    occupancy_decay: float = 0.9

    def __post_init__(self) -> None:
        kind = getattr(self, "name", "field")
        check_range(self, 1, 32, "num_levels", of=kind)
        check_range(self, 4, 24, "log2_hashmap_size", of=kind)
        check_range(self, 1, 512, "base_resolution", of=kind)
        check_range(self, 1, 8192, "finest_resolution", of=kind)
        check_range(self, 1, 1024, "hidden_width", of=kind)
        check_range(self, 1, 8, "hidden_layers", of=kind)
        check_range(self, 1, 4096, "num_samples", of=kind)
        check_range(self, 4, 256, "occupancy_resolution", of=kind)
        check_range(self, 0, 1, "occupancy_decay", ends="[)", of=kind)
        check_range(self, 0, 100, "table_rate", "network_rate", of=kind)
        check_range(self, 0, 1000, "table_decay", of=kind)
        if self.features not in (1, 2, 4, 8):
            raise ValueError(f"{kind} features must be 1, 2, 4 or 8, got {self.features}")
        if self.finest_resolution < self.base_resolution:
            raise ValueError(
                f"{kind} finest_resolution must be at least base_resolution, {self.base_resolution}, got "
                f"{self.finest_resolution}"
            )
        check_points(f"{kind} active_levels", self.active_levels, 0.0, 1.0)

    @abstractmethod
    def live(self) -> type[NeuralField]:
        """The class of the field that has these settings."""

    def begin(self, device: torch.device | str = "cpu") -> NeuralField:
        """The blob or ball that these settings describe; its network begins the same every time."""
        from gen3d.representations.neural_field import begun

        return begun(self, device)

    def begin_from(self, mesh: Mesh, device: torch.device | str = "cpu") -> NeuralField:
        """The mesh's solid with the colours of its surface, learnt from points in and around it."""
        from gen3d.representations.voxelize import solid_of_mesh

        field = self.begin(device)
        field.become(*solid_of_mesh(mesh, self.fit_resolution))
        return field

    def load(self, tensors: Mapping[str, Tensor]) -> NeuralField:
        """The field with these tensors. ValueError for those of other settings."""
        return self.live()(tensors, self)

    def num_active(self, progress: float) -> int:
        """How many levels learn when the share `progress` of the steps is done; one at least."""
        share = value_at(self.active_levels, progress)
        return max(1, math.ceil(share * len(self.levels()) - 1e-6))

    def levels(self) -> list[Level]:
        """Of the encoding."""
        from gen3d.representations.hash_encoding import geometric, levels

        resolutions = geometric(self.num_levels, self.base_resolution, self.finest_resolution)
        return levels(resolutions, 1 << self.log2_hashmap_size)

    @property
    def fit_resolution(self) -> int:
        """Of the grid on which a solid is given that the field becomes."""
        return min(max(self.finest_resolution + 1, 48), 129)
