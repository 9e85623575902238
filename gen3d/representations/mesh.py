"""Settings of `mesh`: a triangle mesh whose faces stay, with a texture or with colours at its vertices."""

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
    from gen3d.representations.mesh_surface import MeshSurface


@dataclass(frozen=True, kw_only=True)
class FixedMesh(RepresentationConfig):
    """A mesh whose vertices may move and whose colours are learned; how it hangs together stays.

    subdivisions, ball_radius: of the icosphere as which it begins where no mesh is given; 20 * 4^subdivisions faces.
    geometry: `frozen` leaves every vertex as it is, to the last bit.
    colors: `texture` of texture_size texels along an edge (a given mesh keeps its own texture and UVs), or `vertices`.
    material: `diffuse` shows the colours as they are; `pbr` lights them by the environment and learns how metallic and
        rough the surface is, one value each.
    environment: light that is `uniform`, or a `sky` with more of it from above.
    smoothing: how many times the vertices' moves are averaged with their neighbours': a gradient that reaches one
        vertex moves those around it too, and noise makes no spikes.
    vertex_rate, color_rate, material_rate: learning rates relative to the stage's, of moves in world units, of raw
        colours, and of metallic and roughness.
    normal_consistency, laplacian: weights of 1 - cos between neighbouring faces, and of vertices away from the middle
        of their neighbours, in mean edges.
    """

    name: Literal["mesh"] = "mesh"
    subdivisions: int = 4
    ball_radius: float = 0.8
    geometry: Literal["free", "frozen"] = "free"
    colors: Literal["texture", "vertices"] = "texture"
    texture_size: int = 256
    material: Literal["diffuse", "pbr"] = "diffuse"
    environment: Literal["uniform", "sky"] = "sky"
    smoothing: int = 8
    vertex_rate: float = 0.3
    color_rate: float = 1.0
    material_rate: float = 0.1
    normal_consistency: float = 0.02
    laplacian: float = 0.01

    # A mesh is what it is: no grid is looked at, and nothing is taken away.
    unused_of_surface: ClassVar[frozenset[str]] = frozenset(
        {"resolution", "max_gap", "min_fraction", "min_extent", "target_faces", "smooth"}
    )

    def __post_init__(self) -> None:
        check_range(self, 0, 7, "subdivisions", of="mesh")
        check_range(self, 0.1, 1, "ball_radius", of="mesh")
        check_range(self, 16, 8192, "texture_size", of="mesh")
        check_range(self, 0, 256, "smoothing", of="mesh")
        check_range(self, 0, 100, "vertex_rate", "color_rate", "material_rate", of="mesh")
        check_range(self, 0, 1000, "normal_consistency", "laplacian", of="mesh", hint="it is a weight")
        if self.geometry == "frozen":
            moving = ["smoothing", "vertex_rate", "normal_consistency", "laplacian"]
            check_unused("mesh", self, moving, "geometry is frozen")
        if self.colors == "vertices":
            check_unused("mesh", self, ["texture_size"], "colors are at the vertices")
        if self.material == "diffuse":
            check_unused("mesh", self, ["environment", "material_rate"], "material is diffuse")

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Of all that the state holds of it."""
        return (
            *("base", "moves", "faces", "weld", "edges", "colors", "shine"),
            *(("uvs",) if self.colors == "texture" else ()),
        )

    def check_reworked(self, *, vertices: bool) -> None:
        if self.colors == "texture":
            raise ValueError(
                "a mesh with a texture is finished already, and this would take the texture's place; leave the stage "
                "out, or set representation.colors to vertices"
            )
        if vertices and self.geometry == "frozen":
            raise ValueError("the mesh is frozen, and this would move its vertices; set vertex_rate to 0")

    def check_level(self, level: float | None) -> None:
        if level is not None:
            raise ValueError(
                f"extract level is {level:g}, which has no effect: a mesh is a surface already; set it to null"
            )

    def check_beginning(self, why: str) -> None:
        """Refuse settings of its own beginning, which never is; `why`: what it begins with."""
        check_unused("mesh", self, ["ball_radius", "subdivisions"], why)

    def begin(self, device: torch.device | str = "cpu") -> MeshSurface:
        """A grey ball."""
        from gen3d.representations.mesh_surface import ball

        return ball(self, device)

    def begin_from(self, mesh: Mesh, device: torch.device | str = "cpu") -> MeshSurface:
        """The mesh itself, with its colours; with its texture and UVs where it has them."""
        from gen3d.representations.mesh_surface import surface_of_mesh

        return surface_of_mesh(mesh, self, device)

    def load(self, tensors: Mapping[str, Tensor]) -> MeshSurface:
        """The mesh with these tensors."""
        from gen3d.representations.mesh_surface import MeshSurface

        missing = [name for name in self.tensor_names if name not in tensors]
        if missing:
            raise ValueError(
                f"a mesh with colors={self.colors} needs the tensors {', '.join(self.tensor_names)}; missing: {missing}"
            )
        return MeshSurface(self, tensors)
