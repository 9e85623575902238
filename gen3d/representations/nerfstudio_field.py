"""Nerfstudio's networks as a field; settings and equations stand in `nerfstudio`.

Legend: N rays, S samples a ray, K points.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from gen3d.cameras import Cameras
from gen3d.render.rays import near_far, picture, render_field, visible
from gen3d.representations.base import RayRender, Rendered, Samples, Shade
from gen3d.representations.cells import EMPTY, bounds_of, box_of, rows_of, spread
from gen3d.representations.learnt_field import SEED, LearntField
from gen3d.representations.nerfstudio import SOLID, NerfstudioConfig

with warnings.catch_warnings():
    # It asks torch for mixed precision by a name of before.
    warnings.simplefilter("ignore", FutureWarning)
    from nerfstudio.cameras.rays import RayBundle, RaySamples  # pyright: ignore[reportMissingImports]
    from nerfstudio.data.scene_box import SceneBox  # pyright: ignore[reportMissingImports]
    from nerfstudio.field_components.activations import trunc_exp  # pyright: ignore[reportMissingImports]
    from nerfstudio.fields.density_fields import (  # pyright: ignore[reportMissingImports]
        HashMLPDensityField,
    )
    from nerfstudio.fields.nerfacto_field import NerfactoField  # pyright: ignore[reportMissingImports]
    from nerfstudio.model_components.losses import interlevel_loss  # pyright: ignore[reportMissingImports]
    from nerfstudio.model_components.ray_samplers import (  # pyright: ignore[reportMissingImports]
        ProposalNetworkSampler,
        UniformSampler,
    )

_TABLE = "hash_table"
_PICTURE_CELLS = 48  # along an edge, of which a picture leaves out what is empty or hidden
_EMPTY = 1e-9  # density below which a value says no more


@dataclass(frozen=True, kw_only=True)
class _Guess:
    """rays: int64 `[M]`, those of N that meet the box. samples: along these, of each proposal network and then of the
    field, whose weights come later. weights: `[M, S, 1]` of each proposal network, differentiable in its tensors."""

    rays: Tensor
    samples: Sequence[RaySamples]
    weights: Sequence[Tensor]


class _Networks(nn.Module):
    """All of nerfstudio's modules. Called with the name of a method, so that `functional_call` can put other tensors in
    the place of its own for the length of that call."""

    def __init__(self, settings: NerfstudioConfig) -> None:
        super().__init__()
        self.settings = settings
        box = torch.tensor([[-1.0] * 3, [1.0] * 3])
        self.field = NerfactoField(
            box,
            num_images=1,
            hidden_dim=settings.hidden_width,
            hidden_dim_color=settings.color_width,
            num_levels=settings.num_levels,
            base_res=settings.base_resolution,
            max_res=settings.finest_resolution,
            log2_hashmap_size=settings.log2_hashmap_size,
            features_per_level=settings.features,
            appearance_embedding_dim=0,
            implementation="torch",
        )
        self.proposals = nn.ModuleList(
            HashMLPDensityField(
                box,
                hidden_dim=16,
                num_levels=settings.proposal_levels,
                base_res=min(16, finest),
                max_res=finest,
                log2_hashmap_size=settings.proposal_log2_hashmap_size,
                implementation="torch",
            )
            for finest in settings.proposal_resolutions
        )
        self.sampler = ProposalNetworkSampler(
            num_proposal_samples_per_ray=settings.proposal_samples,
            num_nerf_samples_per_ray=settings.num_samples,
            num_proposal_network_iterations=len(settings.proposal_samples),
            single_jitter=True,
            initial_sampler=UniformSampler(single_jitter=True),
        )

    def forward(self, method: str, *arguments: Any) -> Any:
        return getattr(self, method)(*arguments)

    def blob(self, points: Tensor) -> Tensor:
        """What is added to the logarithm of the density: `[..., 1]` of points `[..., 3]`."""
        away = points.norm(dim=-1, keepdim=True) / self.settings.blob_radius
        return self.settings.blob_strength * (1.0 - away)

    def look(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value `[K]`, density `[K]` and colour `[K, 3]` at points `[K, 3]`, as `NerfactoField` has them; but that it
        asks for a gradient of the points as well, which costs more than all the rest."""
        field = self.field
        places = SceneBox.get_normalized_positions(points, field.aabb)
        inside = ((places > 0.0) & (places < 1.0)).all(dim=-1, keepdim=True)
        raw, features = field.mlp_base(places * inside).split([1, field.geo_feat_dim], dim=-1)
        blob = self.blob(points)
        density = trunc_exp(raw) * torch.exp(blob) * inside
        value = torch.where(inside, raw + blob, math.log(_EMPTY))
        direction = field.direction_encoding(points.new_tensor([[0.5, 0.5, 1.0]])).expand(len(points), -1)
        color = field.mlp_head(torch.cat([direction, features], dim=-1))
        return value[:, 0], density[:, 0], color

    def proposed(self, index: int, points: Tensor) -> Tensor:
        """Density `[..., 1]` that a proposal network expects at points `[..., 3]`."""
        proposal: Any = self.proposals[index]
        return proposal.density_fn(points) * torch.exp(self.blob(points))

    def propose(self, rays: RayBundle, num_samples: int) -> tuple[list[RaySamples], list[Tensor]]:
        """Samples and weights as of `_Guess`."""
        self.sampler.num_nerf_samples_per_ray = num_samples
        functions = [
            lambda points, index=index: self.proposed(index, points) for index in range(len(self.proposals))
        ]
        last, weights, samples = self.sampler(rays, density_fns=functions)
        return [*samples, last], weights


