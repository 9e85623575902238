"""Training the talking portrait of the embedded model on the procedural world: its adapters and its two measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from avatar import config as architectures
from avatar.config import Tuning
from avatar.model import TalkingModel
from avatar.storage import adapter_state, load_adapters, save_adapters
from avatar.training import StageConfig
from diffusion.backbone import Backbone
from experiments.errors import UserError
from experiments.run.backbones import BackboneConfig, load_into
from experiments.run.files import atomic_path
from experiments.run.run_dir import Run
from experiments.run.settings import Settings
from experiments.speaking import ADAPTERS, MOUTH, SYNC
from experiments.training.loop import LoopConfig, Recipe, train
from experiments.training.talking import MouthRecipe, SyncRecipe, TalkingData, TalkRecipe
from experiments.world.espeak import espeak_available
from experiments.world.talking import TalkingConfig
from experiments.world.talking_shards import TalkingClips, make_talking


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """part: "talk" trains the adapters, one of EMO's stages at a time (`training.stage`); "mouth" the reader of mouth
        openings and "sync" the miniature SyncNet, which only measure.
    backbone: a folder whose UNet the adapters are made for. The weights are put into its folder `talking`; a stage of
        "talk" goes on from the adapters that are there (anew=true starts without).
    new_unet: the UNet was trained further since the adapters were; they are a start for adapters of the new one. Stage
        "image" first.
    num_frames: of the clips trained on, motion frames not counted.
    tune_unet: "attention" and "all": train a copy of the UNet's attention layers, or of all of it, too, which is then
        saved with the adapters (stage "image").
    """

    part: Literal["talk", "mouth", "sync"]
    backbone: BackboneConfig
    training: StageConfig
    anew: bool = False
    new_unet: bool = False
    num_frames: int = 8
    tune_unet: Tuning = "attention"
    data_folder: str = "data/talking"
    workers: int = 2
    held_out_clips: int = 64
    data: TalkingConfig = field(default_factory=TalkingConfig)
    loop: LoopConfig
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.held_out:
            raise ValueError("data.held_out is true; training never meets held-out people: leave it false")
        if self.new_unet and (self.anew or self.training.stage != "image"):
            raise ValueError("new_unet is true, which is for training.stage=image with anew=false")
        for name in ("num_frames", "held_out_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


def validate(config: Config) -> None:
    """Find out whether there is a voice, and a folder to write to, before anything is made."""
    if config.data.speech == "espeak" and not espeak_available():
        raise UserError(
            "data.speech=espeak needs the extra 'world' (pip install 'galatea[world]'); data.speech=formants babbles "
            "without it"
        )
    if not (Path(config.backbone.name) / "model_index.json").is_file():
        raise UserError(
            f"backbone.name is {config.backbone.name!r}; weights are put into its folder, so it must be a folder in "
            "diffusers layout: a copy of diffusion/weights/tiny, say"
        )


def run(config: Config, run: Run) -> None:
    """Make what data is missing, train, and put the averaged weights into the backbone's folder."""
    data, held_out = _data(config, run)
    backbone = load_into(run, config.backbone)
    torch.manual_seed(config.seed)  # only for the initial weights: torch's layers take no generator
    recipe = _RECIPES[config.part](config, run, backbone, data, held_out)
    run.metrics["held_out"] = train(run, recipe, config.loop, generator=run.generator("train"))
    weights = [p for p in recipe.modules.parameters() if p.requires_grad]
    run.metrics["parameters_trained"] = sum(p.numel() for p in weights)
    run.metrics["clips_seen"] = config.loop.steps * config.loop.batch_size
    _save(recipe, Path(config.backbone.name))


def _data(config: Config, run: Run) -> tuple[TalkingData, TalkingData]:
    sets = []
    held_out = replace(config.data, num_clips=config.held_out_clips, held_out=True)
    for name, wanted in (("train", config.data), ("held_out", held_out)):
        run.begin_stage(f"data/{name}", wanted.num_shards)
        paths = []
        for path in make_talking(Path(config.data_folder) / name, wanted, workers=config.workers):
            paths.append(path)
            run.display.update(len(paths), {})
        run.end_stage()
        with run.stage(f"listen/{name}"):
            sets.append(TalkingData(TalkingClips(paths)))
    return sets[0], sets[1]


def _talk(config: Config, run: Run, backbone: Backbone, data: TalkingData, held_out: TalkingData) -> Recipe:
    file = Path(config.backbone.name) / ADAPTERS
    goes_on = file.is_file() and not config.anew
    architecture = replace(architectures.TINY, tune_unet=config.tune_unet)
    trained = _trained(file, config, backbone) if goes_on else None
    if trained is not None:
        architecture = trained.config
    elif config.training.stage != "image":
        run.note(
            f"there are no adapters in {file.parent}: stage {config.training.stage} starts from random ones"
        )
    with run.stage("encode"):
        recipe = TalkRecipe(
            backbone, architecture, data, held_out, config.training,
            num_frames=config.num_frames, cache=Path(config.data_folder) / "latents",
        )  # fmt: skip
    if trained is not None:
        recipe.model.load_state_dict(adapter_state(trained), strict=False)
    return recipe


def _trained(file: Path, config: Config, backbone: Backbone) -> TalkingModel:
    try:
        return load_adapters(file, backbone.unet, any_weights=config.new_unet)
    except ValueError as error:
        raise UserError(
            f"{error}; or train them onto this UNet, stage after stage from training.stage=image new_unet=true on, or "
            "start with anew=true"
        ) from None


def _mouth(config: Config, run: Run, backbone: Backbone, data: TalkingData, held_out: TalkingData) -> Recipe:
    return MouthRecipe(data, held_out, run.device)


def _sync(config: Config, run: Run, backbone: Backbone, data: TalkingData, held_out: TalkingData) -> Recipe:
    return SyncRecipe(data, held_out, run.device)


_RECIPES: dict[str, Callable[[Config, Run, Backbone, TalkingData, TalkingData], Recipe]] = {
    "talk": _talk,
    "mouth": _mouth,
    "sync": _sync,
}


def _save(recipe: Recipe, folder: Path) -> None:
    if isinstance(recipe, TalkRecipe):
        save_adapters(folder / ADAPTERS, recipe.model)
        return
    file, module = (
        (MOUTH, recipe.reader) if isinstance(recipe, MouthRecipe) else (SYNC, recipe.modules["sync"])
    )
    (folder / file).parent.mkdir(exist_ok=True)
    with atomic_path(folder / file) as temporary:
        save_file({name: value.half().contiguous() for name, value in module.state_dict().items()}, temporary)
