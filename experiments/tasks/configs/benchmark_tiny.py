"""Settings of `experiments.tasks.benchmark_tiny`."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion.limits import check_least
from experiments.run.backbones import BackboneConfig
from experiments.run.settings import BackboneName, Settings, Text
from experiments.world.vocabulary import BACKGROUNDS
from gen3d.priors.config import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """num_things, num_pairs, num_heads: how many held-out captions of each kind are drawn.

    num_untrained: captions of each kind that an untrained UNet draws too; 0 leaves this control out.
    num_given: things and heads of which one picture is given, and whose depth and normals are drawn beside their true
        colours by a backbone that can; 0 leaves this out.
    num_pictures: held-out pictures of the world for the VAE and for caption retrieval among num_captions.
    batch_size: objects sampled at once. workers: processes that make the pictures.
    backbone: a multiview one with cameras. clip: name or folder of the backbone whose CLIP towers are measured and
        read the samples; None takes `backbone`. Give one and the same to compare two backbones.
    background: of the samples, one of the world's, or "auto"; the same for all keeps it from giving captions away.
    negative_prompt: for all.
    """

    num_things: int = 24
    num_pairs: int = 16
    num_heads: int = 12
    num_untrained: int = 2
    num_given: int = 4
    num_pictures: int = 120
    num_captions: int = 100
    batch_size: int = 4
    workers: int = 2
    checkpoint_every: int = 4
    backbone: BackboneConfig
    clip: BackboneName | None = None
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    background: Text = "light grey"
    negative_prompt: Text = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, 0, "num_things", "num_pairs", "num_heads", "num_untrained", "num_given")
        if not self.num_things + self.num_pairs + self.num_heads:
            raise ValueError("num_things, num_pairs and num_heads are all 0; at least one must be more")
        check_least(self, 1, "num_pictures", "num_captions", "batch_size", "workers")
        if self.background not in ("auto", *BACKGROUNDS):
            raise ValueError(
                f"background is {self.background!r}; the truth must have the same, so it must be "
                f"auto or one of {', '.join(BACKGROUNDS)}"
            )
