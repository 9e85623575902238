"""Settings of the stages; nothing here needs torch before `build`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from gen3d.camera_sampling.base import CameraSampler
from gen3d.camera_sampling.orbit import Orbit
from gen3d.delight_config import DelightConfig
from gen3d.distillation.annealing import AnnealingConfig
from gen3d.distillation.base import Loss
from gen3d.limits import check_elevations, check_fovy, check_mask_threshold, check_unused
from gen3d.priors.base import PriorConfig, Rules
from gen3d.schedules import Points, check_points
from gen3d.stages.base import Chosen, Given, StageConfig
from gen3d.surface import SurfaceConfig

if TYPE_CHECKING:
    from gen3d.stages.distill import Distill
    from gen3d.stages.extract import ExtractMesh
    from gen3d.stages.picture import TakePictures
    from gen3d.stages.reconstruct import Reconstruct
    from gen3d.stages.redraw import Redraw
    from gen3d.stages.refine import RefineMesh
    from gen3d.stages.texture import Texture


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a field is fitted to views.

    num_rays: a step. mask, distortion: weights beside the mean squared colour error: of opacity against the
        silhouettes, and against fog (the light of a ray comes from one place).
    learning_rate: falls to learning_rate * learning_rate_decay over a fit (all rounds together), by a constant factor
        a step.
    refresh_every: after so many steps what is empty is found anew.
    """

    num_rays: int = 1024
    learning_rate: float = 0.1
    learning_rate_decay: float = 0.1
    mask: float = 1.0
    distortion: float = 0.1
    refresh_every: int = 16

    def __post_init__(self) -> None:
        for name in ("num_rays", "refresh_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"fit {name} must be at least 1, got {getattr(self, name)}")
        for name in ("mask", "distortion"):
            if not 0 <= getattr(self, name) <= 1000:
                raise ValueError(
                    f"fit {name} is a weight and must lie in 0..1000, got {getattr(self, name):g}"
                )
        if not 0 < self.learning_rate <= 10:
            raise ValueError(f"fit learning_rate must lie above 0 and up to 10, got {self.learning_rate:g}")
        if not 0 < self.learning_rate_decay <= 1:
            raise ValueError(
                f"fit learning_rate_decay must lie above 0 and up to 1, got {self.learning_rate_decay}"
            )


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig(StageConfig):
    """Rounds of sampling views and fitting a field to them.

    timesteps: where SDEdit starts, out of 1000, one a round after the first (which starts from noise).
    steps_per_round: fit steps. groups: sets of `group_size` cameras sampled in every round but the first, whose
    only set is the one that agrees with itself. elevations_deg: of the sets, in turn. keep_rounds: the fit sees the
    views of this many last rounds. hull_rounds: the first rounds carve the field anew from their silhouettes;
    hull_tolerance: share of views that carving may overrule. A round takes the next of the representation's
    resolutions.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"prior", "representation"})
    samples: ClassVar[bool] = True
    makes: ClassVar[frozenset[str]] = frozenset({"representation", "views"})

    name: Literal["reconstruct"] = "reconstruct"
    timesteps: tuple[int, ...] = (800, 600, 450, 300, 200)
    steps_per_round: int = 60
    groups: int = 1
    group_size: int = 8
    elevations_deg: tuple[float, ...] = (15.0, 35.0, 0.0, 25.0, -10.0, 30.0)
    fovy_deg: float = 40.0
    keep_rounds: int = 3
    hull_rounds: int = 1
    hull_tolerance: float = 0.0
    mask_threshold: float = 0.06
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        for name in ("steps_per_round", "groups", "group_size", "keep_rounds", "hull_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"reconstruct {name} must be at least 1, got {getattr(self, name)}")
        if any(not 1 <= t <= 1000 for t in self.timesteps):
            raise ValueError(f"reconstruct timesteps must lie in 1..1000, got {list(self.timesteps)}")
        if not self.elevations_deg:
            raise ValueError("reconstruct elevations_deg needs at least one entry")
        check_elevations("reconstruct elevations_deg", self.elevations_deg)
        check_fovy("reconstruct fovy_deg", [self.fovy_deg])
        if not 0.0 <= self.hull_tolerance < 1.0:
            raise ValueError(f"reconstruct hull_tolerance must lie in [0, 1), got {self.hull_tolerance}")
        check_mask_threshold("reconstruct mask_threshold", self.mask_threshold)
        if not self.timesteps:
            check_unused("reconstruct", self, ["groups"], "timesteps are empty, so that there is one round")

    @property
    def num_rounds(self) -> int:
        return 1 + len(self.timesteps)

    def check_rules(self, rules: Callable[[PriorConfig | None], Rules]) -> None:
        own = rules(None)
        _check_multiple("reconstruct group_size", self.group_size, own.num_views)
        _check_start("reconstruct", None, own)
        for index, timestep in enumerate(self.timesteps):
            _check_start(f"reconstruct timesteps[{index}]", timestep, own)

    def build(self, given: Given) -> Reconstruct:
        from gen3d.stages.reconstruct import Reconstruct

        return Reconstruct(self, given)


@dataclass(frozen=True, kw_only=True)
class ShadingConfig:
    """Light in the pictures that a prior is shown, where the representation has normals (DreamFusion, section 3.2).

    probability: of a step with a point light instead of plain colours. textureless: share of those with a white
    surface, which must have shape to be seen. ambient: light from everywhere, beside 1 - ambient from the lamp.
    begin: share of the steps before the first shaded one.
    """

    probability: float = 0.0
    textureless: float = 0.5
    ambient: float = 0.1
    begin: float = 0.0

    def __post_init__(self) -> None:
        for name in ("probability", "textureless", "ambient", "begin"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"shading {name} must lie in 0..1, got {getattr(self, name):g}")
        if self.probability == 0.0:
            check_unused("shading", self, ["textureless", "ambient", "begin"], "probability is 0")


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """One opinion that a distillation follows: a loss over a prior's scores, times `weight`, a number or points
    [[share of the steps, weight], ...]. prior, loss: None for the run's."""

    prior: PriorConfig | None = None
    loss: Loss | None = None
    weight: Points = 1.0

    def __post_init__(self) -> None:
        check_points("guidance weight", self.weight, 0.0, 1e6)


@dataclass(frozen=True, kw_only=True)
class DistillConfig(StageConfig):
    """Score distillation: pictures of a representation are pulled to what priors make of them.

    It begins with the representation that an earlier stage left, or else with the user's mesh, or the representation's
    own beginning.

    num_steps: 0 leaves the stage out. num_views: a step; a multiple of what the priors see together.
    render_size: pixels of the pictures, enlarged to the prior's size; one for each part of the steps, evenly, from
        coarse to fine. The representation takes its next resolution with each.
    learning_rate: a number or points [[share of the steps, rate], ...].
    background: behind the object: `asked` is the plain colour that the prompt asks for (or that of earlier views),
        `random` a colour a view, `learned` one that is optimised with `background_rate`, from the asked one.
    max_gradient: the latent gradient of an object is scaled down to this RMS.
    sparsity, opaque, orient, distortion: weights, numbers or points, of fewer filled rays, of rays that are stopped or
        pass, of visible normals that face away, and against fog. The last two need a field.
    guidances: by name; none is the run's own prior and loss.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"prior", "representation", "distillation", "init_mesh"})
    makes: ClassVar[frozenset[str]] = frozenset({"representation"})

    name: Literal["distill"] = "distill"
    num_steps: int = 400
    num_views: int = 4
    render_size: tuple[int, ...] = (64,)
    learning_rate: Points = 0.05
    background: Literal["asked", "random", "learned"] = "asked"
    background_rate: float = 0.001
    max_gradient: float = 1.0
    sparsity: Points = 0.0
    opaque: Points = 0.01
    orient: Points = 0.0
    distortion: Points = 0.0
    refresh_every: int = 8
    cameras: CameraSampler = field(default_factory=Orbit)
    annealing: AnnealingConfig = field(default_factory=AnnealingConfig)
    shading: ShadingConfig = field(default_factory=ShadingConfig)
    guidances: dict[str, Guidance] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_steps < 0:
            raise ValueError(f"distill num_steps must not be negative, got {self.num_steps}")
        for name in ("num_views", "refresh_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"distill {name} must be at least 1, got {getattr(self, name)}")
        if not self.render_size or any(not 8 <= size <= 2048 for size in self.render_size):
            raise ValueError(f"distill render_size must lie in 8..2048, got {list(self.render_size)}")
        check_points("distill learning_rate", self.learning_rate, 0.0, 10.0)
        for name in ("sparsity", "opaque", "orient", "distortion"):
            check_points(f"distill {name}", getattr(self, name), 0.0, 1e6)
        for name, high in (("background_rate", 10), ("max_gradient", 1000)):
            if not 0 < getattr(self, name) <= high:
                raise ValueError(
                    f"distill {name} must lie above 0 and up to {high}, got {getattr(self, name):g}"
                )
        if self.background != "learned":
            check_unused("distill", self, ["background_rate"], f"background is {self.background}")

    @property
    def left_out(self) -> bool:
        return self.num_steps == 0

    def opinions(self) -> dict[str, Guidance]:
        """The guidances; where none is named, the run's own."""
        return dict(self.guidances) or {"guidance": Guidance()}

    def priors(self, chosen: Chosen) -> list[PriorConfig]:
        return [one.prior or chosen.prior for one in self.opinions().values()]

    def heeds(self, chosen: Chosen) -> set[tuple[PriorConfig, str]]:
        opinions = [
            (one.prior or chosen.prior, one.loss or chosen.distillation) for one in self.opinions().values()
        ]
        return {(prior, word) for prior, loss in opinions if loss is not None for word in loss.heeds()}

    def needs(self) -> frozenset[str]:
        opinions = self.opinions().values()
        named = {
            "prior" if all(one.prior is not None for one in opinions) else "",
            "distillation" if all(one.loss is not None for one in opinions) else "",
        }
        return self.uses - named

    def check(self, chosen: Chosen) -> None:
        for name, one in self.opinions().items():
            prior = one.prior or chosen.prior
            if not prior.predicts:
                raise ValueError(
                    f"{name}: prior {getattr(prior, 'name', '')!r} has finished pictures and no scores to distil; "
                    "choose another prior"
                )
            loss = one.loss or chosen.distillation
            if loss is not None:
                check_wants(name, loss, prior, chosen.negative_prompt)

    def check_rules(self, rules: Callable[[PriorConfig | None], Rules]) -> None:
        self.views_together(rules)

    def views_together(self, rules: Callable[[PriorConfig | None], Rules]) -> int:
        """How many views of an object are looked at together: as many as the prior that sees the most. ValueError where
        the priors' numbers of views, and that of a step, are no multiples of each other."""
        seen = {name: rules(one.prior).num_views for name, one in self.opinions().items()}
        together = max(seen.values())
        for name, views in seen.items():
            if together % views:
                raise ValueError(
                    f"the prior of {name!r} sees {views} views together, and another one {together}, which is no "
                    "multiple of it: distil from one of them"
                )
        _check_multiple("distill num_views", self.num_views, together)
        return together

    def build(self, given: Given) -> Distill:
        from gen3d.stages.distill import Distill

        return Distill(self, given)


@dataclass(frozen=True, kw_only=True)
class PictureConfig(StageConfig):
    """Pictures of the representation, taken as views for the stages that come after: `refine` and `texture`.

    num_views, elevations_deg: evenly around, on one ring an elevation. fovy_deg: vertical field of view. size: pixels
    along an edge.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"representation"})
    reads: ClassVar[frozenset[str]] = frozenset({"representation"})
    makes: ClassVar[frozenset[str]] = frozenset({"views"})

    name: Literal["picture"] = "picture"
    num_views: int = 8
    elevations_deg: tuple[float, ...] = (-15.0, 15.0, 45.0)
    fovy_deg: float = 40.0
    size: int = 128

    def __post_init__(self) -> None:
        if not 1 <= self.num_views <= 1000:
            raise ValueError(f"picture num_views must lie in 1..1000, got {self.num_views}")
        if not self.elevations_deg:
            raise ValueError("picture elevations_deg needs at least one entry")
        check_elevations("picture elevations_deg", self.elevations_deg)
        check_fovy("picture fovy_deg", [self.fovy_deg])
        if not 16 <= self.size <= 4096:
            raise ValueError(f"picture size must lie in 16..4096, got {self.size}")

    def build(self, given: Given) -> TakePictures:
        from gen3d.stages.picture import TakePictures

        return TakePictures(self, given)


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(SurfaceConfig, StageConfig):
    """The surface of a representation as a mesh, with the settings of `gen3d.surface`."""

    uses: ClassVar[frozenset[str]] = frozenset({"representation"})
    reads: ClassVar[frozenset[str]] = frozenset({"representation"})
    makes: ClassVar[frozenset[str]] = frozenset({"mesh"})

    name: Literal["extract"] = "extract"

    def check(self, chosen: Chosen) -> None:
        chosen.representation.check_level(self.level)

    def build(self, given: Given) -> ExtractMesh:
        from gen3d.stages.extract import ExtractMesh

        return ExtractMesh(self, given.chosen.representation)


@dataclass(frozen=True, kw_only=True)
class RefineConfig(StageConfig):
    """Vertices and vertex colours moved to match the views.

    vertex_rate, color_rate: learning rates, falling to zero along a cosine. Weights beside the mean squared colour
    error: mask, laplacian (in mean edge lengths), normal_consistency. num_steps 0 leaves the stage out.
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

    def __post_init__(self) -> None:
        if self.num_steps < 0:
            raise ValueError(f"refine num_steps must not be negative, got {self.num_steps}")
        if self.views_per_step < 1:
            raise ValueError(f"refine views_per_step must be at least 1, got {self.views_per_step}")
        for name, high in (
            ("vertex_rate", 0.1), ("color_rate", 1), ("mask", 1000), ("laplacian", 1000), ("normal_consistency", 1000)
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= high:
                raise ValueError(f"refine {name} must lie in 0..{high}, got {getattr(self, name):g}")

    @property
    def left_out(self) -> bool:
        return self.num_steps == 0

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
        if not 0 <= self.timestep <= 1000:
            raise ValueError(f"redraw timestep must lie in 0..1000, got {self.timestep}")
        if self.num_views < 1:
            raise ValueError(f"redraw num_views must be at least 1, got {self.num_views}")
        if self.keep_views < 0:
            raise ValueError(f"redraw keep_views must not be negative, got {self.keep_views}")
        check_elevations("redraw elevation_deg", [self.elevation_deg])
        check_fovy("redraw fovy_deg", [self.fovy_deg])
        check_mask_threshold("redraw mask_threshold", self.mask_threshold)

    @property
    def left_out(self) -> bool:
        return self.timestep == 0

    def check_rules(self, rules: Callable[[PriorConfig | None], Rules]) -> None:
        own = rules(None)
        _check_multiple("redraw num_views", self.num_views, own.num_views)
        _check_start("redraw timestep", self.timestep, own)

    def build(self, given: Given) -> Redraw:
        from gen3d.stages.redraw import Redraw

        return Redraw(self, given)


@dataclass(frozen=True, kw_only=True)
class TextureConfig(StageConfig):
    """A texture of the mesh's colours and the views.

    size: texels along an edge. views_weight: how much the views count against the mesh's own colours where they see
        the surface squarely; 0 bakes the mesh's colours alone. sharpness: power of the cosine between a view's
        direction and the surface, by which views are mixed. delight: how the views' light is taken out.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"mesh", "views"})

    name: Literal["texture"] = "texture"
    size: int = 1024
    views_weight: float = 1.0
    sharpness: float = 4.0
    delight: DelightConfig = field(default_factory=DelightConfig)

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 8192:
            raise ValueError(f"texture size must lie in 16..8192 texels, got {self.size}")
        for name in ("views_weight", "sharpness"):
            if not 0 <= getattr(self, name) <= 1000:
                raise ValueError(f"texture {name} must lie in 0..1000, got {getattr(self, name):g}")

    def build(self, given: Given) -> Texture:
        from gen3d.stages.texture import Texture

        return Texture(self)


def check_wants(name: str, loss: Loss, prior: PriorConfig, negative_prompt: str) -> None:
    """Refuse, with a ValueError, a loss that needs words which the prior of the guidance `name` does not have."""
    lacks = loss.wants() - {"source_latents"} - prior.conditions(negative_prompt)
    about = f"{name}: distillation {getattr(loss, 'name', '')!r}"
    if "negative" in lacks:
        raise ValueError(f"{about} is steered by a negative_prompt; give one, such as 'blurry, low quality'")
    if lacks:
        raise ValueError(
            f"{about} needs the prior's {' and '.join(sorted(lacks))} words, which prior "
            f"{getattr(prior, 'name', '')!r} does not have; choose another prior or another loss"
        )


def _check_multiple(name: str, count: int, num_views: int) -> None:
    if count % num_views:
        raise ValueError(
            f"{name} must be a multiple of the {num_views} views that the prior sees together, got {count}"
        )


def _check_start(name: str, timestep: int | None, rules: Rules) -> None:
    try:
        rules.check_start(timestep)
    except ValueError as error:
        raise ValueError(f"{name} does not go with the prior: {error}") from None
