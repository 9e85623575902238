"""What the recipes have in common that train a part of the embedded model: data, the model folder, first weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diffusion.backbone import Backbone, load, save_backbone
from experiments.errors import UserError
from experiments.run.run import Run
from experiments.tasks.configs.training import PartSettings
from experiments.training import models
from experiments.training.channels import pixel_cost, widened
from experiments.training.config import LATENT_CHANNELS
from experiments.training.loop import Recipe, train
from experiments.training.tokenizer import train_tokenizer
from experiments.world.captions import BACKGROUNDS, sample_caption, with_background
from experiments.world.config import DatasetConfig
from experiments.world.dataset import Shards, load_shards, make_dataset
from video.pixels import from_uint8


def begin(config: PartSettings, run: Run, *, latent_channels: int = LATENT_CHANNELS) -> tuple[Shards, Shards]:
    """Make what data is missing, and a model folder where there is none; pictures to train on, and held-out ones.

    latent_channels: of the untrained VAE and UNet that a new folder gets.
    """
    sets = []
    held_out = DatasetConfig(
        num_scenes=config.held_out_scenes, num_views=config.data.num_views, size=config.data.size, held_out=True,
        shares=config.data.shares, fovy_deg=config.data.fovy_deg, elevation_deg=config.data.elevation_deg,
        mixed_elevations=config.data.mixed_elevations, domains=config.data.domains, num_guests=config.data.num_guests,
    )  # fmt: skip
    for name, wanted in (("train", config.data), ("held_out", held_out)):
        making = make_dataset(
            Path(config.data_folder) / name, wanted, workers=config.workers, device=run.device
        )
        sets.append(load_shards(run.collect(f"data/{name}", making, wanted.num_shards)))
    folder = Path(config.model)
    if not (folder / "model_index.json").is_file():
        _start_model(folder, config, latent_channels)
    torch.manual_seed(config.seed)  # only for the initial weights: torch's layers take no generator
    return sets[0], sets[1]


def _start_model(folder: Path, config: PartSettings, latent_channels: int) -> None:
    """A model folder for the recipes to replace the parts of one by one: those of `continue_from`, which belong
    together, or a trained tokenizer and untrained parts."""
    source = source_of(config)
    if source is not None:
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
            domains=source.domains,
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
        vae=models.build_vae(latent_channels),
        unet=models.build_unet(latent_channels=latent_channels),
        scheduler=models.build_scheduler(),
        num_views=models.NUM_VIEWS,
        image_size=models.IMAGE_SIZE,
        revision="untrained",
    )


def source_of(config: PartSettings) -> Backbone | None:
    """The backbone that training continues from, if it does."""
    if config.continue_from is None:
        return None
    name = config.continue_from
    return load(Path(name).absolute() if Path(name).is_dir() else name)


def fill(recipe: Recipe, weights: Mapping[str, Mapping[str, Tensor] | nn.Module | None]) -> None:
    """Begin with `weights`, by the name of the recipe's module; one that is not among them is left as it is.

    Raises:
        UserError: what training continues from has no such module.
    """
    for name, given in weights.items():
        if given is None:
            raise UserError(f"continue_from names a model that has no {name} encoder; leave it out")
        state = given.state_dict() if isinstance(given, nn.Module) else given
        module = recipe.modules[name]
        module.load_state_dict(widened(state, module.state_dict()))


def dearest_channels(source: Backbone, seen: Shards, count: int) -> list[int]:
    """The `count` latent channels in which an error costs most in the picture, in their order."""
    costs = pixel_cost(source, from_uint8(seen.images[:8].flatten(0, 1)))
    return sorted(costs.argsort(descending=True)[:count].tolist())


def learn(config: PartSettings, run: Run, recipe: Recipe, *, pictures: int = 1) -> None:
    """Train, and put down what came of it. pictures: how many the recipe sees of each scene of a batch."""
    run.metrics["held_out"] = train(run, recipe, config.loop, generator=run.generator("train"))
    run.metrics["parameters"] = sum(p.numel() for p in recipe.modules.parameters())
    run.metrics["images_seen"] = config.loop.steps * config.loop.batch_size * pictures
