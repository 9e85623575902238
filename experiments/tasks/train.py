"""Training a part of the embedded model on the procedural world: data, recipe, weights into a model folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from diffusion.backbone import Backbone, load, save_backbone
from experiments.errors import UserError
from experiments.run.run import Run
from experiments.run.seeding import resolve_device
from experiments.tasks.configs.train import Config
from experiments.training import models
from experiments.training.channels import narrowed_unet, narrowed_vae, pixel_cost, widened
from experiments.training.clip import ClipRecipe
from experiments.training.loop import Recipe, processes_of, train
from experiments.training.multiview import MultiviewRecipe
from experiments.training.tokenizer import train_tokenizer
from experiments.training.vae import VaeRecipe
from experiments.world.captions import BACKGROUNDS, sample_caption, with_background
from experiments.world.config import DatasetConfig, TalkingConfig
from experiments.world.dataset import Shards, load_shards, make_dataset
from experiments.world.talking_shards import TalkingClips, make_talking
from video.pixels import from_uint8


def validate(config: Config) -> None:
    """Find out whether these processes can train together before anything is made."""
    processes_of(config.loop, resolve_device(config.device))


def run(config: Config, run: Run) -> None:
    """Make what data is missing, train, and put the averaged weights into the model folder."""
    train_set, held_out = _data(config, run)
    folder = Path(config.model)
    if not (folder / "model_index.json").is_file():
        _start_model(folder, config)
    torch.manual_seed(config.seed)  # only for the initial weights: torch's layers take no generator
    recipe = _RECIPES[config.part](config, run, train_set, held_out)
    if config.continue_from is not None:
        _load_weights(recipe, config, train_set)
    run.metrics["held_out"] = train(run, recipe, config.loop, generator=run.generator("train"))
    run.metrics["parameters"] = sum(p.numel() for p in recipe.modules.parameters())
    run.metrics["images_seen"] = config.loop.steps * config.loop.batch_size * (
        config.data.num_views if config.part == "multiview" else 1
    )  # fmt: skip
    _save(recipe, folder)
    run.note(f"the {config.part} part of {folder} now holds these weights")


def _data(config: Config, run: Run) -> tuple[Shards, Shards]:
    sets = []
    held_out = DatasetConfig(
        num_scenes=config.held_out_scenes, num_views=config.data.num_views, size=config.data.size, held_out=True,
        shares=config.data.shares, fovy_deg=config.data.fovy_deg, elevation_deg=config.data.elevation_deg,
    )  # fmt: skip
    for name, wanted in (("train", config.data), ("held_out", held_out)):
        making = make_dataset(Path(config.data_folder) / name, wanted, workers=config.workers)
        sets.append(load_shards(run.collect(f"data/{name}", making, wanted.num_shards)))
    return sets[0], sets[1]


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


def _start_model(folder: Path, config: Config) -> None:
    """A model folder for the recipes to replace the parts of one by one: those of `continue_from`, which belong
    together, or a trained tokenizer and untrained parts."""
    if config.continue_from is not None:
        source = _source(config)
        save_backbone(
            folder,
            tokenizer=source.tokenizer,
            text_encoder=source.text_encoder,
            image_encoder=source.image_encoder,
            clip_text_encoder=source.clip_text_encoder,
            vae=source.vae,
            unet=source.unet,
            scheduler=models.build_scheduler(),
            num_views=source.num_views,
            image_size=source.image_size,
            revision=f"{source.revision}, continued",
        )
        return
    rng = np.random.default_rng(config.seed)
    captions = [sample_caption(rng) for _ in range(20_000)]
    captions += [with_background(c, str(rng.choice(list(BACKGROUNDS)))) for c in captions[:10_000]]
    tokenizer = train_tokenizer(captions, vocab_size=1024, max_length=models.TEXT_LENGTH)
    torch.manual_seed(config.seed)
    save_backbone(
        folder,
        tokenizer=tokenizer,
        text_encoder=models.build_text_encoder(tokenizer),
        image_encoder=models.build_image_encoder(),
        vae=models.build_vae(config.latent_channels),
        unet=models.build_unet(config.channels, config.latent_channels),
        scheduler=models.build_scheduler(),
        num_views=models.NUM_VIEWS,
        image_size=models.IMAGE_SIZE,
        revision="untrained",
    )


def _clip(config: Config, run: Run, train_set: Shards, held_out: Shards) -> Recipe:
    tokenizer = load(Path(config.model).absolute()).tokenizer
    return ClipRecipe(tokenizer, train_set, held_out, run.device)


def _vae(config: Config, run: Run, train_set: Shards, held_out: Shards) -> Recipe:
    return VaeRecipe(
        train_set,
        held_out,
        run.device,
        portraits=_portraits(config, run),
        latent_channels=config.latent_channels,
        decoder_only=config.keep_unet_valid,
    )


def _multiview(config: Config, run: Run, train_set: Shards, held_out: Shards) -> Recipe:
    backbone = load(Path(config.model).absolute(), device=run.device)
    # Never from the folder that is trained into: a run that is begun again would begin where it ended.
    if config.text == "anew" or (config.text == "trained" and config.continue_from is None):
        # A module's own to(): transformers' annotation of it confuses type checkers.
        backbone.text_encoder = torch.nn.Module.to(models.build_text_encoder(backbone.tokenizer), run.device)
    with run.stage("encode"):
        return MultiviewRecipe(
            backbone,
            train_set,
            held_out,
            channels=config.channels,
            weighting=config.weighting,
            noise=config.noise,
            train_text=config.text != "frozen",
            cache=Path(config.data_folder) / "latents",
        )


_RECIPES: dict[str, Callable[[Config, Run, Shards, Shards], Recipe]] = {
    "clip": _clip,
    "vae": _vae,
    "multiview": _multiview,
}


def _source(config: Config) -> Backbone:
    """The backbone that training continues from."""
    name = str(config.continue_from)
    return load(Path(name).absolute() if Path(name).is_dir() else name)


def _load_weights(recipe: Recipe, config: Config, train_set: Shards) -> None:
    source, folder = _source(config), config.continue_from
    clip_text = source.text_encoder if source.clip_text_encoder is None else source.clip_text_encoder
    found: dict[str, dict[str, torch.Tensor]] = {
        name: module.state_dict()
        for name, module in (
            ("text", clip_text if config.part == "clip" else source.text_encoder),
            ("image", source.image_encoder),
            ("vae", source.vae),
            ("unet", source.unet),
        )
        if module is not None
    }
    has, wants = source.latent_channels, _latent_channels(recipe)
    if config.keep_unet_valid and config.latent_channels > has:
        raise UserError(
            f"latent_channels is {config.latent_channels}, but the VAE of {folder} has {has}; with keep_unet_valid, "
            f"which keeps its latents, make it {has} or fewer"
        )
    if isinstance(recipe, MultiviewRecipe):
        learned, asked = source.schedule.prediction_type, recipe.schedule.prediction_type
        if learned != asked:
            raise UserError(
                f"noise.prediction_type is {asked}, but the UNet of {folder} predicts {learned}; "
                f"give noise.prediction_type={learned}, or no continue_from"
            )
    if wants is not None and wants < has:
        images = from_uint8(train_set.images[:8].flatten(0, 1))
        costs = pixel_cost(source, images)
        kept = sorted(costs.argsort(descending=True)[:wants].tolist())
        mean = source.encode(images).mean((0, 2, 3)) / source.vae.config["scaling_factor"]
        found["unet"] = narrowed_unet(found["unet"], kept)
        found["vae"] = narrowed_vae(found["vae"], kept, mean)
    for name, module in recipe.modules.items():
        if name == "text" and config.part == "multiview" and config.text == "anew":
            continue
        module.load_state_dict(widened(found[name], module.state_dict()))
    if isinstance(recipe, VaeRecipe):
        recipe.vae.register_to_config(scaling_factor=source.vae.config["scaling_factor"])


def _latent_channels(recipe: Recipe) -> int | None:
    """Of what is trained; None where it has to do with no latents."""
    if isinstance(recipe, VaeRecipe):
        return int(recipe.vae.config["latent_channels"])
    return int(recipe.unet.config["in_channels"]) if isinstance(recipe, MultiviewRecipe) else None


def _save(recipe: Recipe, folder: Path) -> None:
    if isinstance(recipe, ClipRecipe):
        save_backbone(
            folder, tokenizer=recipe.tokenizer, clip_text_encoder=recipe.text, image_encoder=recipe.image
        )
    elif isinstance(recipe, VaeRecipe):
        if not recipe.decoder_only:
            recipe.vae.register_to_config(scaling_factor=round(1 / recipe.validate()["latent_std"], 5))
        save_backbone(folder, vae=recipe.vae)
    elif isinstance(recipe, MultiviewRecipe):
        save_backbone(folder, unet=recipe.unet, text_encoder=recipe.text, scheduler=recipe.scheduler)
