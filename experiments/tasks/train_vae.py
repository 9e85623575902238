"""Training the VAE of the embedded model on the procedural world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from diffusion.backbone import Backbone, save_backbone
from experiments.errors import UserError
from experiments.run.run import Run
from experiments.run.seeding import resolve_device
from experiments.tasks.configs.train_vae import Config
from experiments.training.channels import narrowed_vae
from experiments.training.loop import processes_of
from experiments.training.part import begin, dearest_channels, fill, learn, source_of
from experiments.training.vae import VaeRecipe
from experiments.world.config import TalkingConfig
from experiments.world.dataset import Shards
from experiments.world.talking_shards import TalkingClips, make_talking
from video.pixels import from_uint8


def validate(config: Config) -> None:
    """Find out whether these processes can train together before anything is made."""
    processes_of(config.loop, resolve_device(config.device))


def run(config: Config, run: Run) -> None:
    """Make what data is missing, train, and put the averaged weights into the model folder."""
    seen, held_out = begin(config, run, latent_channels=config.latent_channels)
    folder = Path(config.model)
    recipe = VaeRecipe(
        seen,
        held_out,
        run.device,
        portraits=_portraits(config, run),
        latent_channels=config.latent_channels,
        decoder_only=config.keep_unet_valid,
    )
    source = source_of(config)
    if source is not None:
        _continue(config, recipe, source, seen)
    learn(config, run, recipe)
    if not recipe.decoder_only:
        recipe.vae.register_to_config(scaling_factor=round(1 / recipe.validate()["latent_std"], 5))
    save_backbone(folder, vae=recipe.vae)
    run.note(f"the VAE of {folder} now holds these weights")


def _portraits(config: Config, run: Run) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Pictures of talking people, to train on and held out."""
    if not config.portraits:
        return None
    sets = []
    people = TalkingConfig(num_clips=config.portraits, num_frames=8, size=config.data.size, speech="formants")
    few = replace(people, num_clips=min(config.held_out_scenes, 64), num_frames=1, held_out=True)
    for name, wanted in (("train", people), ("held_out", few)):
        folder = Path(config.data_folder) / "portraits" / name
        making = make_talking(folder, wanted, workers=config.workers)
        clips = TalkingClips(run.collect(f"portraits/{name}", making, wanted.num_shards))
        sets.append(torch.cat([clip.images for clip in clips]))
    return sets[0], sets[1]


def _continue(config: Config, recipe: VaeRecipe, source: Backbone, seen: Shards) -> None:
    """Begin with the VAE of `source`, whatever the number of its latent channels."""
    has, wants = source.latent_channels, config.latent_channels
    if config.keep_unet_valid and wants > has:
        raise UserError(
            f"latent_channels is {wants}, but the VAE of {config.continue_from} has {has}; with keep_unet_valid, "
            f"which keeps its latents, make it {has} or fewer"
        )
    weights, scale = source.vae.state_dict(), source.vae.config["scaling_factor"]
    if wants < has:
        mean = source.encode(from_uint8(seen.images[:8].flatten(0, 1))).mean((0, 2, 3)) / scale
        weights = narrowed_vae(weights, dearest_channels(source, seen, wants), mean)
    fill(recipe, {"vae": weights})
    recipe.vae.register_to_config(scaling_factor=scale)
