"""Training the text-to-multiview UNet of the embedded model on the procedural world."""

from __future__ import annotations

from pathlib import Path

from torch.nn import Module

from diffusion.backbone import Backbone, load, save_backbone
from diffusion.domains import DOMAINS
from experiments.errors import UserError
from experiments.run.run import Run
from experiments.run.seeding import resolve_device
from experiments.tasks.configs.train_multiview import Config
from experiments.training import models
from experiments.training.channels import narrowed_unet
from experiments.training.loop import processes_of
from experiments.training.multiview import MultiviewRecipe
from experiments.training.part import begin, dearest_channels, fill, learn, source_of
from experiments.world.dataset import Shards


def validate(config: Config) -> None:
    """Find out whether these processes can train together before anything is made."""
    processes_of(config.loop, resolve_device(config.device))


def run(config: Config, run: Run) -> None:
    """Make what data is missing, train, and put the averaged weights into the model folder."""
    seen, held_out = begin(config, run)
    folder = Path(config.model)
    backbone = load(folder.absolute(), device=run.device)
    # Never from the folder that is trained into: a run that is begun again would begin where it ended.
    if config.text == "anew" or (config.text == "trained" and config.continue_from is None):
        # A module's own to(): transformers' annotation of it confuses type checkers.
        backbone.text_encoder = Module.to(models.build_text_encoder(backbone.tokenizer), run.device)
    with run.phase("encode"):
        recipe = MultiviewRecipe(
            backbone,
            seen,
            held_out,
            channels=config.channels,
            weighting=config.weighting,
            noise=config.noise,
            sets=config.sets,
            train_text=config.text != "frozen",
            cache=Path(config.data_folder) / "latents",
        )
    source = source_of(config)
    if source is not None:
        _continue(config, recipe, source, seen)
    learn(config, run, recipe, pictures=config.data.num_views)
    learned = ("color",) if source is None else source.domains
    domains = DOMAINS if config.sets.domains else learned
    save_backbone(
        folder,
        unet=recipe.unet,
        text_encoder=recipe.text,
        scheduler=recipe.scheduler,
        domains=None if domains == backbone.domains else domains,
    )
    run.note(f"the UNet and the text transformer of {folder} now hold these weights")


def _continue(config: Config, recipe: MultiviewRecipe, source: Backbone, seen: Shards) -> None:
    """Begin with the UNet of `source`, whatever the number of its latent channels, and its text transformer."""
    learned, asked = source.schedule.prediction_type, recipe.schedule.prediction_type
    if learned != asked:
        raise UserError(
            f"noise.prediction_type is {asked}, but the UNet of {config.continue_from} predicts {learned}; "
            f"give noise.prediction_type={learned}, or no continue_from"
        )
    has = list(source.unet.config["block_out_channels"])
    if has != list(config.channels):
        raise UserError(
            f"channels is {list(config.channels)}, but the UNet of {config.continue_from} has {has}; give "
            f"'channels={has}', or no continue_from"
        )
    weights, wants = source.unet.state_dict(), int(recipe.unet.config["in_channels"])
    if wants < source.latent_channels:
        weights = narrowed_unet(weights, dearest_channels(source, seen, wants))
    fill(recipe, {"unet": weights})
    if config.text != "anew":
        fill(recipe, {"text": source.text_encoder})
