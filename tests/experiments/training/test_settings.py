"""Each recipe of training has its own settings: a key of another is refused by name, and none is ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

Galatea = Callable[..., Any]

# Setting -> the recipes that have it, and one that does not.
OF_SOME = {
    "latent_channels=4": ("vae", "multiview"),
    "portraits=2": ("vae", "clip"),
    "keep_unet_valid=false": ("vae", "multiview"),
    "channels=[32,32]": ("multiview", "vae"),
    "text=frozen": ("multiview", "clip"),
    "weighting=equal": ("multiview", "vae"),
    "noise.min_snr_gamma=5": ("multiview", "decoder"),
    "continue_from=tiny": ("clip", "vae", "multiview", "decoder"),
    "decoder.made_share=0.2": ("decoder", "vae"),
    "num_utterances=3": ("sound", "talk"),
    "anew=true": ("talk", "sound", "mouth"),
    "tune_unet=all": ("talk", "sound", "sync"),
    "gradient_checkpointing=true": ("talk", "sound"),
    "new_unet=false": ("talk", "sound"),
}


def _ask(galatea: Galatea, recipe: str, *settings: str) -> Any:
    more = ("lesson=image",) if recipe == "talk" else ()
    return galatea(f"experiment=train/tiny_{recipe}", *more, *settings, "--cfg", "job", own_configs=False)


@pytest.mark.parametrize("setting", OF_SOME)
def test_a_key_of_another_recipe_is_refused_by_name(galatea: Galatea, setting: str) -> None:
    *owners, other = OF_SOME[setting]
    outcome = _ask(galatea, owners[0], setting)
    assert outcome.status == 0, outcome.err
    outcome = _ask(galatea, other, setting)
    assert outcome.status == 2
    key = setting.partition("=")[0].partition(".")[0]
    named = ", ".join(f"experiment=train/tiny_{owner}" for owner in sorted(owners))
    (line,) = outcome.err
    assert line.startswith(f"galatea: unknown key {key!r}: it belongs to {named}. Keys: ")


@pytest.mark.parametrize(
    ("recipe", "settings", "words"),
    [
        ("talk", ("lesson.freeze_sound=true",), "'lesson.freeze_sound': lesson image has drop_reference"),
        ("talk", ("lesson.num_frames=4",), "num_frames belongs to lesson=motion or lesson=video"),
        ("talk", ("training.stage=image",), "'training': write lesson=NAME for training.stage=NAME"),
        ("talk", ("num_frames=4",), "'num_frames': write lesson.num_frames"),
        ("talk", ("lesson=sound",), "unknown lesson 'sound'. There are: image, motion, video"),
        ("mouth", ("lesson=image",), "this experiment has no 'lesson' to choose"),
        ("sync", ("training.stage=image",), "unknown key 'training'"),
        ("vae", ("nothing=1",), "unknown key 'nothing'. Keys: "),
    ],
)
def test_what_lessons_do_not_have(
    galatea: Galatea, recipe: str, settings: tuple[str, ...], words: str
) -> None:
    outcome = _ask(galatea, recipe, *settings)
    assert outcome.status == 2
    (line,) = outcome.err
    assert words in line


@pytest.mark.parametrize(
    ("recipe", "setting", "words"),
    [
        (
            "clip",
            "loop.muon_scale=3",
            "loop muon_scale is 3.0, which has no effect while loop optimizer is adamw",
        ),
        (
            "sound",
            "data.size=64",
            "data size is 64, which has no effect while sound is learned without pictures",
        ),
        ("sound", "data.num_clips=9", "data num_clips is 9, which has no effect"),
        (
            "decoder",
            "decoder.made_scenes=9",
            "decoder made_scenes is 9, which has no effect while decoder made_share",
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(
    galatea: Galatea, recipe: str, setting: str, words: str
) -> None:
    more = ("decoder.made_share=0",) if recipe == "decoder" else ()
    outcome = galatea(f"experiment=train/tiny_{recipe}", setting, *more, "out=made", own_configs=False)
    assert outcome.status == 2
    (line,) = outcome.err
    assert words in line


def test_a_lesson_is_chosen_before_it_is_set(galatea: Galatea) -> None:
    how = "galatea: lesson is missing; choose one with lesson=NAME: image, motion, video"
    for settings in ((), ("lesson.lip_weight=2",)):
        outcome = galatea("experiment=train/tiny_talk", *settings, "out=made", own_configs=False)
        assert outcome.status == 2
        assert outcome.err == [how]
    shown = galatea("experiment=train/tiny_talk", "--help", own_configs=False)
    assert "lesson=???" in shown.out.splitlines()


@pytest.mark.parametrize("lesson", ["image", "video", "motion"])
def test_lessons_of_tiny_weigh_lips(galatea: Galatea, lesson: str) -> None:
    outcome = galatea(
        "experiment=train/tiny_talk", f"lesson={lesson}", "budget=smoke", "--cfg", "job", own_configs=False
    )
    chosen = yaml.safe_load(outcome.out)["lesson"]
    assert (chosen["name"], chosen["lip_weight"], chosen["min_snr_gamma"]) == (lesson, 8.0, None)
    assert chosen.get("num_frames") == (None if lesson == "image" else 3)
    assert chosen.get("freeze_sound") == (True if lesson == "video" else None)
