"""What an asset is while it is optimised: the joint between stages and representations.

Everything of a representation that changes lives in the State, under `representation/`. A live `Representation` is a
view on those tensors, made anew for every step by the settings it was begun with.

Legend: V views, S x S pixels, C channels, N rays, K samples or points.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from gen3d.asset import Mesh
    from gen3d.cameras import Cameras
    from gen3d.priors.base import ScoringPrior
    from gen3d.state import State
    from gen3d.surface import SurfaceConfig
    from gen3d.views import Views

GROUP = "representation"


@dataclass(frozen=True, kw_only=True)
class RepresentationConfig(ABC):
    """Settings of a representation; the base of all that `representation=` can choose.

    is_field: whether it is a `Field`. unused_of_surface: settings of `SurfaceConfig` that its `to_mesh` does not look
    at.
    """

    is_field: ClassVar[bool] = False
    unused_of_surface: ClassVar[frozenset[str]] = frozenset()

    @property
    def latents(self) -> bool:
        """Whether its colours are the latents of a model."""
        return False

    @property
    def num_channels(self) -> int:
        """C of its colours: 3 for sRGB, or those of a model's latents."""
        return 3

    @abstractmethod
    def begin(self, device: torch.device | str = "cpu") -> Representation:
        """The representation at its beginning, such as a blob."""

    def begin_from(self, mesh: Mesh, device: torch.device | str = "cpu") -> Representation:
        """The representation of a closed mesh within the unit sphere. ValueError where it cannot begin with one."""
        raise ValueError(f"{type(self).__name__} cannot begin with a mesh; leave init_mesh out")

    def takes(self, source: RepresentationConfig) -> bool:
        """Whether `begin_as` can make it of such a representation, without a mesh in between."""
        return False

    def begin_as(self, source: Representation, device: torch.device | str = "cpu") -> Representation:
        """The representation that looks like `source`. ValueError for one that it does not take."""
        raise ValueError(
            f"{type(self).__name__} cannot be made of a {type(source).__name__} directly; go by way of a mesh "
            "(begin_from)"
        )

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor]) -> Representation:
        """The representation that `Representation.tensors` described, sharing them."""

    def check_reworked(self, *, vertices: bool) -> None:  # noqa: B027
        """Refuse, with a ValueError, stages after `to_mesh` that change the colours of its mesh; and its `vertices`."""

    def check_level(self, level: float | None) -> None:  # noqa: B027
        """Refuse a surface level at which what a fit begins with would be empty, one that has no effect, and none where
        there must be one."""

    def check_beginning(self, why: str) -> None:  # noqa: B027
        """Refuse, with a ValueError, settings of its own beginning, which never is; `why`: what it begins with."""

    def check_levels(self, count: int) -> None:  # noqa: B027
        """Refuse, with a ValueError, resolutions beyond the first `count`, which no stage reaches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Where N rays are looked at: t, step, kept and points as of `RayRender`."""

    t: Tensor
    step: Tensor
    kept: Tensor
    points: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class RayRender:
    """What N rays see.

    rgb: `[N, C]`, background included; sRGB in [0, 1] where C is 3. opacity: `[N]` in [0, 1]. depth: `[N]` expected
    distance times opacity (0 where nothing is hit). weights, t: `[N, S]` share of each sample in its ray's colour, and
    its distance. step: `[N]` length of a sample, or `[N, S]` where those of a ray differ. kept: `[K, 2]` (ray, sample)
    of the evaluated samples; points `[K, 3]`. directions: `[N, 3]` unit, from the camera. normals: `[N, 3]` as of
    `Rendered`, where they were asked for.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    weights: Tensor
    t: Tensor
    step: Tensor
    kept: Tensor
    points: Tensor
    directions: Tensor
    normals: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """What V cameras see, all of it differentiable where `images` are.

    images: `[V, C, S, S]`, background included. opacity: `[V, 1, S, S]` in [0, 1]. depth: `[V, 1, S, S]` expected
    distance from the camera (along the ray) times opacity, 0 where nothing is met. normals: `[V, 3, S, S]` outward unit
    normals in the world's axes, each weighted by its share of the pixel, so that they are at most as long as the
    opacity; where they were asked for. rays: what the rays through all pixels met, view by view, where the
    representation was rendered along rays.
    """

    images: Tensor
    opacity: Tensor
    depth: Tensor | None = None
    normals: Tensor | None = None
    rays: RayRender | None = None


class HasNormals(Protocol):
    """What a light falls on."""

    def normals_at(self, points: Tensor) -> Tensor:
        """Outward unit normals [K, 3] at points [K, 3]. Differentiable."""
        ...


# (what is lit, points [K, 3], their colours [K, C]) -> colours under a light.
Shade = Callable[[HasNormals, "Tensor", "Tensor"], "Tensor"]


class Representation(ABC):
    """A shape and its colours, differentiable; see the module's docstring."""

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes, by name."""

    @property
    def num_channels(self) -> int:
        """C of its colours: 3 for sRGB, or those of a model's latents."""
        return 3

    @abstractmethod
    def rates(self, progress: float = 0.0) -> dict[str, float]:
        """Learning rate of each tensor that learns, relative to the stage's, when the share `progress` of the steps is
        done."""

    @abstractmethod
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
        """Pictures by V cameras over `background [V, C]`, differentiable in the tensors that learn.

        With a `generator` as a training step needs them (samples anywhere within their bins); without, as good as can
        be. `shade` gives the colours a light. `normals` asks for those too.
        """

    def learn_colors(self, prior: ScoringPrior) -> None:  # noqa: B027
        """Learn of a prior what its latents look like, where those are its colours."""

    def to_rgb(self, colors: Tensor, share: Tensor | float = 1.0) -> Tensor:
        """sRGB `[..., 3]` of its colours `[..., C]`, both times `share [..., 1]`."""
        return colors

    def render_rgb(
        self, cameras: Cameras, size: int, background: Tensor, *, normals: bool = False
    ) -> Rendered:
        """Pictures as `render` makes them without a generator, in sRGB whatever its colours are, over `background
        [V, 3]`."""
        if self.num_channels == 3:
            return self.render(cameras, size, background, normals=normals)
        blank = background.new_zeros(len(cameras), self.num_channels)
        seen = self.render(cameras, size, blank, normals=normals)
        colors = self.to_rgb(seen.images.movedim(1, -1), seen.opacity.movedim(1, -1)).movedim(-1, 1)
        over = (1.0 - seen.opacity) * background[:, :, None, None]
        return replace(seen, images=(colors + over).clamp(0.0, 1.0))

    @abstractmethod
    def to_mesh(self, settings: SurfaceConfig, views: Views | None) -> Mesh:
        """The surface as a closed mesh with vertex colours; `views` tell where nothing was seen, if there are some."""

    def refresh(self) -> None:  # noqa: B027
        """Note anew what can be left out of rendering, such as cells that are empty."""

    def after_step(
        self, gradients: Mapping[str, Tensor], progress: float, generator: torch.Generator
    ) -> Mapping[str, Tensor] | None:
        """What is done after each step of the optimiser, without gradients: rows may come and go.

        gradients: of that step, by the tensor's name. Values may change in place; where tensors are replaced (in this
        object, by others of the same names), it returns for each of them which old row each new row comes from, int64
        `[rows]` with -1 for a fresh one, so that the optimiser's moments follow. None: nothing was replaced.
        """
        return None

    def level(self, index: int) -> Representation:
        """The same at the `index`-th of its resolutions, from coarse to fine; the last holds on."""
        return self

    def regularisers(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weighted losses of its own, by name: the smoothness of a grid, say."""
        return {}

    def files(self) -> dict[str, bytes]:
        """Files that other programs read it from as it is, by name: what a finished run writes beside the mesh."""
        return {}

    def save(self, state: State) -> None:
        """Into the state, in place of what is there."""
        state.set_group(GROUP, {name: tensor.detach() for name, tensor in self.tensors().items()})


class Field(Representation):
    """A representation that has a density and a colour at every point of [-1, 1]^3, and so can render single rays."""

    num_samples: int

    @abstractmethod
    def density_and_color(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Optical density per unit length [K] and colour [K, C] at points [K, 3], differentiable."""

    @abstractmethod
    def density_bounds(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest density around points [..., 3], both [...], as of the last `refresh`: what is empty or
        hidden by them is not evaluated."""

    @abstractmethod
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Corners [3] and [3] of a box around all that is not empty, as of the last `refresh`."""

    @abstractmethod
    def normals_at(self, points: Tensor) -> Tensor:
        """Outward unit normals [K, 3] at points [K, 3]: where density falls fastest. Differentiable."""

    def samples(
        self, origins: Tensor, directions: Tensor, num_samples: int, generator: torch.Generator | None
    ) -> Samples | None:
        """Where rays `origins`, `directions [N, 3]` (unit) should be looked at, at `num_samples` places each: drawn by
        a `generator`, for training, and without one the same every time. None: evenly, where something may be."""
        return None

    def saw(self, rays: RayRender) -> None:
        """Take note of what was rendered for training."""

    @abstractmethod
    def surface_grid(self, resolution: int, level: float | None) -> tuple[np.ndarray, float]:
        """A function of density on a grid [n, n, n] float32 indexed [x, y, z] on [-1, 1]^3, n at least `resolution`,
        and its value on the surface: where the density is `level`, or where the field has its own. Inside is above."""

    @property
    @abstractmethod
    def detail(self) -> float:
        """Half the size of its finest features, in world units."""

    @abstractmethod
    def carve(self, views: Views, *, tolerance: float) -> None:
        """Become the visual hull of the views' silhouettes, coloured by what they see; `tolerance` is the share of
        them that may say "empty" and be overruled."""


def load(config: RepresentationConfig, state: State) -> Representation:
    """The state's representation, sharing its tensors. ValueError where there is none."""
    tensors = state.group(GROUP)
    if not tensors:
        raise ValueError(
            "the state holds no representation; begin with a stage that makes one, such as reconstruct or distill"
        )
    return config.load(tensors)


def load_field(config: RepresentationConfig, state: State) -> Field:
    """The state's representation, which must be a field. ValueError where it is none."""
    found = load(config, state)
    if not isinstance(found, Field):
        raise ValueError(f"this stage needs a field, which {type(found).__name__} is not")
    return found
