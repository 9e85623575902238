"""Settings of how a representation is fitted to views, and of the stage that does only that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from diffusion.limits import check_least, check_range
from gen3d.limits import check_unused
from gen3d.representations.base import RepresentationConfig
from gen3d.schedules import Points, check_points, value_at
from gen3d.stages.base import Beginning, Chosen, Given, StageConfig
from gen3d.stages.configs.checks import check_colors

if TYPE_CHECKING:
    from gen3d.stages.fit import FitViews


@dataclass(frozen=True, kw_only=True)
class FittingConfig:
    """How a representation is fitted to views.

    num_rays: pixels that a step looks at: random ones of all views where the representation is a field, or else as many
        whole pictures, at least one.
    mask, distortion: weights beside the mean squared colour error, numbers or points [[share of the steps, weight],
        ...]: of opacity against the silhouettes, and against fog (the light of a ray comes from one place).
    depth, normals: further weights, where the views have these: of the absolute error of the distance to the surface
        and of the squared one of the normals, each pixel's by its opacity. Normals come late: in front of a hollow that
        is still filled they only hold depth back.
    learning_rate: a number or points, times a factor that falls to learning_rate_decay over the fit, evenly a step.
    refresh_every: after so many steps what is empty is found anew.
    """

    num_rays: int = 1024
    learning_rate: Points = 0.1
    learning_rate_decay: float = 0.1
    mask: Points = 1.0
    distortion: Points = 0.1
    depth: Points = 10.0
    normals: Points = ((0.0, 0.0), (0.5, 0.0), (0.6, 0.3))
    refresh_every: int = 16

    def __post_init__(self) -> None:
        check_least(self, 1, "num_rays", "refresh_every", of="fit")
        for name in self._weights():
            check_points(f"fit {name}", getattr(self, name), 0.0, 1000.0)
        check_points("fit learning_rate", self.learning_rate, 0.0, 10.0)
        check_range(self, 0, 1, "learning_rate_decay", ends="(]", of="fit")

    @classmethod
    def _weights(cls) -> tuple[str, ...]:
        return ("mask", "distortion", "depth", "normals")

    def weights(self, progress: float) -> dict[str, float]:
        """Weights of the losses beside colour, by name, when the share `progress` of the steps is done; none is 0."""
        found = {name: value_at(getattr(self, name), progress) for name in self._weights()}
        return {name: weight for name, weight in found.items() if weight}

    def rate(self, progress: float) -> float:
        """The learning rate when the share `progress` of the steps is done."""
        return value_at(self.learning_rate, progress) * self.learning_rate_decay**progress


@dataclass(frozen=True, kw_only=True)
class FitConfig(FittingConfig, StageConfig):
    """A representation fitted to views that are there: those of an earlier stage, or those that the run was given.

    It goes on with the representation that an earlier stage left; or it begins with the user's mesh or the
    representation's own beginning, which it always does where it names a `representation` of its own, for itself and
    the stages after it.

    num_steps: 0 leaves the stage out. num_levels: the steps in so many even parts; with each the representation takes
        the next of its resolutions.
    hull: begin with the visual hull of the views' silhouettes instead, as a field can; hull_tolerance: share of the
        views that carving may overrule.
    distortion needs a field.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"representation", "init_mesh"})
    reads: ClassVar[frozenset[str]] = frozenset({"views"})
    makes: ClassVar[frozenset[str]] = frozenset({"representation"})

    name: Literal["fit"] = "fit"
    representation: RepresentationConfig | None = None
    num_steps: int = 300
    num_levels: int = 1
    hull: bool = False
    hull_tolerance: float = 0.0
    distortion: Points = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, 0, "num_steps", of="fit")
        if self.num_levels < 1 or self.num_levels > max(self.num_steps, 1):
            raise ValueError(f"fit num_levels must lie in 1..num_steps, got {self.num_levels}")
        check_range(self, 0, 1, "hull_tolerance", ends="[)", of="fit")
        if not self.hull:
            check_unused("fit", self, ["hull_tolerance"], "hull is false")

    @property
    def left_out(self) -> bool:
        return self.num_steps == 0

    @property
    def begins(self) -> Beginning | None:
        return "views" if self.hull else "own"

    @property
    def levels(self) -> int:
        return self.num_levels

    def needs(self) -> frozenset[str]:
        named = {"representation"} if self.representation is not None else set()
        return self.uses - named - ({"init_mesh"} if self.hull else set())

    def check(self, chosen: Chosen) -> None:
        own = self.representation or chosen.representation
        check_colors("fit", own)
        if self.hull and not own.is_field:
            raise ValueError(
                f"hull needs a field, which representation {getattr(own, 'name', '')!r} is not; leave it out"
            )
        if self.distortion != 0.0 and not own.is_field:
            raise ValueError(
                f"distortion needs a field, which representation {getattr(own, 'name', '')!r} is not; set it to 0"
            )

    def build(self, given: Given) -> FitViews:
        from gen3d.stages.fit import FitViews

        return FitViews(self, given)
