"""Training the talking portrait of the embedded model on the procedural world: its adapters and its two measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch

from avatar import config as architectures
from avatar.model import TalkingModel
from avatar.storage import load_adapters, save_adapters
from avatar.syncnet import WINDOW
from diffusion.backbone import Backbone
from diffusion.files import save_tensors
from experiments.errors import UserError
from experiments.run.backbones import load_into
from experiments.run.run import Run
from experiments.run.seeding import resolve_device
from experiments.speaking import ADAPTERS, MOUTH, SYNC
from experiments.tasks.configs.train_talking import Config
from experiments.training.listening import SoundRecipe, SpeechData
from experiments.training.loop import Recipe, processes_of, train
from experiments.training.talking import MouthRecipe, SyncRecipe, TalkingData, TalkRecipe
from experiments.world.espeak import espeak_available
from experiments.world.speech_shards import make_speech, read_speech
from experiments.world.talking_shards import TalkingClips, make_talking


def validate(config: Config) -> None:
    """Find out whether there is a voice, a folder to write to, and clips long enough, before anything is made."""
    processes_of(config.loop, resolve_device(config.device))
    if config.data.speech == "espeak" and not espeak_available():
        raise UserError(
            "data.speech=espeak needs the extra 'world' (pip install 'galatea[world]'); data.speech=formants babbles "
            "without it"
        )
    if config.part == "talk":
        motion = architectures.TINY.motion
        frames = 1 if config.training.stage == "image" else config.num_frames
        most = min(config.data.num_frames, motion.max_frames)
        if motion.motion_frames + frames > most:
            raise UserError(
                f"num_frames is {frames}, and {motion.motion_frames} motion frames come before them, but clips have "
                f"{config.data.num_frames} frames (data.num_frames) and motion modules see {motion.max_frames}"
            )
    if config.part == "sync" and config.data.num_frames < WINDOW:
        raise UserError(
            f"data.num_frames is {config.data.num_frames}; the SyncNet sees {WINDOW} frames at once"
        )
    if not (Path(config.backbone.name) / "model_index.json").is_file():
        raise UserError(
            f"backbone.name is {config.backbone.name!r}; weights are put into its folder, so it must be a folder in "
            "diffusers layout: a copy of diffusion/weights/tiny, say"
        )


def run(config: Config, run: Run) -> None:
    """Make what data is missing, train, and put the averaged weights into the backbone's folder."""
    backbone = load_into(run, config.backbone)
    recipe = _RECIPES[config.part](config, run, backbone)
    run.metrics["held_out"] = train(run, recipe, config.loop, generator=run.generator("train"))
    weights = [p for p in recipe.modules.parameters() if p.requires_grad]
    run.metrics["parameters_trained"] = sum(p.numel() for p in weights)
    run.metrics["utterance_frames_seen" if config.part == "sound" else "clips_seen"] = (
        config.loop.steps * config.loop.batch_size
    )
    _save(recipe, Path(config.backbone.name))


def _shards(
    config: Config, run: Run, make: Callable[..., Iterator[Path]], num_clips: int, kind: str = ""
) -> tuple[list[Path], list[Path]]:
    """The shards of both sets, made where they are missing."""
    sets = []
    train_set = replace(config.data, num_clips=num_clips)
    held_out = replace(config.data, num_clips=config.held_out_clips, held_out=True)
    for name, wanted in (("train", train_set), ("held_out", held_out)):
        making = make(Path(config.data_folder) / kind / name, wanted, workers=config.workers)
        sets.append(run.collect(f"data/{kind}{name}", making, wanted.num_shards))
    return sets[0], sets[1]


def _clips(config: Config, run: Run) -> tuple[TalkingData, TalkingData]:
    train_set, held_out = _shards(config, run, make_talking, config.data.num_clips)
    with run.stage("listen"):
        return TalkingData(TalkingClips(train_set)), TalkingData(TalkingClips(held_out))


def _talk(config: Config, run: Run, backbone: Backbone) -> Recipe:
    model = _model(config, run, backbone)
    data, held_out = _clips(config, run)
    model.enable_gradient_checkpointing(config.gradient_checkpointing)
    with run.stage("encode"):
        return TalkRecipe(
            backbone, model, data, held_out, config.training,
            num_frames=config.num_frames, cache=Path(config.data_folder) / "latents",
        )  # fmt: skip


def _sound(config: Config, run: Run, backbone: Backbone) -> Recipe:
    model, fps = _model(config, run, backbone), Fraction(config.data.fps)
    train_set, held_out = _shards(config, run, make_speech, config.num_utterances, "sound/")
    with run.stage("listen"):
        data = SpeechData(read_speech(train_set), fps)
        return SoundRecipe(model, data, SpeechData(read_speech(held_out), fps, like=data))


def _model(config: Config, run: Run, backbone: Backbone) -> TalkingModel:
    """The one that the folder holds, or a new one."""
    file = Path(config.backbone.name) / ADAPTERS
    if file.is_file() and not config.anew:
        return _trained(file, config, backbone)
    if config.part == "talk" and config.training.stage != "image":
        run.note(
            f"there are no adapters in {file.parent}: stage {config.training.stage} starts from random ones"
        )
    torch.manual_seed(config.seed)  # only for the initial weights: torch's layers take no generator
    architecture = replace(architectures.TINY, tune_unet=config.tune_unet)
    return TalkingModel(backbone.unet, architecture).to(backbone.device)


def _trained(file: Path, config: Config, backbone: Backbone) -> TalkingModel:
    try:
        return load_adapters(file, backbone.unet, any_weights=config.new_unet)
    except ValueError as error:
        raise UserError(
            f"{error}; or train them onto this UNet, stage after stage from training.stage=image new_unet=true on, or "
            "start with anew=true"
        ) from None


def _mouth(config: Config, run: Run, backbone: Backbone) -> Recipe:
    return _measure(MouthRecipe, config, run)


def _sync(config: Config, run: Run, backbone: Backbone) -> Recipe:
    return _measure(SyncRecipe, config, run)


def _measure(recipe: type[MouthRecipe] | type[SyncRecipe], config: Config, run: Run) -> Recipe:
    data, held_out = _clips(config, run)
    torch.manual_seed(config.seed)
    return recipe(data, held_out, run.device)


_RECIPES: dict[str, Callable[[Config, Run, Backbone], Recipe]] = {
    "talk": _talk,
    "sound": _sound,
    "mouth": _mouth,
    "sync": _sync,
}


def _save(recipe: Recipe, folder: Path) -> None:
    if isinstance(recipe, (TalkRecipe, SoundRecipe)):
        save_adapters(folder / ADAPTERS, recipe.model)
        return
    file, module = (
        (MOUTH, recipe.reader) if isinstance(recipe, MouthRecipe) else (SYNC, recipe.modules["sync"])
    )
    (folder / file).parent.mkdir(exist_ok=True)
    save_tensors(folder / file, {name: value.half() for name, value in module.state_dict().items()})
