"""Settings of the stage that samples views and fits a field to them, in rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from diffusion.domains import DOMAINS, Domain
from diffusion.limits import check_least, check_range
from gen3d.limits import check_elevations, check_fovy, check_mask_threshold, check_unused
from gen3d.priors.base import PriorConfig, Rules
from gen3d.stages.base import Beginning, Chosen, Given, StageConfig
from gen3d.stages.configs.checks import check_colors, check_multiple, check_start
from gen3d.stages.configs.fit import FittingConfig

if TYPE_CHECKING:
    from gen3d.stages.reconstruct import Reconstruct


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig(StageConfig):
    """Rounds of sampling views and fitting a field to them.

    timesteps: where SDEdit starts, out of 1000, one a round after the first (which starts from noise).
    steps_per_round: fit steps. groups: sets of `group_size` cameras sampled in every round but the first, whose
    only set is the one that agrees with itself. elevations_deg: of the sets, in turn. keep_rounds: the fit sees the
    views of this many last rounds. hull_rounds: the first rounds carve the field anew from their silhouettes;
    hull_tolerance: share of views that carving may overrule. A round takes the next of the representation's
    resolutions. domains: what is drawn of each view, colours and, where the prior can, depth and normals: those of a
    round after its colours, which they are drawn to; in the last `domain_rounds` rounds.
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
    domains: tuple[Domain, ...] = ("color",)
    domain_rounds: int = 3
    fit: FittingConfig = field(default_factory=FittingConfig)

    def __post_init__(self) -> None:
        check_least(
            self,
            1,
            *("steps_per_round", "groups", "group_size", "keep_rounds", "hull_rounds", "domain_rounds"),
            of="reconstruct",
        )
        if any(not 1 <= t <= 1000 for t in self.timesteps):
            raise ValueError(f"reconstruct timesteps must lie in 1..1000, got {list(self.timesteps)}")
        if not self.elevations_deg:
            raise ValueError("reconstruct elevations_deg needs at least one entry")
        check_elevations("reconstruct elevations_deg", self.elevations_deg)
        check_fovy("reconstruct fovy_deg", [self.fovy_deg])
        check_range(self, 0, 1, "hull_tolerance", ends="[)", of="reconstruct")
        check_mask_threshold("reconstruct mask_threshold", self.mask_threshold)
        if "color" not in self.domains or len(set(self.domains)) < len(self.domains):
            raise ValueError(
                f"reconstruct domains must be color and what comes with it, each once, got {list(self.domains)}"
            )
        if self.domains == ("color",):
            check_unused("reconstruct", self, ["domain_rounds"], "domains are colours alone")
        for name in DOMAINS[1:]:
            if name not in self.domains:
                check_unused("reconstruct fit", self.fit, [name], f"reconstruct domains have no {name}")
        if not self.timesteps:
            check_unused("reconstruct", self, ["groups"], "timesteps are empty, so that there is one round")

    @property
    def num_rounds(self) -> int:
        return 1 + len(self.timesteps)

    def draws(self, index: int) -> tuple[Domain, ...]:
        """What round `index` draws beside colours."""
        if index < self.num_rounds - self.domain_rounds:
            return ()
        return tuple(name for name in DOMAINS[1:] if name in self.domains)

    def carves(self, index: int) -> bool:
        """Whether round `index` carves the field anew: the first `hull_rounds`, and those that learn of depth but for
        the last round, for a hollow that was fitted to colours as a full one is slow to open."""
        knows = "depth" in self.draws(index) and index < self.num_rounds - 1
        return index < self.hull_rounds or knows

    @property
    def begins(self) -> Beginning | None:
        return "views"

    @property
    def levels(self) -> int:
        return self.num_rounds

    def heeds(self, chosen: Chosen) -> set[tuple[PriorConfig, str]]:
        return super().heeds(chosen) | ({(chosen.prior, "domains")} if self.domains != ("color",) else set())

    def check(self, chosen: Chosen) -> None:
        own = chosen.representation
        if not own.is_field:
            raise ValueError(
                f"reconstruct needs a field, which representation {getattr(own, 'name', '')!r} is not; choose another, "
                "such as volume"
            )
        check_colors("reconstruct", own)

    def check_rules(self, rules: Callable[[PriorConfig | None], Rules]) -> None:
        own = rules(None)
        check_multiple("reconstruct group_size", self.group_size, own.num_views)
        cannot = [name for name in self.domains if name not in own.domains]
        if cannot:
            raise ValueError(
                f"reconstruct domains have {cannot[0]}, which the prior does not draw; it draws "
                f"{', '.join(own.domains)}"
            )
        check_start("reconstruct", None, own)
        for index, timestep in enumerate(self.timesteps):
            check_start(f"reconstruct timesteps[{index}]", timestep, own)

    def build(self, given: Given) -> Reconstruct:
        from gen3d.stages.reconstruct import Reconstruct

        return Reconstruct(self, given)
