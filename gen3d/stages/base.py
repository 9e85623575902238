"""The joint between recipes and stages: what a stage is told of, and how it is built.

Nothing here imports torch before it is used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

if TYPE_CHECKING:
    import torch

    from gen3d.asset import Mesh
    from gen3d.distillation.base import Loss
    from gen3d.optimize import Stage
    from gen3d.priors.base import Prior, PriorConfig, Request, Rules
    from gen3d.representations.base import RepresentationConfig
    from gen3d.views import Views

# What a stage begins a representation with: its own beginning or the user's mesh, views, or another representation.
Beginning = Literal["own", "views", "other"]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a run has chosen for its stages, which take it where their own settings name nothing else.

    negative_prompt: the words to keep away from, as far as they are known.
    """

    prior: PriorConfig
    representation: RepresentationConfig
    distillation: Loss | None = None
    negative_prompt: Annotated[str, "text"] = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What stages are built with. request: what is wanted of the models. device: of the tensors in the State.

    init_mesh: what a stage begins with that has no representation yet, closed and within the unit sphere; None for
        the representation's own beginning.
    views: those that the run was given, for stages that need views where no stage before them leaves some.
    share: which of how many processes this one is; they split the views of a distillation step.
    """

    chosen: Chosen
    request: Request
    device: torch.device | str = "cpu"
    init_mesh: Mesh | None = None
    views: Views | None = None
    share: tuple[int, int] = (0, 1)
    _built: dict[PriorConfig, Prior] = field(default_factory=dict, init=False, repr=False)

    def prior(self, config: PriorConfig | None = None) -> Prior:
        """The prior of a stage, None for the run's; one for all that ask for the same."""
        config = config or self.chosen.prior
        if config not in self._built:
            self._built[config] = config.build(self.request)
        return self._built[config]

    def choosing(self, chosen: Chosen) -> Given:
        """The same with other choices; a prior that was built stays built."""
        other = replace(self, chosen=chosen)
        object.__setattr__(other, "_built", self._built)
        return other


@dataclass(frozen=True, kw_only=True)
class StageConfig(ABC):
    """Settings of a stage; the base of all that `stage=` can choose.

    uses: which of "prior", "representation", "distillation" and "init_mesh" of a run it takes. samples: whether it asks
    the run's prior for finished pictures. reads, makes: which of "representation", "views" and "mesh" it needs in the
    State, and leaves there.
    """

    uses: ClassVar[frozenset[str]] = frozenset()
    samples: ClassVar[bool] = False
    reads: ClassVar[frozenset[str]] = frozenset()
    makes: ClassVar[frozenset[str]] = frozenset()

    @property
    def left_out(self) -> bool:
        """Whether its settings say that there is nothing to do."""
        return False

    def needs(self) -> frozenset[str]:
        """Those of `uses` that these settings do not name themselves."""
        return self.uses

    @property
    def begins(self) -> Beginning | None:
        """What it begins a representation with: "own" where there is none yet, or where it has a `representation` of
        its own; otherwise whatever there is. None: it begins none."""
        return None

    @property
    def levels(self) -> int:
        """How many of the representation's resolutions it goes through, 0 if it changes none."""
        return 0

    def hands_on(self, chosen: Chosen) -> Chosen:
        """What is chosen for the stages after it: the `representation` that it names itself, if it does."""
        own = getattr(self, "representation", None)
        return chosen if own is None else replace(chosen, representation=own)

    def priors(self, chosen: Chosen) -> list[PriorConfig]:
        """Those that it asks."""
        return [chosen.prior] if "prior" in self.uses else []

    def heeds(self, chosen: Chosen) -> set[tuple[PriorConfig, str]]:
        """Which words of which priors it follows where there are some, beside the prompt: "negative" and "source"; and
        "domains" of those that it asks for depth or normals."""
        return {(chosen.prior, "negative")} if self.samples else set()

    def check(self, chosen: Chosen) -> None:  # noqa: B027
        """Refuse what does not go together, with a ValueError, before any model is loaded."""

    def check_rules(self, rules: Callable[[PriorConfig | None], Rules]) -> None:  # noqa: B027
        """Refuse, with a ValueError, what its priors cannot be asked for. rules: those of a prior, None for the run's;
        from the facts of a backbone before it is loaded, and from the built priors when it is."""

    @abstractmethod
    def build(self, given: Given) -> Stage:
        """The stage; ValueError where it does not go with the models that were loaded."""