@lru_cache(maxsize=2)
def _networks(settings: NerfstudioConfig, device: torch.device) -> _Networks:
    """The modules with what they begin with, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        networks = _Networks(settings)
    return networks.to(device).requires_grad_(False)


@contextmanager
def _drawing(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Within it, what draws from the global generator of `device` draws from `generator`."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        own = torch.cuda.default_generators[device.index or 0] if cuda else torch.default_generator
        own.manual_seed(seed)
        yield


class NerfstudioField(LearntField):
    """The value is the logarithm of the density. Its tensors have the names of nerfstudio's parameters: `field....` of
    the field, `proposals.0....` of the first proposal network."""

    def __init__(self, tensors: Mapping[str, Tensor], settings: NerfstudioConfig) -> None:
        self.settings, self.named = settings, dict(tensors)
        self.num_samples = settings.num_samples
        first = next(iter(self.named.values()))
        self.networks = _networks(settings, first.device)
        for name, own in self.networks.named_parameters():
            got = self.named.get(name)
            if got is None or got.shape != own.shape:
                what = "is missing" if got is None else f"has shape {list(got.shape)}"
                raise ValueError(
                    f"the state holds no nerfstudio field of these settings: {name} {what}, and they ask for "
                    f"{list(own.shape)}; use those that it was begun with"
                )
        self._guess: _Guess | None = None
        self._missed: list[Tensor] = []
        self._cells: Tensor | None = None  # while a picture is made: least and greatest density in each

    @classmethod
    def fresh(cls, settings: NerfstudioConfig, device: torch.device | str = "cpu") -> NerfstudioField:
        """What the settings begin with, the same every time."""
        networks = _networks(settings, torch.empty(0, device=device).device)
        return cls({name: each.detach().clone() for name, each in networks.named_parameters()}, settings)

    def _call(self, method: str, *arguments: Any) -> Any:
        # A proposal network has its encoding under two names; tied, they would not be put back.
        return functional_call(self.networks, self.named, (method, *arguments), tie_weights=False)

    def value_at(self, points: Tensor) -> Tensor:
        return self._call("look", points)[0]

    def density_and_color(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return self._call("look", points)[1:]

    def values_and_color(self, points: Tensor) -> tuple[list[Tensor], Tensor]:
        value, _, color = self._call("look", points)
        guesses = [
            self._call("proposed", index, points)[:, 0].clamp_min(_EMPTY).log()
            for index in range(len(self.settings.proposal_samples))
        ]
        return [each / math.log(SOLID) for each in (value, *guesses)], color

    def density_of(self, value: Tensor) -> Tensor:
        return torch.exp(value)

    def density_bounds(self, points: Tensor) -> tuple[Tensor, Tensor]:
        if self._cells is None:
            least = points.new_zeros(points.shape[:-1])
            return least, torch.full_like(least, math.inf)
        return bounds_of(self._cells, rows_of(points, _PICTURE_CELLS))

    def bounds(self) -> tuple[Tensor, Tensor]:
        if self._cells is None:
            low, high = self.networks.field.aabb
            return low, high
        n = _PICTURE_CELLS
        return box_of((self._cells[:, 1] > EMPTY).view(n, n, n))

    @property
    def detail(self) -> float:
        return 1.0 / self.settings.finest_resolution

    @property
    def fit_resolution(self) -> int:
        return self.settings.fit_resolution

    def learning(self) -> dict[str, float]:
        return dict.fromkeys(self.named, 1.0)

    def rates(self, progress: float = 0.0) -> dict[str, float]:
        tables, others = self.settings.table_rate, self.settings.network_rate
        return {name: tables if name.endswith(_TABLE) else others for name in self.named}

    def target(self, solid: Tensor) -> Tensor:
        return 2.0 * solid - 1.0

    def surface_grid(self, resolution: int, level: float | None) -> tuple[np.ndarray, float]:
        assert level is not None
        return self.value_grid(resolution), math.log(level)

    def samples(
        self, origins: Tensor, directions: Tensor, num_samples: int, generator: torch.Generator | None
    ) -> Samples:
        near, far = near_far(origins, directions, *self.bounds())
        met = (far > near).nonzero()[:, 0]
        t, step = (origins.new_zeros(len(origins), num_samples) for _ in range(2))
        self._guess = None
        if not len(met):
            return Samples(t=t, step=step, kept=met.new_zeros(0, 2), points=origins.new_zeros(0, 3))
        rays = RayBundle(
            origins=origins[met],
            directions=directions[met],
            pixel_area=origins.new_ones(len(met), 1),
            nears=near[met, None],
            fars=far[met, None],
        )
        self.networks.sampler.train(generator is not None)
        with nullcontext() if generator is None else _drawing(generator, origins.device):
            samples, weights = self._call("propose", rays, num_samples)
        self._guess = _Guess(rays=met, samples=samples, weights=weights)
        frustums = samples[-1].frustums
        starts, ends, points = frustums.starts[..., 0], frustums.ends[..., 0], frustums.get_positions()
        t[met], step[met] = (starts + ends) / 2, ends - starts
        kept = visible(self, points, ends - starts)
        points = points[kept[:, 0], kept[:, 1]].to(self.kind)
        return Samples(t=t, step=step, kept=torch.stack([met[kept[:, 0]], kept[:, 1]], dim=1), points=points)

    def saw(self, rays: RayRender) -> None:
        guess = self._guess
        if self.settings.interlevel and guess is not None:
            weights = [*guess.weights, rays.weights[guess.rays, :, None]]
            self._missed.append(interlevel_loss(weights, guess.samples))

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
        self._cells = spread(*self.looks(_PICTURE_CELLS))
        try:
            return picture(self, cameras, size, background, num_samples=self.num_samples, **look)
        finally:
            self._cells = None

    def regularisers(self, generator: torch.Generator) -> dict[str, Tensor]:
        """What the proposal networks missed of all that was rendered with a generator since the last call."""
        missed, self._missed = self._missed, []
        return {"interlevel": self.settings.interlevel * torch.stack(missed).mean()} if missed else {}
