"""A triangle mesh as a representation: its vertices may move, and its colours are learned.

A vertex stands at base + S^k(moves), S the mean of a vertex and the mean of its neighbours. Vertices repeated along UV
seams stay together: all of one place follow the first.

Legend: N vertices, M faces, E edges, T x T texels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import trimesh
from torch import Tensor

from gen3d import texture
from gen3d.asset import Material, Mesh
from gen3d.cameras import Cameras
from gen3d.regularisers import laplacian, normal_consistency
from gen3d.render.environment import coefficients, lit
from gen3d.render.raster_types import Raster
from gen3d.render.rasterize import interpolate, sample_texture
from gen3d.render.surface import Light, Met, Surface, by_shade, render_surface
from gen3d.representations.base import Rendered, Representation, Shade
from gen3d.representations.mesh import FixedMesh
from gen3d.topology import Topology, face_pairs

if TYPE_CHECKING:
    from gen3d.surface import SurfaceConfig
    from gen3d.views import Views

# Colours are kept so far from 0 and 1, where a sigmoid has no end; in eight bits they come out as they were.
_END = 1e-3
# A smoother surface would be a mirror, of which a vertex's normal says too little.
_SMOOTHEST = 0.05
_PADDING = 4


class MeshSurface(Representation):
    """base, moves: [N, 3] world units. faces: [M, 3] int64. weld: [N] int64, the first vertex at each one's place.
    edges: [E, 4] int64, of `gen3d.topology.mesh_edges`. colors: raw, sRGB after a sigmoid, of texels [T, T, 3] with
    uvs [N, 2], or of vertices [N, 3]. shine: [2] metallic and roughness."""

    def __init__(self, settings: FixedMesh, tensors: Mapping[str, Tensor]) -> None:
        self.settings = settings
        self._tensors = {name: tensors[name] for name in settings.tensor_names}
        self.base, self.moves = tensors["base"], tensors["moves"]
        self.faces, self.weld, self.edges = tensors["faces"], tensors["weld"], tensors["edges"]
        self.colors, self.shine = tensors["colors"], tensors["shine"]
        self.uvs = self._tensors.get("uvs")
        wanted = 3 if settings.colors == "texture" else 2
        if self.colors.ndim != wanted:
            raise ValueError(
                f"a mesh with colors={settings.colors} needs colors of {wanted} dimensions, got "
                f"{list(self.colors.shape)}"
            )

    @property
    def device(self) -> torch.device:
        return self.base.device

    def tensors(self) -> dict[str, Tensor]:
        return dict(self._tensors)

    def rates(self, progress: float = 0.0) -> dict[str, float]:
        settings = self.settings
        rates = {"colors": settings.color_rate}
        if settings.geometry == "free":
            rates["moves"] = settings.vertex_rate
        if settings.material == "pbr":
            rates["shine"] = settings.material_rate
        return rates

    def vertices(self) -> Tensor:
        """[N, 3], differentiable in `moves`; frozen, the base itself."""
        if self.settings.geometry == "frozen":
            return self.base
        moves, degree = self.moves, self._degree
        first, second = self.edges[:, 0], self.edges[:, 1]
        for _ in range(self.settings.smoothing):
            total = torch.zeros_like(moves).index_add(0, first, moves[second])
            total = total.index_add(0, second, moves[first])
            moves = 0.5 * (moves + total / degree)
        return (self.base + moves)[self.weld]

    @cached_property
    def _degree(self) -> Tensor:
        """[N, 1]: neighbours of each vertex, at least 1."""
        ends = self.edges[:, :2].reshape(-1)
        return torch.bincount(ends, minlength=len(self.base)).clamp_min(1)[:, None]

    def _paint(self, raster: Raster) -> Tensor:
        colors = torch.sigmoid(self.colors)
        if self.uvs is None:
            return interpolate(colors, raster)
        return sample_texture(colors, interpolate(self.uvs, raster))

    def _light(self, shade: Shade | None) -> Light | None:
        """A lamp's, if there is one, or else the environment's."""
        if shade is not None:
            return by_shade(shade)
        if self.settings.material == "diffuse":
            return None
        metallic, roughness = self.shine[0].clamp(0.0, 1.0), self.shine[1].clamp(_SMOOTHEST, 1.0)
        environment = coefficients(self.settings.environment, self.device)

        def light(met: Met, colors: Tensor) -> Tensor:
            return lit(colors, met.normals, met.directions, metallic[None], roughness[None], environment)

        return light

    def render(
        self,
        cameras: Cameras,
        size: int,
        background: Tensor,
        *,
        generator: torch.Generator | None = None,
        shade: Shade | None = None,
        normals: bool = False,
    ) -> Rendered:
        surface = Surface(vertices=self.vertices(), faces=self.faces, edges=self.edges, weld=self.weld)
        return render_surface(
            surface, self._paint, cameras, size, background, light=self._light(shade), normals=normals
        )

    def regularisers(self, generator: torch.Generator) -> dict[str, Tensor]:
        settings, losses = self.settings, {}
        if settings.geometry == "frozen":
            return losses
        if settings.normal_consistency:
            faces = self.weld[self.faces]
            turned = normal_consistency(self.vertices(), faces, face_pairs(faces))
            losses["normal_consistency"] = settings.normal_consistency * turned
        if settings.laplacian:
            vertices, edges = self.vertices(), self.edges[:, :2]
            length = (vertices[edges[:, 0]] - vertices[edges[:, 1]]).detach().norm(dim=-1).mean()
            losses["laplacian"] = settings.laplacian * laplacian(vertices, edges) / length
        return losses

    @torch.no_grad()
    def refresh(self) -> None:
        self.shine.clamp_(0.0, 1.0)

    @torch.no_grad()
    def to_mesh(self, settings: SurfaceConfig, views: Views | None) -> Mesh:
        """As it is; the settings of a surface have no effect."""
        metallic, roughness = (round(float(value), 6) for value in self.shine.clamp(0.0, 1.0))
        colors = torch.sigmoid(self.colors)
        mesh = Mesh(self.vertices(), self.faces, material=Material(metallic=metallic, roughness=roughness))
        if self.uvs is None:
            return mesh.replace(vertex_colors=colors)
        # What no gradient has reached since a grey beginning takes the colour of what is nearest in the texture.
        reached = (self.colors != 0.0).any(dim=-1)
        filled = texture.dilate(colors, reached) if bool(reached.any()) else colors
        return mesh.replace(uvs=self.uvs, material=Material(filled, (0.8, 0.8, 0.8), metallic, roughness))


def ball(settings: FixedMesh, device: torch.device | str = "cpu") -> MeshSurface:
    """A grey icosphere around the origin."""
    sphere = trimesh.creation.icosphere(subdivisions=settings.subdivisions, radius=settings.ball_radius)
    mesh = Mesh(torch.tensor(sphere.vertices).float(), torch.tensor(sphere.faces).long())
    return surface_of_mesh(mesh.replace(material=Material(base_color=(0.5, 0.5, 0.5))), settings, device)


@torch.no_grad()
def surface_of_mesh(mesh: Mesh, settings: FixedMesh, device: torch.device | str = "cpu") -> MeshSurface:
    """`mesh` itself. Where it has no texture and there is to be one, it is unwrapped, which repeats vertices along
    seams, and its colours are the texture's first."""
    mesh = mesh.detach().to("cpu").replace(normals=None)
    if settings.colors == "vertices":
        mesh = texture.texture_to_vertex_colors(mesh)
        colors = mesh.vertex_colors
        if colors is None:
            colors = torch.tensor(mesh.material.base_color).expand(mesh.num_vertices, 3)
    else:
        if mesh.material.base_color_texture is None:
            mesh = _textured(mesh, settings.texture_size)
        colors = mesh.material.base_color_texture
    assert colors is not None
    topology = Topology.of(mesh.vertices, mesh.faces)
    tensors = {
        "base": mesh.vertices,
        "moves": torch.zeros_like(mesh.vertices),
        "faces": mesh.faces,
        "weld": topology.weld,
        "edges": topology.edges,
        "colors": torch.logit(colors.clamp(_END, 1.0 - _END)),
        "shine": torch.tensor([mesh.material.metallic, mesh.material.roughness]),
    }
    if settings.colors == "texture":
        assert mesh.uvs is not None
        tensors["uvs"] = mesh.uvs
    return MeshSurface(settings, {name: tensor.to(device).clone() for name, tensor in tensors.items()})


def _textured(mesh: Mesh, size: int) -> Mesh:
    """Unwrapped, with its own colours in a texture."""
    unwrapped = texture.unwrap(mesh, size=size, padding=min(_PADDING, size // 8 - 1))
    if mesh.vertex_colors is None:
        plain = torch.tensor(mesh.material.base_color).expand(size, size, 3)
        material = Material(plain, mesh.material.base_color, mesh.material.metallic, mesh.material.roughness)
        return unwrapped.replace(material=material)
    return texture.bake_vertex_colors(unwrapped, size=size)
