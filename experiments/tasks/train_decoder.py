"""Training the decoder of a backbone's VAE on the procedural world: sharp pictures from the latents that there are."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from avatar.settings import AnimateConfig
from diffusion.backbone import Backbone, load, save_backbone
from experiments.errors import UserError
from experiments.run.backbones import load_into
from experiments.run.files import sha256_of_file
from experiments.run.fingerprint import fingerprint
from experiments.run.run import Run
from experiments.run.seeding import resolve_device
from experiments.speaking import ADAPTERS, load_talking
from experiments.tasks.configs.train_decoder import Config
from experiments.training.decoder import DecoderRecipe, Pictures
from experiments.training.latents import cached_latents, kept_latents
from experiments.training.loop import processes_of, train
from experiments.training.made_latents import made_frames, made_views
from experiments.training.talking import EncodedClips, TalkingData
from experiments.world.config import DatasetConfig, TalkingConfig
from experiments.world.dataset import Shards, load_shards, make_dataset
from experiments.world.talking_shards import TalkingClips, make_talking

# Share of the scenes that are seen from near.
_CLOSEUPS = 0.3


def validate(config: Config) -> None:
    """Find out whether these processes can train together before anything is made."""
    processes_of(config.loop, resolve_device(config.device))


def run(config: Config, run: Run) -> None:
    """Make what data is missing, train, and put the averaged weights into the model folder."""
    backbone = load_into(run, config.backbone)
    if config.data.size != backbone.image_size:
        raise UserError(
            f"data.size is {config.data.size}, but {backbone.name} makes pictures of {backbone.image_size} pixels; "
            f"make data.size and people.size {backbone.image_size}"
        )
    folder = _model_folder(config, backbone)
    seen, measured = _seen(config, run, backbone), _measured(config, run, backbone)
    torch.manual_seed(config.seed)  # only for the critic's initial weights: torch's layers take no generator
    recipe = DecoderRecipe(backbone.vae, seen, measured, config.decoder, run.device)
    run.metrics["held_out"] = train(run, recipe, config.loop, generator=run.generator("train"))
    run.metrics["parameters_trained"] = sum(p.numel() for p in recipe.vae.parameters() if p.requires_grad)
    run.metrics["images_seen"] = config.loop.steps * config.loop.batch_size
    save_backbone(folder, vae=recipe.vae)
    run.note(f"the VAE of {folder} now holds this decoder")


def _model_folder(config: Config, backbone: Backbone) -> Path:
    """The folder that the decoder goes to, whose latents must be the backbone's; a copy where there is none."""
    folder = Path(config.model)
    if not (folder / "model_index.json").is_file():
        if backbone.folder is None:
            raise UserError(
                f"model: {folder} is not there, and backbone {backbone.name!r} has no folder to copy; copy one first"
            )
        shutil.copytree(backbone.folder, folder, dirs_exist_ok=True)
        save_backbone(folder, revision=f"{backbone.revision}, continued")
    theirs = load(folder.absolute()).vae
    if theirs.config["scaling_factor"] != backbone.vae.config["scaling_factor"] or any(
        name not in (others := theirs.state_dict())
        or not torch.equal(value.cpu().half(), others[name].half())
        for name, value in backbone.vae.state_dict().items()
        if name.startswith(("encoder.", "quant_conv."))
    ):
        raise UserError(
            f"the latents of {folder} are others than those of backbone {backbone.name!r}, and its UNet would be lost; "
            "choose another model=FOLDER"
        )
    return folder


def _seen(config: Config, run: Run, backbone: Backbone) -> list[Pictures]:
    """What the decoder learns from: encoded latents, and those that the models make of the same pictures."""
    made = config.decoder.made_share
    faces, others = ((1 - made) * share for share in _faces_and_others(config))
    scenes = _scenes(config, run, "train", config.data)
    clips = _clips(config, run, backbone, "people/train", config.people)
    near = _scenes(config, run, "closeups/train", _near(config))
    seen = [
        _of_clips(clips, faces),
        _of_scenes(config, backbone, scenes, (1 - _CLOSEUPS) * others),
        _of_scenes(config, backbone, near, _CLOSEUPS * others),
    ]
    if made:
        seen += _made(config, run, backbone, scenes, clips).values()
    return seen


