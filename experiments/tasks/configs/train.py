"""Settings of `experiments.tasks.train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diffusion.limits import check_least
from experiments.run.settings import BackboneName, FolderPath, Settings
from experiments.training.config import (
    DOWNSCALE,
    IMAGE_SIZE,
    LATENT_CHANNELS,
    LoopConfig,
    NoiseConfig,
    Weighting,
    check_channels,
)
from experiments.world.config import DatasetConfig


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """part: what is trained. model: folder in diffusers layout that the part is put into (made when it is not there).

    data_folder: where pictures are kept and found again; workers: processes that make them.
    continue_from: a model folder whose part training starts from, and which a new `model` has its other parts from;
        None starts from random weights.
    held_out_scenes: scenes of captions never trained on, for the held-out measurement.
    text: whether the text transformer learns with the UNet (part multiview), and whether it starts anew even if
        continue_from names weights; "frozen" leaves it as `model` has it.
    keep_unet_valid: leave as they are the latents that an existing UNet was trained on (part vae); the decoder still
        learns. Needs continue_from. CLIP has a text tower of its own, which no UNet reads.
    channels: width of each of the UNet's levels (part multiview). latent_channels: channels of the VAE's latents (part
        vae); a UNet goes by its VAE.
        Either may have more than the weights of continue_from, whose new channels then begin at random. With fewer
        latent channels those are kept in which an error costs most in the picture; give the UNet the same
        continue_from as its VAE.
    weighting: how much each latent channel counts in the UNet's loss (part multiview): by what an error in it costs in
        the picture, or all alike. noise: what the UNet predicts, and of what noise (part multiview).
    portraits: how many talking people the VAE sees beside the world's scenes, 8 pictures of each (part vae).
    """

    part: Literal["clip", "vae", "multiview"]
    model: FolderPath = "outputs/tiny"
    data_folder: FolderPath = "data/world"
    workers: int = 2
    continue_from: BackboneName | None = None
    text: Literal["frozen", "trained", "anew"] = "trained"
    keep_unet_valid: bool = False
    held_out_scenes: int = 300
    channels: tuple[int, ...] = (64, 128, 128)
    latent_channels: int = LATENT_CHANNELS
    weighting: Weighting = "pixels"
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    portraits: int = 600
    data: DatasetConfig = field(default_factory=DatasetConfig)
    loop: LoopConfig
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.held_out:
            raise ValueError("data.held_out is true; training never sees held-out captions: leave it false")
        if self.keep_unet_valid and (self.continue_from is None or self.part != "vae"):
            raise ValueError(
                "keep_unet_valid is true, but there is nothing to keep: give continue_from=FOLDER and part vae"
            )
        check_least(self, 1, "held_out_scenes", "latent_channels", "workers")
        check_least(self, 0, "portraits")
        check_channels(self.channels)
        if self.data.size % DOWNSCALE or self.data.size < IMAGE_SIZE // 2:
            raise ValueError(
                f"data.size is {self.data.size}; it must be a multiple of {DOWNSCALE}, at least {IMAGE_SIZE // 2}"
            )
        if self.part == "clip" and self.data.size != IMAGE_SIZE:
            raise ValueError(f"data.size is {self.data.size}; the CLIP towers see {IMAGE_SIZE} pixels")
