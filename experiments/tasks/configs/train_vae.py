"""Settings of `experiments.tasks.train_vae`."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion.limits import check_least
from experiments.tasks.configs.training import PartSettings
from experiments.training.config import LATENT_CHANNELS


@dataclass(frozen=True, kw_only=True)
class Config(PartSettings):
    """latent_channels: may be more than those of continue_from, and new channels then begin at random; of more, those
        are kept in which an error costs most in the picture. Give the UNet the same continue_from as its VAE.
    keep_unet_valid: leave as they are the latents that an existing UNet was trained on; the decoder still learns. Needs
        continue_from.
    portraits: how many talking people are seen beside the world's scenes, 8 pictures of each.
    """

    latent_channels: int = LATENT_CHANNELS
    keep_unet_valid: bool = False
    portraits: int = 600

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_unet_valid and self.continue_from is None:
            raise ValueError(
                "keep_unet_valid is true, but there is nothing to keep: give continue_from=FOLDER"
            )
        check_least(self, 1, "latent_channels")
        check_least(self, 0, "portraits")
