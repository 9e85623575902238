"""Training what the adapters of the talking portrait hear, the projection of the sound, on utterances alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from avatar.storage import save_adapters
from experiments.run.backbones import load_into
from experiments.run.run import Run
from experiments.speaking import ADAPTERS
from experiments.tasks.configs.train_sound import Config
from experiments.training.listening import SoundRecipe, SpeechData
from experiments.training.talker import adapters_to_train, check, learn, make_sets
from experiments.world.speech_shards import make_speech, read_speech


def validate(config: Config) -> None:
    """Find out whether there is a voice, and a folder to write to, before anything is made."""
    check(config)


def run(config: Config, run: Run) -> None:
    """Make what data is missing, train, and put the averaged weights into the backbone's folder."""
    model = adapters_to_train(config, load_into(run, config.backbone))
    seen, held_out = make_sets(config, run, make_speech, config.num_utterances, "sound/")
    with run.phase("listen"):
        fps = Fraction(config.data.fps)
        data = SpeechData(read_speech(seen), fps)
        recipe = SoundRecipe(model, data, SpeechData(read_speech(held_out), fps, like=data))
    learn(config, run, recipe, seen="utterance_frames_seen")
    save_adapters(Path(config.backbone.name) / ADAPTERS, recipe.model)
