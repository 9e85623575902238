"""A scene of the world: geometry, colours, pictures and mesh of one caption."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from experiments.world import captions, heads, objects
from experiments.world.heads import HeadSpec, Rig
from experiments.world.render import REACH, Light, Rendering, render
from experiments.world.sdf import Color, Field, Part, compile_parts

if TYPE_CHECKING:
    from gen3d.asset import Mesh
    from gen3d.cameras import Cameras

_CHUNK = 1 << 15
_OFF_SURFACE = 1e-4  # world units, far below what a mesh resolves


@dataclass(frozen=True, slots=True)
class Scene:
    """One caption made solid. Points are `[N, 3]` float32 in the world; the scene fits the unit sphere.

    Of a close-up the unit sphere holds the face. Pictures show what lies around it as well; as a solid (`sdf`,
    `normals`, `mesh`) the scene ends where the sphere cuts it off.

    kind: 'thing', 'pair' or 'head'. background: sRGB, from the caption's clause, else a light grey. field: all there
    is, cut nowhere. reach: radius of the ball about the origin that holds it.
    """

    caption: str
    kind: str
    parts: tuple[Part, ...]
    background: Color
    field: Field
    reach: float = REACH

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distance `[N]`, negative inside."""
        distance = torch.cat([self.field.sdf(p[None])[0] for p in points.split(_CHUNK)])
        return torch.maximum(distance, _beyond_unit_sphere(points)) if self.is_cut else distance

    def normals(self, points: Tensor) -> Tensor:
        """Unit gradient `[N, 3]` of the signed distance."""
        normals = torch.cat([self.field.normals(p[None])[0] for p in points.split(_CHUNK)])
        if not self.is_cut:
            return normals
        # On the cut, the distance is that beyond the sphere.
        cut = self.sdf(points) == _beyond_unit_sphere(points)
        return torch.where(cut[:, None], torch.nn.functional.normalize(points, dim=-1), normals)

    @property
    def is_cut(self) -> bool:
        """Whether there is more to see than fits the unit sphere, as in a close-up."""
        return self.reach > REACH

    def albedo(self, points: Tensor) -> Tensor:
        """sRGB albedo `[N, 3]` in [0, 1] of the part nearest to each point."""
        return torch.cat([self.field.sdf_and_albedo(p[None])[1][0] for p in points.split(_CHUNK)])

    def render(
        self,
        cameras: Cameras,
        size: int = 128,
        *,
        background: Color | None = None,
        light: Light | None = None,
    ) -> Rendering:
        """V square pictures, `[V, ...]`."""
        over = torch.tensor(background or self.background, dtype=torch.float32)[None]
        r = render(self.field, cameras, size, over, light or Light(), self.reach)
        return Rendering(r.images[0], r.mask[0], r.depth[0], r.normals[0], r.albedo[0])

    def mesh(self, resolution: int = 128) -> Mesh:
        """Marching cubes of the field at `resolution` samples a side, with the albedo at the vertices."""
        from skimage.measure import marching_cubes

        from gen3d.asset import Mesh

        axis = torch.linspace(-1.05, 1.05, resolution)
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
        volume = self.sdf(grid).view(resolution, resolution, resolution).numpy()
        # A sample on the surface itself would give several vertices at one place, and a mesh that is not closed.
        volume[np.abs(volume) < _OFF_SURFACE] = _OFF_SURFACE
        vertices, faces, _, _ = marching_cubes(volume, 0.0)  # winds outwards for x, y, z index order
        points = torch.from_numpy(np.ascontiguousarray(vertices)).float() * (2.1 / (resolution - 1)) - 1.05
        return Mesh(
            vertices=points,
            faces=torch.from_numpy(np.ascontiguousarray(faces)).long(),
            normals=self.normals(points),
            vertex_colors=self.albedo(points),
        )


def scene_from_caption(caption: str, seed: int | None = None, *, rig: Rig | None = None) -> Scene:
    """Build the scene a caption names; `seed` None gives canonical proportions, a number varies them.

    `rig` poses a head's face and is refused for anything else.

    Raises:
        ValueError: a word is unknown (it is named, with what is known), or a rig is given for a thing.
    """
    spec = captions.parse(caption)
    rng = None if seed is None else np.random.default_rng([seed, _stable_hash(caption)])
    if isinstance(spec, HeadSpec):
        generator = None if rng is None else torch.Generator().manual_seed(int(rng.integers(1 << 31)))
        head = heads.make_head(spec, generator)
        return _scene(caption, "head", head.parts(rig), captions.background_of(caption), head.reach)
    if rig is not None:
        raise ValueError(
            f"a rig poses heads, but the caption is {caption!r}: say 'a portrait of ...' or leave it out"
        )
    kind = "pair" if isinstance(spec, captions.PairSpec) else "thing"
    return _scene(caption, kind, objects.build_parts(spec, rng), captions.background_of(caption))


def _scene(
    caption: str, kind: str, parts: list[Part], background: Color | None, reach: float = REACH
) -> Scene:
    return Scene(caption, kind, tuple(parts), background or (0.83, 0.83, 0.83), compile_parts([parts]), reach)


def _beyond_unit_sphere(points: Tensor) -> Tensor:
    """Distance `[N]` to the unit sphere, negative inside."""
    return points.norm(dim=-1) - 1.0


def _stable_hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
