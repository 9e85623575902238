"""Settings of the stages that make a mesh and work on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from diffusion.limits import check_least, check_range
from gen3d.delight_config import DelightConfig
from gen3d.limits import check_elevations, check_fovy, check_mask_threshold, check_unused
from gen3d.priors.base import PriorConfig, Rules
from gen3d.stages.base import Chosen, Given, StageConfig
from gen3d.stages.configs.checks import check_multiple, check_start
from gen3d.surface import SurfaceConfig

if TYPE_CHECKING:
    from gen3d.stages.extract import ExtractMesh
    from gen3d.stages.redraw import Redraw
    from gen3d.stages.refine import RefineMesh
    from gen3d.stages.texture import Texture


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(SurfaceConfig, StageConfig):
    """The surface of a representation as a mesh, with the settings of `gen3d.surface`."""

    uses: ClassVar[frozenset[str]] = frozenset({"representation"})
    reads: ClassVar[frozenset[str]] = frozenset({"representation"})
    makes: ClassVar[frozenset[str]] = frozenset({"mesh"})

    name: Literal["extract"] = "extract"

    def check(self, chosen: Chosen) -> None:
        own = chosen.representation
        own.check_level(self.level)
        unused = sorted(own.unused_of_surface)
        check_unused("extract", self, unused, f"the representation is {getattr(own, 'name', '')}")

    def build(self, given: Given) -> ExtractMesh:
        from gen3d.stages.extract import ExtractMesh

        return ExtractMesh(self, given.chosen.representation)


@dataclass(frozen=True, kw_only=True)
class RefineConfig(StageConfig):
    """Vertices and vertex colours moved to match the views.

    vertex_rate, color_rate: learning rates, falling to zero along a cosine. Weights beside the mean squared colour
    error: mask, laplacian (in mean edge lengths), normal_consistency of neighbouring faces, and, where the views have
    some, the squared error of normals. num_steps 0 leaves the stage out.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"mesh", "views"})

    name: Literal["refine"] = "refine"
    num_steps: int = 60
    views_per_step: int = 4
    vertex_rate: float = 2e-3
    color_rate: float = 2e-2
    mask: float = 1.0
    laplacian: float = 0.15
    normal_consistency: float = 0.08
    normals: float = 0.1

    def __post_init__(self) -> None:
        check_least(self, 0, "num_steps", of="refine")
        check_least(self, 1, "views_per_step", of="refine")
        check_range(self, 0, 0.1, "vertex_rate", of="refine")
        check_range(self, 0, 1, "color_rate", of="refine")
        check_range(self, 0, 1000, "mask", "laplacian", "normal_consistency", "normals", of="refine")

    @property
    def left_out(self) -> bool:
        return self.num_steps == 0

    def check(self, chosen: Chosen) -> None:
        chosen.representation.check_reworked(vertices=self.vertex_rate > 0)

    def build(self, given: Given) -> RefineMesh:
        from gen3d.stages.refine import RefineMesh

        return RefineMesh(self)


@dataclass(frozen=True, kw_only=True)
class RedrawConfig(StageConfig):
    """The mesh drawn once more by the prior.

    timestep: where SDEdit starts, out of 1000; 0 leaves the stage out. num_views: evenly around, the first from
        straight ahead; a multiple of what the prior sees together. elevation_deg, fovy_deg: of all of them.
    keep_views: how many of the latest views stay beside the new ones. mask_threshold: as of `gen3d.masks.soft_mask`.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"prior"})
    samples: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset({"mesh", "views"})
    makes: ClassVar[frozenset[str]] = frozenset({"views"})

    name: Literal["redraw"] = "redraw"
    timestep: int = 600
    num_views: int = 8
    elevation_deg: float = 10.0
    fovy_deg: float = 40.0
    keep_views: int = 8
    mask_threshold: float = 0.06

    def __post_init__(self) -> None:
        check_range(self, 0, 1000, "timestep", of="redraw")
        check_least(self, 1, "num_views", of="redraw")
        check_least(self, 0, "keep_views", of="redraw")
        check_elevations("redraw elevation_deg", [self.elevation_deg])
        check_fovy("redraw fovy_deg", [self.fovy_deg])
        check_mask_threshold("redraw mask_threshold", self.mask_threshold)

    @property
    def left_out(self) -> bool:
        return self.timestep == 0

    def check_rules(self, rules: Callable[[PriorConfig | None], Rules]) -> None:
        own = rules(None)
        check_multiple("redraw num_views", self.num_views, own.num_views)
        check_start("redraw timestep", self.timestep, own)

    def build(self, given: Given) -> Redraw:
        from gen3d.stages.redraw import Redraw

        return Redraw(self, given)


@dataclass(frozen=True, kw_only=True)
class TextureConfig(StageConfig):
    """A texture of the mesh's colours and the views.

    size: texels along an edge; 0 leaves the stage out. views_weight: how much the views count against the mesh's own
        colours where they see the surface squarely; 0 bakes the mesh's colours alone. sharpness: power of the cosine
        between a view's direction and the surface, by which views are mixed. delight: how the views' light is taken
        out.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"mesh", "views"})

    name: Literal["texture"] = "texture"
    size: int = 1024
    views_weight: float = 1.0
    sharpness: float = 4.0
    delight: DelightConfig = field(default_factory=DelightConfig)

    def __post_init__(self) -> None:
        if self.size:
            check_range(self, 16, 8192, "size", of="texture")
        check_range(self, 0, 1000, "views_weight", "sharpness", of="texture")

        if self.size == 0:
            check_unused("texture", self, ["views_weight", "sharpness"], "size is 0")

    @property
    def left_out(self) -> bool:
        return self.size == 0

    def check(self, chosen: Chosen) -> None:
        chosen.representation.check_reworked(vertices=False)

    def build(self, given: Given) -> Texture:
        from gen3d.stages.texture import Texture

        return Texture(self)