def _measured(config: Config, run: Run, backbone: Backbone) -> dict[str, Pictures]:
    """The same of held-out captions and people, by name."""
    few = replace(config.data, num_scenes=config.held_out_scenes, held_out=True)
    near = replace(_near(config), num_scenes=config.held_out_closeups, num_views=1, held_out=True)
    people = replace(config.people, num_clips=config.held_out_clips, held_out=True)
    scenes = _scenes(config, run, "held_out", few)
    clips = _clips(config, run, backbone, "people/held_out", people)
    measured = {
        "portraits": Pictures(images=clips.data.portraits, latents=clips.portraits, boxes=clips.data.boxes),
        "closeups": _of_scenes(config, backbone, _scenes(config, run, "closeups/held_out", near)),
        "scenes": _of_scenes(config, backbone, scenes),
    }
    if config.decoder.made_share:
        measured |= _made(config, run, backbone, scenes, clips)
    return measured


def _made(
    config: Config, run: Run, backbone: Backbone, scenes: Shards, clips: EncodedClips
) -> dict[str, Pictures]:
    """Pictures with latents as the UNet makes them of scenes, if it is a multiview one with cameras, and the talking
    model of clips, if there is one beside the backbone."""
    found: dict[str, Pictures] = {}
    faces, others = (config.decoder.made_share * share for share in _faces_and_others(config))
    weight, cache = config.decoder.made_weight, _cache(config)
    of: list[str | Tensor] = [fingerprint(backbone), str(config.seed)]
    if backbone.has_camera:
        scenes = scenes.first(config.decoder.made_scenes)
        with run.phase("make views"):
            latents = cached_latents(backbone, scenes.images, cache)
            make = partial(made_views, backbone, scenes, latents, run.generator("made views"))
            views = kept_latents(cache, "made_views", [*of, scenes.images], make)
        images = scenes.images.flatten(0, 1)
        found["made_views"] = Pictures(
            images=images, latents=views.flatten(0, 1), share=others, weight=weight
        )
    file = (backbone.folder or Path()) / ADAPTERS
    if file.is_file():
        model, data = load_talking(backbone, None, AnimateConfig()), clips.data
        past = model.config.motion.motion_frames
        if data.num_frames <= past:
            raise UserError(
                f"people.num_frames is {data.num_frames}, but the talking model takes {past} frames as its past, which "
                f"leaves none to make: give at least {past + 1}, or decoder.made_share=0"
            )
        with run.phase("make frames"):
            make = partial(made_frames, backbone, model, clips, run.generator("made frames"))
            frames = kept_latents(cache, "made_frames", [*of, sha256_of_file(file), data.images], make)
        images = data.images[:, -frames.shape[1] :].flatten(0, 1)
        found["made_frames"] = Pictures(
            images=images, latents=frames.flatten(0, 1), share=faces, weight=weight
        )
    return found


def _faces_and_others(config: Config) -> tuple[float, float]:
    return config.decoder.portrait_share, 1 - config.decoder.portrait_share


def _of_scenes(config: Config, backbone: Backbone, scenes: Shards, share: float = 1.0) -> Pictures:
    latents = cached_latents(backbone, scenes.images, _cache(config))
    return Pictures(images=scenes.images.flatten(0, 1), latents=latents.flatten(0, 1), share=share)


def _of_clips(clips: EncodedClips, share: float) -> Pictures:
    data = clips.data
    return Pictures(
        images=torch.cat([data.images.flatten(0, 1), data.portraits]),
        latents=torch.cat([clips.latents.flatten(0, 1), clips.portraits]),
        share=share,
    )


def _near(config: Config) -> DatasetConfig:
    return replace(config.data, num_scenes=config.decoder.closeups, fovy_deg=config.decoder.fovy_deg)


def _scenes(config: Config, run: Run, name: str, wanted: DatasetConfig) -> Shards:
    making = make_dataset(Path(config.data_folder) / name, wanted, workers=config.workers, device=run.device)
    return load_shards(run.collect(f"data/{name}", making, wanted.num_shards))


def _clips(config: Config, run: Run, backbone: Backbone, name: str, wanted: TalkingConfig) -> EncodedClips:
    making = make_talking(Path(config.data_folder) / name, wanted, workers=config.workers)
    data = TalkingData(TalkingClips(run.collect(f"data/{name}", making, wanted.num_shards)))
    with run.phase(f"encode {name}"):
        return EncodedClips.of(backbone, data, _cache(config))


def _cache(config: Config) -> Path:
    return Path(config.data_folder) / "latents"
