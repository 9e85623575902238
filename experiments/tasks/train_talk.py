"""Training the adapters of the talking portrait on the procedural world, one lesson at a time."""

from __future__ import annotations

from pathlib import Path

from avatar import config as architectures
from avatar.storage import save_adapters
from experiments.errors import UserError
from experiments.run.backbones import load_into
from experiments.run.run import Run
from experiments.speaking import ADAPTERS
from experiments.tasks.configs.train_talk import Config
from experiments.training.talker import adapters_to_train, check, clips, learn
from experiments.training.talking import TalkRecipe


def validate(config: Config) -> None:
    """Find out whether there is a voice, a folder to write to, and clips long enough, before anything is made."""
    check(config)
    motion, frames = architectures.TINY.motion, config.lesson.frames()
    total = frames + motion.motion_frames
    if total > config.data.num_frames:
        raise UserError(
            f"data.num_frames is {config.data.num_frames}; this lesson sees {frames} and, before it, "
            f"{motion.motion_frames} motion frames of a clip: make it {total} or more"
        )
    if total > motion.max_frames:
        raise UserError(
            f"lesson.num_frames is {frames}; with {motion.motion_frames} motion frames before them the motion modules "
            f"see up to {motion.max_frames}: make it {motion.max_frames - motion.motion_frames} or fewer"
        )


def run(config: Config, run: Run) -> None:
    """Make what data is missing, train, and put the averaged weights into the backbone's folder."""
    backbone = load_into(run, config.backbone)
    file = Path(config.backbone.name) / ADAPTERS
    if not config.lesson.still and (config.anew or not file.is_file()):
        run.note(f"there are no adapters in {file.parent}: this lesson starts from random ones")
    model = adapters_to_train(config, backbone, any_unet=config.new_unet)
    seen, held_out = clips(config, run)
    model.enable_gradient_checkpointing(config.gradient_checkpointing)
    with run.phase("encode"):
        cache = Path(config.data_folder) / "latents"
        recipe = TalkRecipe(backbone, model, seen, held_out, config.lesson, cache=cache)
    learn(config, run, recipe)
    save_adapters(file, recipe.model)
