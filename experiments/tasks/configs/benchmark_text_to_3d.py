"""Settings of `experiments.tasks.benchmark_text_to_3d`."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion.limits import check_least
from experiments.benchmark.config import ScoreConfig, check_asset_settings
from experiments.run.backbones import BackboneConfig
from experiments.run.settings import BackboneName, FilePath, Settings, Text


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """num_things, num_pairs, num_heads: how many held-out captions of each kind; not used when `prompts` is given.

    prompts: a file with one caption a line instead.
    method: the experiment that makes each asset, with asset_budget as its budget, and asset_settings, more
        settings for it as typed at the command line, such as ["checkpoint_every=10"].
    assets_at_once: how many are made at a time, each with `threads` of its own; their seconds are then those of a
        machine that they share.
    asset_prior: None takes the method's own; "truth" is a control: the world's own pictures in place of sampled ones,
        so that what is lost is lost between views and mesh.
    clip: name or folder of the backbone whose CLIP towers measure R-precision; None takes `backbone`.
    """

    num_things: int = 16
    num_pairs: int = 12
    num_heads: int = 8
    prompts: FilePath | None = None
    method: str = "text_to_3d/quickstart"
    asset_budget: str = "cpu"
    asset_settings: tuple[Text, ...] = ()
    assets_at_once: int = 1
    asset_prior: str | None = None
    backbone: BackboneConfig
    clip: BackboneName | None = None
    scoring: ScoreConfig = field(default_factory=ScoreConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, 0, "num_things", "num_pairs", "num_heads")
        check_least(self, 1, "assets_at_once")
        if self.prompts is None and not self.num_things + self.num_pairs + self.num_heads:
            raise ValueError("num_things, num_pairs and num_heads are all 0; at least one must be more")
        check_asset_settings("asset_settings", self.asset_settings, "prior")
