"""What the recipes of the talking portrait have in common: utterances and clips, and where the weights go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from avatar import config as architectures
from avatar.model import TalkingModel
from avatar.storage import load_adapters
from diffusion.backbone import Backbone
from experiments.errors import UserError
from experiments.run.run import Run
from experiments.run.seeding import resolve_device
from experiments.speaking import ADAPTERS
from experiments.tasks.configs.training import AdapterSettings, TalkingSettings
from experiments.training.loop import Recipe, processes_of, train
from experiments.training.talking import TalkingData
from experiments.world.espeak import check_voice
from experiments.world.talking_shards import TalkingClips, make_talking


def check(config: TalkingSettings) -> None:
    """Find out whether there is a voice, and a folder to write to, before anything is made."""
    processes_of(config.loop, resolve_device(config.device))
    check_voice("data.speech", config.data.speech)
    if not (Path(config.backbone.name) / "model_index.json").is_file():
        raise UserError(
            f"backbone.name is {config.backbone.name!r}; weights are put into its folder, so it must be a folder in "
            "diffusers layout: a copy of diffusion/weights/tiny, say"
        )


def make_sets(
    config: TalkingSettings,
    run: Run,
    make: Callable[..., Iterator[Path]],
    num_clips: int,
    kind: str = "",
) -> tuple[list[Path], list[Path]]:
    """The shards to train on, and held-out ones, made where they are missing."""
    sets = []
    seen = replace(config.data, num_clips=num_clips)
    held_out = replace(config.data, num_clips=config.held_out_clips, held_out=True)
    for name, wanted in (("train", seen), ("held_out", held_out)):
        making = make(Path(config.data_folder) / kind / name, wanted, workers=config.workers)
        sets.append(run.collect(f"data/{kind}{name}", making, wanted.num_shards))
    return sets[0], sets[1]


def clips(config: TalkingSettings, run: Run) -> tuple[TalkingData, TalkingData]:
    """Clips to train on, and held-out ones."""
    seen, held_out = make_sets(config, run, make_talking, config.data.num_clips)
    with run.phase("listen"):
        return TalkingData(TalkingClips(seen)), TalkingData(TalkingClips(held_out))


def adapters_to_train(config: AdapterSettings, backbone: Backbone, *, any_unet: bool = False) -> TalkingModel:
    """The model that the folder holds, or a new one. any_unet: adapters of another UNet are a start too.

    Raises:
        UserError: the adapters are another UNet's, or have a copy of another part of it than was asked for.
    """
    file = Path(config.backbone.name) / ADAPTERS
    if not file.is_file() or config.anew:
        torch.manual_seed(config.seed)  # only for the initial weights: torch's layers take no generator
        architecture = replace(architectures.TINY, tune_unet=config.tune_unet or "attention")
        return TalkingModel(backbone.unet, architecture).to(backbone.device)
    try:
        model = load_adapters(file, backbone.unet, any_weights=any_unet)
    except ValueError as error:
        raise UserError(
            f"{error}; or train them onto this UNet, lesson after lesson from lesson=image new_unet=true on, or start "
            "with anew=true"
        ) from None
    if config.tune_unet not in (None, model.config.tune_unet):
        raise UserError(
            f"tune_unet is {config.tune_unet}, and {file} has adapters that were begun with {model.config.tune_unet}; "
            "leave it out, or start with anew=true"
        )
    return model


def learn(config: TalkingSettings, run: Run, recipe: Recipe, *, seen: str = "clips_seen") -> None:
    """Train, and put down what came of it. seen: what the number of all that was seen is called."""
    run.metrics["held_out"] = train(run, recipe, config.loop, generator=run.generator("train"))
    weights = [p for p in recipe.modules.parameters() if p.requires_grad]
    run.metrics["parameters_trained"] = sum(p.numel() for p in weights)
    run.metrics[seen] = config.loop.steps * config.loop.batch_size
