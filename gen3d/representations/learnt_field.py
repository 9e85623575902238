"""A field whose density and colour come out of tensors that learn: what hash grids of all kinds have in common.

Legend: K points.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.adam import Adam, adam_step
from gen3d.extraction import mesh_of_field
from gen3d.representations.base import Field
from gen3d.representations.hull import hull
from gen3d.state import State

if TYPE_CHECKING:
    from gen3d.asset import Mesh
    from gen3d.surface import SurfaceConfig
    from gen3d.views import Views

_CHUNK = 1 << 17  # points of a grid that are looked at together
# Steps and points of the fit to a given solid.
_FIT_STEPS, _FIT_POINTS, _FIT_RATE = 300, 8192, 0.02
# Where in its cell a look goes, time after time: fractions of the plastic number fill the cell evenly.
_TURN = (0.8191725134, 0.6710436067, 0.5497004779)
_PICTURE_LOOKS = 4
SEED = 0
"""Of what a field begins with."""


class LearntField(Field):
    """`named`: its tensors, by name. A field has a *value*, which has the surface as a level, inside above."""

    named: dict[str, Tensor]

    @abstractmethod
    def value_at(self, points: Tensor) -> Tensor:
        """The value `[K]` at points `[K, 3]`, differentiable."""

    @abstractmethod
    def density_of(self, value: Tensor) -> Tensor:
        """Optical density per unit length, same shape, where the field has that value."""

    @abstractmethod
    def values_and_color(self, points: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """All that learns the value, `[K]` each in units of `target`, and the colour `[K, 3]`, at points `[K, 3]`;
        differentiable."""

    @abstractmethod
    def target(self, solid: Tensor) -> Tensor:
        """What the value should be for a `solid [n, n, n]` in [0, 1], one half on the surface, in units of which a
        twentieth is a fair error."""

    @abstractmethod
    def learning(self) -> dict[str, float]:
        """The tensors that learn a solid, and each one's share of the rate; one at least."""

    @property
    @abstractmethod
    def fit_resolution(self) -> int:
        """Of the grid on which a solid is given that the field becomes."""

    @property
    def kind(self) -> Tensor:
        """One of the tensors that learn: all are of its type and on its device."""
        return self.named[next(iter(self.learning()))]

    @property
    def device(self) -> torch.device:
        return self.kind.device

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.named)

    def around(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The value half a finest cell below and above points `[K, 3]` along each axis: `[K, 3]` and `[K, 3]`,
        differentiable. Differences of these reach every corner that they span (Neuralangelo, arXiv 2306.03092)."""
        offsets = torch.eye(3, device=points.device, dtype=points.dtype) * self.detail
        places = (points[:, None, None] + torch.stack([-offsets, offsets])).reshape(-1, 3)
        low, high = self.value_at(places).view(-1, 2, 3).unbind(1)
        return low, high

    def normals_at(self, points: Tensor) -> Tensor:
        low, high = self.around(points)
        return F.normalize(low - high, dim=-1)

    def to_mesh(self, settings: SurfaceConfig, views: Views | None) -> Mesh:
        return mesh_of_field(self, settings, views)

    @torch.no_grad()
    def over(self, axes: Sequence[Tensor], function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of points over a grid, flat."""
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)
        return torch.cat([function(part) for part in points.split(_CHUNK)])

    def look(self, turn: int, n: int) -> Tensor:
        """Density `[n^3]` at one place of every cell of the cube, n along an edge: another for each `turn`."""
        offsets = [math.fmod(0.5 + turn * each, 1.0) for each in _TURN]
        axes = [
            ((torch.arange(n, device=self.device) + offset) * (2.0 / n) - 1.0).to(self.kind.dtype)
            for offset in offsets
        ]
        return self.over(axes, lambda points: self.density_of(self.value_at(points)))

    def looks(self, n: int) -> tuple[Tensor, Tensor]:
        """Least and greatest density `[n^3]`, both, of several looks into every cell, for pictures."""
        found = torch.stack([self.look(turn, n) for turn in range(_PICTURE_LOOKS)])
        return found.amin(dim=0), found.amax(dim=0)

    @torch.no_grad()
    def value_grid(self, resolution: int) -> np.ndarray:
        """The value on a grid `[n, n, n]` float32 indexed `[x, y, z]`, the first on -1 and the last on 1."""
        axis = torch.linspace(-1.0, 1.0, resolution, device=self.device, dtype=self.kind.dtype)
        values = self.over([axis] * 3, self.value_at)
        return values.view(resolution, resolution, resolution).cpu().numpy().astype(np.float32)

    @torch.no_grad()
    def carve(self, views: Views, *, tolerance: float = 0.0) -> None:
        n = self.fit_resolution
        axis = torch.linspace(-1.0, 1.0, n, device=self.device)
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
        inside, color = hull(points, views, tolerance=tolerance)
        self.become(inside.view(n, n, n), color.view(n, n, n, 3))

    @torch.enable_grad()
    def become(self, solid: Tensor, colors: Tensor) -> None:
        """Learn a solid `[n, n, n]`, in [0, 1] with one half on the surface, and colours `[n, n, n, 3]`, both on a grid
        over the cube, from random points: half of them anywhere, half near the surface."""
        generator = torch.Generator().manual_seed(SEED)
        n, kind, learning = solid.shape[0], self.kind, self.learning()
        wanted = torch.cat([self.target(solid)[..., None], colors.clamp(0.02, 0.98)], dim=-1).to(kind)
        channels = wanted.permute(3, 2, 1, 0)[None]
        near = (
            ((F.max_pool3d(solid[None, None].float(), 3, 1, 1) > 0.5)[0, 0] & (solid < 1.0)).nonzero().cpu()
        )
        state = State({name: self.named[name].detach() for name in learning})
        for step in range(_FIT_STEPS):
            points = torch.rand(_FIT_POINTS, 3, generator=generator) * 2 - 1
            if len(near):
                chosen = near[torch.randint(len(near), (_FIT_POINTS // 2,), generator=generator)]
                jitter = torch.rand(len(chosen), 3, generator=generator) * 2 - 1
                points[: len(chosen)] = (chosen + jitter) * (2.0 / (n - 1)) - 1.0
            points = points.clamp(-1.0, 1.0).to(kind)
            sought = F.grid_sample(channels, points.view(1, 1, 1, -1, 3), align_corners=True)[0, :, 0, 0].T
            for name in learning:
                self.named[name] = state[name].requires_grad_(True)
                state[name].grad = None
            values, color = self.values_and_color(points)
            missed = (color - sought[:, 1:]).square().mean()
            for value in values:
                missed = missed + (value - sought[:, 0]).square().mean()
            missed.backward()
            rate: float = _FIT_RATE * 0.05 ** (step / _FIT_STEPS)
            adam_step(state, {name: rate * share for name, share in learning.items()}, Adam())
        for name in learning:
            self.named[name] = state[name].detach()
