"""Settings of `experiments.tasks.train_multiview`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from experiments.tasks.configs.training import PartSettings
from experiments.training.config import NoiseConfig, SetsConfig, Weighting, check_channels


@dataclass(frozen=True, kw_only=True)
class Config(PartSettings):
    """text: whether the text transformer learns with the UNet, and whether it starts anew even if continue_from names
        weights; "frozen" leaves it as `model` has it.
    channels: width of each of the UNet's levels; its latents are those of the VAE in `model`.
    weighting: how much each latent channel counts in the loss: by what an error in it costs in the picture, or all
        alike. noise: what the UNet predicts, and of what noise.
    sets: which pictures of a scene it sees together: whether it learns depth and normals, and to be given pictures.
    """

    text: Literal["frozen", "trained", "anew"] = "trained"
    channels: tuple[int, ...] = (64, 128, 128)
    weighting: Weighting = "pixels"
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    sets: SetsConfig = field(default_factory=SetsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_channels(self.channels)
        self.sets.check_data(self.data.num_views, self.data.domains, self.data.num_guests)
