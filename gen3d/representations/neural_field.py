"""A field of an encoding and a small network: what `hashgrid` and `sdf` have in common.

Legend: K points, L levels, F features a level, G cells along an edge of the occupancy grid.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.render.rays import picture, render_field
from gen3d.representations.base import Rendered, Shade
from gen3d.representations.cells import EMPTY, bounds_of, box_of, rows_of, spread
from gen3d.representations.hash_encoding import encode
from gen3d.representations.learnt_field import SEED, LearntField
from gen3d.representations.neural import NeuralConfig

Settings = TypeVar("Settings", bound=NeuralConfig)

_FIT_NETWORK = 0.1  # the network's share of the rate at which a solid is learnt


class NeuralField(LearntField, Generic[Settings]):
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
        generator = torch.Generator().manual_seed(SEED)
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

    @property
    def fit_resolution(self) -> int:
        return self.settings.fit_resolution

    def learning(self) -> dict[str, float]:
        shares = {"table_": 1.0, "weight_": _FIT_NETWORK, "bias_": _FIT_NETWORK}
        return {
            name: share for name in self.named for start, share in shares.items() if name.startswith(start)
        }

    def values_and_color(self, points: Tensor) -> tuple[list[Tensor], Tensor]:
        raw = self.network(points)
        return [self.value(raw[:, 0], points)], torch.sigmoid(raw[:, 1:])

    def become(self, solid: Tensor, colors: Tensor) -> None:
        super().become(solid, colors)
        self.named["looks"] = torch.zeros_like(self.named["looks"])
        self.refresh()

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
        found = self.look(looks, self.settings.occupancy_resolution)
        kept = self.named["occupancy"] * self.settings.occupancy_decay if looks else found
        self.named["occupancy"] = torch.maximum(found, kept)
        self.named["looks"] = self.named["looks"] + 1
        self._note(found, self.named["occupancy"])

    @torch.no_grad()
    def _note(self, least: Tensor, greatest: Tensor) -> None:
        self.named["cell_density"] = spread(least, greatest)
        self._bounds = None

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
        self._note(*self.looks(self.settings.occupancy_resolution))
        samples = min(max(self.levels[-1].resolution, self.num_samples), 4 * self.num_samples)
        return picture(self, cameras, size, background, num_samples=samples, **look)

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


def begun(settings: NeuralConfig, device: torch.device | str = "cpu") -> NeuralField:
    """The field that has these settings, as it begins."""
    return settings.live().fresh(settings, device)
