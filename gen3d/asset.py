"""What a method returns: a triangle mesh with a material.

World: right-handed, +Y up, the object faces +Z and fits the unit sphere (glTF's own axes).
Shapes: N vertices, M faces, H x W texels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffusion.limits import check_range

# Share of the unit sphere's radius that is the body's where something sticks out; the rest is for what does.
_BODY = 0.95
# What reaches farther than this, in multiples of the sphere that the body needs, sticks out.
_STICKS_OUT = 1.1


def _check_tensor(name: str, value: Tensor, shape: tuple[int | None, ...], floating: bool = True) -> None:
    wanted = "[" + ", ".join("*" if size is None else str(size) for size in shape) + "]"
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch tensor of shape {wanted}, got {type(value).__name__}")
    matches = value.ndim == len(shape) and all(
        w in (None, s) for w, s in zip(shape, value.shape, strict=False)
    )
    if not matches:
        raise ValueError(f"{name} must have shape {wanted}, got {list(value.shape)}")
    if floating and value.dtype != torch.float32:
        raise ValueError(f"{name} must be float32, got {value.dtype}. Convert it with .float()")
    if floating and not bool(torch.isfinite(value.detach()).all()):
        raise ValueError(f"{name} holds NaN or Inf; every value must be finite")


@dataclass(frozen=True, eq=False)
class Material:
    """A metallic-roughness material.

    base_color_texture: [H, W, 3] float32 sRGB in [0, 1], row 0 at v = 0 (the top), or None.
    base_color: sRGB in [0, 1]; the surface's colour where there is neither a texture nor vertex colours.
    metallic, roughness: in [0, 1].
    """

    base_color_texture: Tensor | None = None
    base_color: tuple[float, float, float] = (0.8, 0.8, 0.8)
    metallic: float = 0.0
    roughness: float = 0.9

    def __post_init__(self) -> None:
        if self.base_color_texture is not None:
            _check_tensor("base_color_texture", self.base_color_texture, (None, None, 3))
            if 0 in self.base_color_texture.shape:
                raise ValueError(
                    f"base_color_texture must not be empty, got {list(self.base_color_texture.shape)}"
                )
        if len(self.base_color) != 3 or not all(0.0 <= value <= 1.0 for value in self.base_color):
            raise ValueError(f"base_color must be three sRGB values in [0, 1], got {self.base_color}")
        check_range(self, 0, 1, "metallic", "roughness")


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh; faces wind counter-clockwise seen from outside.

    vertices: [N, 3] float32. faces: [M, 3] int64 indices into the vertices.
    normals: [N, 3] float32 unit vectors, or None.
    uvs: [N, 2] float32, glTF convention (origin at the top left of the texture, v down), or None.
    vertex_colors: [N, 3] float32 sRGB in [0, 1], or None.

    A colour is looked up in this order: texture (with uvs), vertex colours, material.base_color.
    A textured mesh repeats a vertex on both sides of a UV seam, so whether it is closed is judged after
    `meshing.merge_positions`.
    """

    vertices: Tensor
    faces: Tensor
    normals: Tensor | None = None
    uvs: Tensor | None = None
    vertex_colors: Tensor | None = None
    material: Material = field(default_factory=Material)

    def __post_init__(self) -> None:
        _check_tensor("vertices", self.vertices, (None, 3))
        _check_tensor("faces", self.faces, (None, 3), floating=False)
        if self.faces.dtype != torch.int64:
            raise ValueError(f"faces must be int64, got {self.faces.dtype}. Convert them with .long()")
        count = self.vertices.shape[0]
        if self.faces.numel():
            low, high = int(self.faces.min()), int(self.faces.max())
            if low < 0 or high >= count:
                raise ValueError(f"faces must index {count} vertices, got indices from {low} to {high}")
        for name, width in (("normals", 3), ("uvs", 2), ("vertex_colors", 3)):
            value = getattr(self, name)
            if value is not None:
                _check_tensor(name, value, (count, width))
        if self.material.base_color_texture is not None and self.uvs is None:
            raise ValueError("a material with base_color_texture needs uvs. Make them with texture.unwrap")

    @property
    def num_vertices(self) -> int:
        return self.vertices.shape[0]

    @property
    def num_faces(self) -> int:
        return self.faces.shape[0]

    @property
    def device(self) -> torch.device:
        return self.vertices.device

    def replace(self, **changes: object) -> Mesh:
        """A checked copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # pyright: ignore[reportArgumentType]

    @property
    def radius(self) -> float:
        """Distance of the farthest vertex from the origin, in world units; 0 for a mesh without vertices."""
        vertices = self.vertices.detach().double()
        return float(vertices.norm(dim=-1).max()) if len(vertices) else 0.0

    def in_unit_sphere(self) -> Mesh:
        """The mesh, made smaller about the origin if it reaches beyond the unit sphere; else the same object.

        Where only a spike or two reach far beyond the rest, they are pushed together lengthwise, and the rest keeps
        its size as far as that fits: no stray spike decides how large a thing is.
        """
        radius = self.radius
        if radius <= 1.0:
            return self
        vertices = self.vertices.double()
        outer = max(1.0, self._body_radius() / _BODY)
        if radius > _STICKS_OUT * outer:
            inner = _BODY * outer
            reach = vertices.norm(dim=-1, keepdim=True)
            # From inner..radius to inner..outer, in the order that they have: nothing folds.
            pushed = inner + (reach - inner) * ((outer - inner) / (radius - inner))
            vertices = vertices * torch.where(reach > inner, pushed / reach, 1.0)
            radius = outer
        # A little more than needed, so that rounding puts no vertex outside again.
        return self.replace(vertices=(vertices / (radius * (1.0 + 1e-6))).float())

    def _body_radius(self) -> float:
        """Radius of the sphere about the origin that holds nine tenths of the surface."""
        corners = self.vertices.double()[self.faces]
        sides = corners[:, 1:] - corners[:, :1]
        area = torch.linalg.cross(sides[:, 0], sides[:, 1]).norm(dim=-1)
        reach, order = corners.norm(dim=-1).amax(dim=-1).sort()
        held = area[order].cumsum(dim=0)
        return float(reach[held >= 0.9 * held[-1]][0]) if len(held) else 0.0

    def _map(self, change: Callable[[Tensor], Tensor]) -> Mesh:
        def optional(value: Tensor | None) -> Tensor | None:
            return None if value is None else change(value)

        texture = optional(self.material.base_color_texture)
        return Mesh(
            vertices=change(self.vertices),
            faces=change(self.faces),
            normals=optional(self.normals),
            uvs=optional(self.uvs),
            vertex_colors=optional(self.vertex_colors),
            material=dataclasses.replace(self.material, base_color_texture=texture),
        )

    def to(self, device: torch.device | str) -> Mesh:
        """The same mesh on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def detach(self) -> Mesh:
        """The same mesh, cut from any autograd graph."""
        return self._map(lambda tensor: tensor.detach())
