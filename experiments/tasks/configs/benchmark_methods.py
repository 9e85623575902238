"""Settings of `experiments.tasks.benchmark_methods`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from diffusion.limits import check_least, check_range
from experiments.benchmark.config import ScoreConfig, check_asset_settings
from experiments.run.backbones import BackboneConfig
from experiments.run.settings import BackboneName, Settings, Text


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table.

    experiment: that makes its assets; "" takes the benchmark's. settings: more for it, as typed at the command line.
    evaluations: of the network in one step, a condition at a time. sweep: a number among its settings, such as
    distillation.guidance_scale, and sweep_values, of which the one with the best mean IoU on the captions of the sweep
    is taken. seeds: further ones, whose spread is shown.
    """

    experiment: str = ""
    settings: tuple[Text, ...] = ()
    evaluations: float = 2.0
    sweep: str = ""
    sweep_values: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_range(self, 0.0, 1e6, "evaluations", ends="(]")
        if bool(self.sweep) != bool(self.sweep_values):
            raise ValueError(
                "sweep and sweep_values go together: a setting's name, and the numbers to try for it"
            )
        if len(set(self.sweep_values)) != len(self.sweep_values) or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("sweep_values and seeds must hold each number once")
        for value in self.sweep_values:
            if not math.isfinite(value):
                raise ValueError(f"sweep_values holds {value}; it must hold finite numbers")
        check_asset_settings("settings", self.settings)


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """One table of methods: the same captions, the same columns, a row each.

    methods: by name. only: those of them to take; none is all.
    method: the experiment of rows that name none. asset_budget: its budget.
    evaluations: of the network that each asset may take, which sets steps_key; 0 leaves every method its own number of
        steps.
    num_things, num_pairs, num_heads: how many held-out captions of each kind. num_sweep: how many further things a
        sweep is made on. num_seeded: on how many of the captions further seeds are tried.
    assets_at_once: how many are made at a time, each with `threads` of its own; their seconds are then those of a
        machine that they share.
    clip: name or folder of the backbone whose CLIP towers measure R-precision; None takes `backbone`.
    """

    methods: dict[str, Method]
    only: tuple[str, ...] = ()
    method: str = "baseline/mvdream"
    asset_budget: str = "cpu"
    evaluations: int = 400
    steps_key: str = "recipe.distill.num_steps"
    num_things: int = 8
    num_pairs: int = 0
    num_heads: int = 0
    num_sweep: int = 2
    num_seeded: int = 4
    assets_at_once: int = 1
    backbone: BackboneConfig
    clip: BackboneName | None = None
    scoring: ScoreConfig = field(default_factory=ScoreConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.methods:
            raise ValueError("methods is empty; name at least one")
        unknown = [name for name in self.only if name not in self.methods]
        if unknown:
            raise ValueError(f"only names {unknown[0]!r}; there are {', '.join(self.methods)}")
        counts = ("num_things", "num_pairs", "num_heads", "num_sweep", "num_seeded", "evaluations")
        check_least(self, 0, *counts)
        check_least(self, 1, "assets_at_once")
        if not self.num_things + self.num_pairs + self.num_heads:
            raise ValueError("num_things, num_pairs and num_heads are all 0; at least one must be more")
        for name, one in self.chosen.items():
            if self.evaluations and self.steps(one) < 1:
                raise ValueError(
                    f"evaluations is {self.evaluations}, too few for one step of {name!r}, which takes "
                    f"{one.evaluations:g}"
                )

    @property
    def chosen(self) -> dict[str, Method]:
        """The methods to take, in the table's order."""
        return {name: one for name, one in self.methods.items() if not self.only or name in self.only}

    def steps(self, method: Method) -> int:
        """How many steps its evaluations are enough for."""
        return round(self.evaluations / method.evaluations)
