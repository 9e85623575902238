"""Training the two CLIP towers of the embedded model on the procedural world."""

from __future__ import annotations

from pathlib import Path

from diffusion.backbone import load, save_backbone
from experiments.run.run import Run
from experiments.run.seeding import resolve_device
from experiments.tasks.configs.train_clip import Config
from experiments.training.clip import ClipRecipe
from experiments.training.loop import processes_of
from experiments.training.part import begin, fill, learn, source_of


def validate(config: Config) -> None:
    """Find out whether these processes can train together before anything is made."""
    processes_of(config.loop, resolve_device(config.device))


def run(config: Config, run: Run) -> None:
    """Make what data is missing, train, and put the averaged weights into the model folder."""
    seen, held_out = begin(config, run)
    folder = Path(config.model)
    recipe = ClipRecipe(load(folder.absolute()).tokenizer, seen, held_out, run.device)
    source = source_of(config)
    if source is not None:
        text = source.text_encoder if source.clip_text_encoder is None else source.clip_text_encoder
        fill(recipe, {"text": text, "image": source.image_encoder})
    learn(config, run, recipe)
    save_backbone(
        folder, tokenizer=recipe.tokenizer, clip_text_encoder=recipe.text, image_encoder=recipe.image
    )
    run.note(f"the CLIP towers of {folder} now hold these weights")
