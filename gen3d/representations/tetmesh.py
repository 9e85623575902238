"""Settings of `tetmesh`: the surface of signed distances on tetrahedra (DMTet, arXiv 2111.04276)."""

from __future__ import annotations

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
    from gen3d.representations.tet_surface import TetSurface

# Below a quarter of a cell no tetrahedron can turn inside out: opposite edges of one are half a cell apart.
MAX_OFFSET = 0.24


@dataclass(frozen=True, kw_only=True)
class TetMesh(RepresentationConfig):
    """A closed surface between grid vertices inside and outside, with a colour at each grid vertex.

    resolution: cubic cells along an edge, of twelve tetrahedra each; the inner resolution - 2 fill [-1, 1].
    ball_radius: of what it begins as, in world units.
    max_offset: how far a grid vertex may move from its place, in cells; 0 leaves the grid rigid.
    smoothing: how many times distances and offsets are averaged with their neighbours before they are used: a gradient
        that reaches one vertex then moves those around it too, and noise makes no spikes.
    band: signed distances, in cells, before that, are kept within -band..band: no place takes longer to reach.
    sdf_rate, offset_rate, color_rate: learning rates relative to the stage's, of distances (in cells), of raw offsets
        and of raw colours.
    sign_consistency, normal_consistency, laplacian: weights of nvdiffrec's cross entropy of distances on edges that
        the surface cuts, of 1 - cos between neighbouring faces, and of vertices away from the middle of their
        neighbours, in cells.
    """

    # It has a grid and a surface of its own.
    unused_of_surface: ClassVar[frozenset[str]] = frozenset({"resolution", "max_gap"})

    name: Literal["tetmesh"] = "tetmesh"
    resolution: int = 32
    ball_radius: float = 0.8
    max_offset: float = 0.2
    smoothing: int = 8
    band: float = 1.0
    sdf_rate: float = 1.0
    offset_rate: float = 1.0
    color_rate: float = 1.0
    sign_consistency: float = 0.0
    normal_consistency: float = 0.003
    laplacian: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, 8, 256, "resolution", of="tetmesh", hint="32 cells are a good start")
        check_range(self, 0.1, 1, "ball_radius", of="tetmesh")
        check_range(
            self, 0, MAX_OFFSET, "max_offset", of="tetmesh", hint="farther, and tetrahedra turn inside out"
        )
        check_range(self, 0, 16, "smoothing", of="tetmesh")
        check_range(self, 0.5, 1000, "band", of="tetmesh")
        check_range(self, 0, 100, "sdf_rate", "offset_rate", "color_rate", of="tetmesh")
        weights = ("sign_consistency", "normal_consistency", "laplacian")
        check_range(self, 0, 1000, *weights, of="tetmesh", hint="it is a weight")
        if not self.max_offset:
            check_unused("tetmesh", self, ["offset_rate"], "max_offset is 0")

    def check_level(self, level: float | None) -> None:
        if level is not None:
            raise ValueError(
                f"extract level is {level:g}, which has no effect: a tetmesh is a surface already; set it to null"
            )

    def check_beginning(self, why: str) -> None:
        """Refuse settings of its own beginning, which never is; `why`: what it begins with."""
        check_unused("tetmesh", self, ["ball_radius"], why)

    def begin(self, device: torch.device | str = "cpu") -> TetSurface:
        """A grey ball."""
        from gen3d.representations.tet_surface import ball

        return ball(self, device)

    def begin_from(self, mesh: Mesh, device: torch.device | str = "cpu") -> TetSurface:
        """The surface of a closed mesh, as finely as the grid shows it, with its colours."""
        from gen3d.representations.tet_surface import surface_of_mesh

        return surface_of_mesh(mesh, self, device)

    def load(self, tensors: Mapping[str, Tensor]) -> TetSurface:
        """The surface with these tensors: `sdf`, `offsets` and `colors`."""
        from gen3d.representations.tet_surface import TetSurface

        missing = [name for name in ("sdf", "offsets", "colors") if name not in tensors]
        if missing:
            raise ValueError(f"a tetmesh needs the tensors sdf, offsets and colors; missing: {missing}")
        return TetSurface(self, tensors["sdf"], tensors["offsets"], tensors["colors"])
