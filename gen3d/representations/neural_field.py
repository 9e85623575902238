"""A field of an encoding and a small network: what `hashgrid` and `sdf` have in common.

Legend: K points, L levels, F features a level, G cells along an edge of the occupancy grid.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.adam import Adam, adam_step
from gen3d.cameras import Cameras
from gen3d.extraction import mesh_of_field
from gen3d.render.rays import picture, render_field
from gen3d.representations.base import Field, Rendered, Shade
from gen3d.representations.cells import EMPTY, bounds_of, box_of, rows_of
from gen3d.representations.hash_encoding import encode
from gen3d.representations.hull import hull
from gen3d.representations.neural import NeuralConfig
from gen3d.state import State

if TYPE_CHECKING:
    from gen3d.asset import Mesh
    from gen3d.surface import SurfaceConfig
    from gen3d.views import Views

Settings = TypeVar("Settings", bound=NeuralConfig)

_CHUNK = 1 << 17  # points of a grid that are looked at together
# Steps and points of the fit to a given solid.
_FIT_STEPS, _FIT_POINTS, _FIT_RATE = 300, 8192, 0.02
_FIT_NETWORK = 0.1  # the network's share of that rate
# Where in its cell the occupancy grid looks, time after time: fractions of the plastic number fill the cell evenly.
_TURN = (0.8191725134, 0.6710436067, 0.5497004779)
_LEAST = 0.5  # how much less dense than what was found around it a place is held possible to be
_SEED = 0  # of what the network begins with
_PICTURE_LOOKS = 4


class NeuralField(Field, Generic[Settings]):
    """See the module's docstring; the tensors are

    table_0 ...: `[T, F]` features of each level. weight_0, bias_0 ...: of the network's layers. occupancy: `[G^3]`
    density of each cell, where it was looked at, fading. cell_density: `[G^3, 2]` least and greatest density in and
    around each cell, as of the last `refresh`. looks: how often that was.
    """

    def __init__(self, tensors: Mapping[str, Tensor], settings: Settings) -> None:
        self.settings, self.named = settings, dict(tensors)
        self.num_samples, self.levels = settings.num_samples, settings.levels()
        count, layers = len(self.levels), settings.hidden_layers + 1
        names = [f"table_{i}" for i in range(count)] + [
            f"{what}_{i}" for what in ("weight", "bias") for i in range(layers)
        ]
        missing = [name for name in (*names, "occupancy", "cell_density", "looks") if name not in self.named]
        if missing:
            raise ValueError(
                f"the state holds no {getattr(settings, 'name', 'field')} of these settings; missing: {missing}"
            )
        for index, level in enumerate(self.levels):
            wanted, got = (level.rows, settings.features), tuple(self.named[f"table_{index}"].shape)
            if got != wanted:
                raise ValueError(
                    f"the state's table_{index} has shape {list(got)} and these settings ask for {list(wanted)}; use "
                    "those that it was begun with"
                )
        self._bounds: tuple[Tensor, Tensor] | None = None

    @classmethod
    def fresh(cls, settings: Settings, device: torch.device | str = "cpu", dtype: Any = torch.float32) -> Any:
        """What the settings begin with, the same every time."""
        generator = torch.Generator().manual_seed(_SEED)
        tensors: dict[str, Tensor] = {}

        def uniform(rows: int, columns: int, scale: float) -> Tensor:
            return (torch.rand(rows, columns, generator=generator) * 2.0 - 1.0) * scale

        for index, level in enumerate(settings.levels()):
            tensors[f"table_{index}"] = uniform(level.rows, settings.features, 1e-4)
        width, hidden = len(settings.levels()) * settings.features, settings.hidden_width
        for index in range(settings.hidden_layers):
            tensors[f"weight_{index}"] = uniform(hidden, width, math.sqrt(6.0 / width))
            tensors[f"bias_{index}"] = torch.zeros(hidden)
            width = hidden
        last = settings.hidden_layers
        tensors |= {
            f"weight_{last}": uniform(4, width, math.sqrt(3.0 / width)),
            f"bias_{last}": torch.zeros(4),
        }
        tensors |= cls._own_tensors(settings)
        cells = settings.occupancy_resolution**3
        tensors["occupancy"], tensors["cell_density"] = torch.zeros(cells), torch.zeros(cells, 2)
        tensors = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
        tensors["looks"] = torch.zeros((), dtype=torch.int64, device=device)
        field = cls(tensors, settings)
        field.refresh()
        return field

    @classmethod
    def _own_tensors(cls, settings: Settings) -> dict[str, Tensor]:
        """Further tensors of a field at its beginning."""
        return {}

    @abstractmethod
    def value(self, raw: Tensor, points: Tensor) -> Tensor:
        """What has the surface as a level, `[K]`, inside above: of the network's first output `raw [K]`."""

    @abstractmethod
    def density_of(self, value: Tensor) -> Tensor:
        """Optical density per unit length, same shape, where the field has that value."""

    @abstractmethod
    def target(self, solid: Tensor) -> Tensor:
        """What `value` should be for a `solid [n, n, n]` in [0, 1], one half on the surface, in units of which a
        twentieth is a fair error."""

    @property
    def device(self) -> torch.device:
        return self.named["table_0"].device

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.named)

    def rates(self, progress: float = 0.0) -> dict[str, float]:
        settings = self.settings
        tables = {f"table_{index}": settings.table_rate for index in range(settings.num_active(progress))}
        network = [name for name in self.named if name.startswith(("weight_", "bias_"))]
        return tables | dict.fromkeys(network, settings.network_rate)

    def network(self, points: Tensor) -> Tensor:
        """The network's outputs `[K, 4]`, differentiable in its tensors: raw value, raw colour."""
        hidden = encode(points, [self.named[f"table_{i}"] for i in range(len(self.levels))], self.levels)
        last = self.settings.hidden_layers
        for index in range(last):
            hidden = F.linear(hidden, self.named[f"weight_{index}"], self.named[f"bias_{index}"]).relu_()
        return F.linear(hidden, self.named[f"weight_{last}"], self.named[f"bias_{last}"])

    def value_at(self, points: Tensor) -> Tensor:
        """`value` at points `[K, 3]`, differentiable."""
        return self.value(self.network(points)[:, 0], points)

    def density_and_color(self, points: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.network(points)
        return self.density_of(self.value(raw[:, 0], points)), torch.sigmoid(raw[:, 1:])

    def around(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """`value` half a finest cell below and above points `[K, 3]` along each axis: `[K, 3]` and `[K, 3]`,
        differentiable. Differences of these reach every corner that they span (Neuralangelo, arXiv 2306.03092)."""
        offsets = torch.eye(3, device=points.device, dtype=points.dtype) * self.detail
        places = (points[:, None, None] + torch.stack([-offsets, offsets])).reshape(-1, 3)
        low, high = self.value_at(places).view(-1, 2, 3).unbind(1)
        return low, high

    def normals_at(self, points: Tensor) -> Tensor:
        low, high = self.around(points)
        return F.normalize(low - high, dim=-1)

    @property
    def detail(self) -> float:
        return 1.0 / self.levels[-1].resolution

    def density_bounds(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return bounds_of(self.named["cell_density"], rows_of(points, self.settings.occupancy_resolution))

    def bounds(self) -> tuple[Tensor, Tensor]:
        if self._bounds is None:
            n = self.settings.occupancy_resolution
            self._bounds = box_of((self.named["cell_density"][:, 1] > EMPTY).view(n, n, n))
        return self._bounds

    @torch.no_grad()
    def refresh(self) -> None:
        """Look into every cell, each time elsewhere. What was denser before fades (Instant-NGP's occupancy grid); a
        cell next to a dense one counts as dense, for what lies between two looks or grows before the next."""
        looks = int(self.named["looks"])
        found = self._look(looks)
        kept = self.named["occupancy"] * self.settings.occupancy_decay if looks else found
        self.named["occupancy"] = torch.maximum(found, kept)
        self.named["looks"] = self.named["looks"] + 1
        self._note(found, self.named["occupancy"])

    @torch.no_grad()
    def _note(self, least: Tensor, greatest: Tensor) -> None:
        n = self.settings.occupancy_resolution
        around = torch.stack([-least, greatest]).view(2, 1, n, n, n)
        least, greatest = F.max_pool3d(around, 3, stride=1, padding=1).view(2, -1)
        self.named["cell_density"] = torch.stack([-_LEAST * least, greatest], dim=1)
        self._bounds = None

    @torch.no_grad()
    def _look(self, turn: int) -> Tensor:
        """Density `[G^3]` at one place of every cell."""
        n = self.settings.occupancy_resolution
        offsets = [math.fmod(0.5 + turn * each, 1.0) for each in _TURN]
        axes = [
            ((torch.arange(n, device=self.device) + offset) * (2.0 / n) - 1.0).to(self.named["table_0"].dtype)
            for offset in offsets
        ]
        return self._over(axes, lambda points: self.density_of(self.value_at(points)))

    @torch.no_grad()
    def _over(self, axes: list[Tensor], function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of points over a grid, flat."""
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)
        return torch.cat([function(part) for part in points.split(_CHUNK)])

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
        look: dict[str, Any] = {"shade": shade, "normals": normals}
        if generator is not None:
            return render_field(self, cameras, size, background, generator=generator, **look)
        looks = torch.stack([self._look(turn) for turn in range(_PICTURE_LOOKS)])
        self._note(looks.amin(dim=0), looks.amax(dim=0))
        samples = min(max(self.levels[-1].resolution, self.num_samples), 4 * self.num_samples)
        return picture(self, cameras, size, background, num_samples=samples, **look)

    def to_mesh(self, settings: SurfaceConfig, views: Views | None) -> Mesh:
        return mesh_of_field(self, settings, views)

    @torch.no_grad()
    def value_grid(self, resolution: int) -> np.ndarray:
        """`value` on a grid `[n, n, n]` float32 indexed `[x, y, z]`, the first on -1 and the last on 1."""
        axis = torch.linspace(-1.0, 1.0, resolution, device=self.device, dtype=self.named["table_0"].dtype)
        values = self._over([axis] * 3, self.value_at)
        return values.view(resolution, resolution, resolution).cpu().numpy().astype(np.float32)

    def regularisers(self, generator: torch.Generator) -> dict[str, Tensor]:
        if not self.settings.table_decay:
            return {}
        squares = [self.named[f"table_{index}"].square().mean() for index in range(len(self.levels))]
        return {"decay": self.settings.table_decay * torch.stack(squares).sum()}

    def _anywhere(self, count: int, generator: torch.Generator) -> Tensor:
        """Random points `[count, 3]` of the cube that rendering looks at: the box around what is not empty."""
        low, high = self.bounds()
        drawn = torch.rand(count, 3, generator=generator, device=generator.device).to(low)
        return low + (high - low) * drawn

    @torch.no_grad()
    def carve(self, views: Views, *, tolerance: float = 0.0) -> None:
        n = self.settings.fit_resolution
        axis = torch.linspace(-1.0, 1.0, n, device=self.device)
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
        inside, color = hull(points, views, tolerance=tolerance)
        self.become(inside.view(n, n, n), color.view(n, n, n, 3))

    @torch.enable_grad()
    def become(self, solid: Tensor, colors: Tensor) -> None:
        """Learn a solid `[n, n, n]`, in [0, 1] with one half on the surface, and colours `[n, n, n, 3]`, both on a grid
        over the cube, from random points: half of them anywhere, half near the surface."""
        generator = torch.Generator().manual_seed(_SEED)
        n, kind = solid.shape[0], self.named["table_0"]
        wanted = torch.cat([self.target(solid)[..., None], colors.clamp(0.02, 0.98)], dim=-1).to(kind)
        channels = wanted.permute(3, 2, 1, 0)[None]
        near = (
            ((F.max_pool3d(solid[None, None].float(), 3, 1, 1) > 0.5)[0, 0] & (solid < 1.0)).nonzero().cpu()
        )
        shares = {"table_": 1.0, "weight_": _FIT_NETWORK, "bias_": _FIT_NETWORK}
        learning = {
            name: share for name in self.named for start, share in shares.items() if name.startswith(start)
        }
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
            raw = self.network(points)
            missed = (self.value(raw[:, 0], points) - sought[:, 0]).square().mean()
            missed = missed + (torch.sigmoid(raw[:, 1:]) - sought[:, 1:]).square().mean()
            missed.backward()
            rate: float = _FIT_RATE * 0.05 ** (step / _FIT_STEPS)
            adam_step(state, {name: rate * share for name, share in learning.items()}, Adam())
        for name in learning:
            self.named[name] = state[name].detach()
        self.named["looks"] = torch.zeros_like(self.named["looks"])
        self.refresh()


def begun(settings: NeuralConfig, device: torch.device | str = "cpu") -> NeuralField:
    """The field that has these settings, as it begins."""
    return settings.live().fresh(settings, device)
