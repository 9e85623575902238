"""Settings of score distillation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from diffusion.limits import check_least, check_range
from gen3d.camera_sampling.base import CameraSampler
from gen3d.camera_sampling.orbit import Orbit
from gen3d.distillation.annealing import AnnealingConfig
from gen3d.distillation.base import Loss
from gen3d.limits import check_unused
from gen3d.priors.base import PriorConfig, Rules
from gen3d.schedules import Points, check_points
from gen3d.stages.base import Beginning, Chosen, Given, StageConfig
from gen3d.stages.configs.checks import check_multiple

if TYPE_CHECKING:
    from gen3d.stages.distill import Distill


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
        check_range(self, 0, 1, "probability", "textureless", "ambient", "begin", of="shading")
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

    A representation of latents is shown to the prior as it is, at the size of the prior's latents.

    num_steps: 0 leaves the stage out. num_views: a step; a multiple of what the priors see together.
    render_size: pixels of the pictures, enlarged to the prior's size; one for each part of the steps, evenly, from
        coarse to fine. The representation takes its next resolution with each.
    learning_rate: a number or points [[share of the steps, rate], ...].
    background: behind the object: `asked` is the plain colour that the prompt asks for (or that of earlier views),
        `random` a colour a view, `learned` one that is optimised with `background_rate`, from the asked one.
    clip: each number of a gradient is held within -clip..clip, a number or points (Debiased-SDS, arXiv 2303.15413); 0
        leaves them as they are. max_gradient: then the latent gradient of an object is scaled down to this RMS.
    sparsity, opaque, orient, distortion, z_variance: weights, numbers or points, of fewer filled rays, of rays that are
        stopped or pass, of visible normals that face away, against fog, and of surfaces that are thin (HiFA). The last
        three need a field.
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
    clip: Points = 0.0
    max_gradient: float = 1.0
    sparsity: Points = 0.0
    opaque: Points = 0.01
    orient: Points = 0.0
    distortion: Points = 0.0
    z_variance: Points = 0.0
    refresh_every: int = 8
    cameras: CameraSampler = field(default_factory=Orbit)
    annealing: AnnealingConfig = field(default_factory=AnnealingConfig)
    shading: ShadingConfig = field(default_factory=ShadingConfig)
    guidances: dict[str, Guidance] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_least(self, 0, "num_steps", of="distill")
        check_least(self, 1, "num_views", "refresh_every", of="distill")
        if not self.render_size or any(not 8 <= size <= 2048 for size in self.render_size):
            raise ValueError(f"distill render_size must lie in 8..2048, got {list(self.render_size)}")
        check_points("distill learning_rate", self.learning_rate, 0.0, 10.0)
        for name in ("clip", "sparsity", "opaque", "orient", "distortion", "z_variance"):
            check_points(f"distill {name}", getattr(self, name), 0.0, 1e6)
        check_range(self, 0, 10, "background_rate", ends="(]", of="distill")
        check_range(self, 0, 1000, "max_gradient", ends="(]", of="distill")
        if self.background != "learned":
            check_unused("distill", self, ["background_rate"], f"background is {self.background}")

    @property
    def left_out(self) -> bool:
        return self.num_steps == 0

    @property
    def begins(self) -> Beginning | None:
        return "own"

    @property
    def levels(self) -> int:
        return len(self.render_size)

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
        if not chosen.representation.is_field:
            kind = getattr(chosen.representation, "name", "")
            check_unused(
                "distill",
                self,
                ["orient", "distortion", "z_variance"],
                f"the representation, {kind}, is no field",
            )
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
            if chosen.representation.latents and loss is not None and loss.looks_at_images:
                raise ValueError(
                    f"{name}: distillation {getattr(loss, 'name', '')!r} looks at pictures, and the representation's "
                    "colours are latents; give it colors: rgb"
                )
        if chosen.representation.latents and self.background == "random":
            raise ValueError(
                "background random is of colours, and the representation's are latents; give asked or learned"
            )
        if chosen.representation.latents and self.shading.probability:
            raise ValueError(
                "shading is of colours, and the representation's are latents; give probability 0"
            )

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
        check_multiple("distill num_views", self.num_views, together)
        return together

    def build(self, given: Given) -> Distill:
        from gen3d.stages.distill import Distill

        return Distill(self, given)


def check_wants(name: str, loss: Loss, prior: PriorConfig, negative_prompt: str) -> None:
    """Refuse, with a ValueError, a loss that needs words which the prior of the guidance `name` does not have."""
    lacks = loss.wants() - {"source_latents", "surface"} - prior.conditions(negative_prompt)
    about = f"{name}: distillation {getattr(loss, 'name', '')!r}"
    if "negative" in lacks:
        raise ValueError(f"{about} is steered by a negative_prompt; give one, such as 'blurry, low quality'")
    if "tuning" in lacks:
        raise ValueError(
            f"{about} trains a copy of the prior's model, and prior {getattr(prior, 'name', '')!r} has none that could "
            "learn; choose another prior or another loss"
        )
    if lacks:
        raise ValueError(
            f"{about} needs the prior's {' and '.join(sorted(lacks))} words, which prior "
            f"{getattr(prior, 'name', '')!r} does not have; choose another prior or another loss"
        )
