"""Training a network that measures talking portraits, on the procedural world: the one of mouths, or that of sync."""

from __future__ import annotations

from pathlib import Path

import torch

from avatar.syncnet import WINDOW
from diffusion.files import save_tensors
from experiments.errors import UserError
from experiments.run.backbones import load_into
from experiments.run.run import Run
from experiments.speaking import MOUTH, SYNC
from experiments.tasks.configs.train_measure import Config
from experiments.training.talker import check, clips, learn
from experiments.training.talking import MouthRecipe, SyncRecipe

_RECIPES = {"mouth": (MouthRecipe, MOUTH), "sync": (SyncRecipe, SYNC)}


def validate(config: Config) -> None:
    """Find out whether there is a voice, a folder to write to, and clips long enough, before anything is made."""
    check(config)
    if config.part == "sync" and config.data.num_frames < WINDOW:
        raise UserError(
            f"data.num_frames is {config.data.num_frames}; the SyncNet sees {WINDOW} frames at once"
        )


def run(config: Config, run: Run) -> None:
    """Make what data is missing, train, and put the averaged weights into the backbone's folder."""
    load_into(
        run, config.backbone
    )  # so that the report names it, and weights are put into none that is broken
    seen, held_out = clips(config, run)
    torch.manual_seed(config.seed)  # only for the initial weights: torch's layers take no generator
    make, name = _RECIPES[config.part]
    recipe = make(seen, held_out, run.device)
    learn(config, run, recipe)
    file = Path(config.backbone.name) / name
    file.parent.mkdir(exist_ok=True)
    weights = recipe.modules[config.part].state_dict()
    save_tensors(file, {key: value.half() for key, value in weights.items()})
