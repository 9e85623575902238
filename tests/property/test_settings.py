"""Settings that every task accepts are settings that it can do: what cannot be done is refused before work begins.

Two parts, for every shipped experiment on `budget=smoke`. Many random settings go through the schema and what a task
looks at before it works; each is taken or refused with one line that names a setting. And a few runs, from end to end,
have as many settings as possible at the least or the greatest value of those tried here.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import random
import shutil
import types
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import soundfile
import yaml
from omegaconf import DictConfig
from PIL import Image
from skimage import data

from avatar.model import TalkingModel
from avatar.pipeline import check_clip_frames
from avatar.storage import load_adapters
from diffusion.backbone import Backbone, load
from experiments import catalog, tasks
from experiments.run.schema import build
from experiments.speaking import ADAPTERS
from gen3d.priors.base import Request
from gen3d.recipe import build_stages
from gen3d.stages.base import Given

Galatea = Callable[..., Any]
Plain = dict[str, Any]

_SPEECH = ("speech=formants", "workers=1")
_TRAIN = ("model=model", "data_folder=data", "workers=1")
_TALKING = ("backbone.name=tiny", "data_folder=data", "workers=1")
# What each needs beside budget=smoke.
EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "baseline/dreamfusion": ("prompt=a red mushroom",),
    "baseline/mvdream": ("prompt=a red mushroom",),
    "baseline/sjc": ("prompt=a red mushroom",),
    "benchmark/talk": _SPEECH,
    "benchmark/talk_files": ("portrait_dir=faces", "audio_dir=sounds", "face=center"),
    "benchmark/losses": (),
    "benchmark/speed": (),
    "benchmark/text_to_3d": (),
    "benchmark/tiny": ("workers=1",),
    "sample/multiview": ("prompt=a red mushroom",),
    "talk/quickstart": ("portrait=faces/face.png", "audio=sounds/speech.wav", "face=center"),
    "text_to_3d/quickstart": ("prompt=a red mushroom",),
    "text_to_talk/quickstart": ("prompt=a portrait of a man", "audio=sounds/speech.wav"),
    "train/tiny_clip": _TRAIN,
    "train/tiny_decoder": _TRAIN,
    "train/tiny_mouth": _TALKING,
    "train/tiny_multiview": _TRAIN,
    "train/tiny_sound": _TALKING,
    "train/tiny_sync": _TALKING,
    "train/tiny_talk": (*_TALKING, "lesson=video"),
    "train/tiny_vae": _TRAIN,
}
# Neither a matter of legal values, nor of this machine.
_LEFT_ALONE = {"task", "experiment", "budget", "device", "threads", "out", "overwrite", "seed", "workers", "speech",
               "processes", "dtype", "offline", "face", "part", "held_out", "text", "keep_unet_valid",
               "anew", "new_unet", "tune_unet"}  # fmt: skip
_WHOLE = (-1, 0, 1, 2, 3, 4, 5, 8, 17, 64, 1001)
_REAL = (-1e30, -1.0, 0.0, 1e-30, 1e-3, 0.5, 0.999, 1.0, 3.0, 10.0, 90.0, 180.0, 1e3, 1e30)


def _values(annotation: Any) -> list[Any]:
    """Values of that type to try; none for text, and for what is itself made of settings."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bool:
        return [False, True]
    if annotation is int:
        return list(_WHOLE)
    if annotation is float:
        return list(_REAL)
    if origin is Literal:
        return list(arguments)
    if origin in (Union, types.UnionType):
        return [None, *(value for argument in arguments for value in _values(argument))]
    if origin is tuple:
        several = arguments[-1] is Ellipsis
        inner = _values(arguments[0])
        if several:
            return [[], *([value] for value in inner), inner[-3:], inner[3:5]]
        return [[value] * len(arguments) for value in inner] + [inner[2 : 2 + len(arguments)]]
    return []


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Dotted name and values to try of every setting of a built config, and of the components chosen in it."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if field.name in _LEFT_ALONE:
            continue
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, dict):
            for key, each in value.items():
                yield from _leaves(each, f"{name}.{key}.")
        elif values := _values(hints[field.name]):
            yield name, values


def _with(plain: Plain, changes: dict[str, Any]) -> Plain:
    changed = copy.deepcopy(plain)
    for name, value in changes.items():
        *groups, last = name.split(".")
        node = changed
        for group in groups:
            node = node[group]
        node[last] = value
    return changed


@cache
def _tiny() -> tuple[Backbone, TalkingModel]:
    backbone = load("tiny")
    assert backbone.folder is not None
    return backbone, load_adapters(backbone.folder / ADAPTERS, backbone.unet)


def _prepare(experiment: str, plain: Plain) -> Any:
    """All that a run does before it works: the schema, the task's own look at its inputs, and what it builds first."""
    task = catalog.task_of(experiment)
    module = tasks.load(task)
    config = build(tasks.config(task), DictConfig(plain))
    if hasattr(module, "validate"):
        module.validate(config)
    backbone, model = _tiny()
    if hasattr(config, "recipe"):
        request = Request(backbone=backbone, prompt=config.prompt, negative_prompt=config.negative_prompt)
        build_stages(config.recipe, Given(chosen=config.chosen, request=request))
    if hasattr(config, "animate"):
        check_clip_frames(config.animate, model)
    return config


@pytest.fixture
def inputs(tmp_path: Path, tiny_weights: Path, galatea: Galatea) -> Path:
    """The folder that the runs are in, with a face, a little noise to be said, and a copy of the embedded model."""
    for name in ("faces", "sounds"):
        (tmp_path / name).mkdir()
    Image.fromarray(data.astronaut()[:128, 160:290]).save(tmp_path / "faces" / "face.png")
    noise = 0.2 * np.random.default_rng(0).standard_normal(4_000).clip(-4, 4)
    soundfile.write(tmp_path / "sounds" / "speech.wav", noise, 16_000)
    shutil.copytree(tiny_weights, tmp_path / "tiny")
    return tmp_path


def _plain(galatea: Galatea, experiment: str) -> Plain:
    outcome = galatea(
        f"experiment={experiment}",
        "budget=smoke",
        *EXPERIMENTS[experiment],
        "--cfg",
        "job",
        own_configs=False,
    )
    assert outcome.status == 0, outcome.err
    return yaml.safe_load(outcome.out)


def test_every_experiment_is_tried() -> None:
    assert set(EXPERIMENTS) == set(catalog.experiments())


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_random_settings_are_taken_or_refused_by_name(
    galatea: Galatea, inputs: Path, experiment: str
) -> None:
    plain = _plain(galatea, experiment)
    leaves = dict(_leaves(_prepare(experiment, plain)))
    drawn, taken, refused = random.Random(experiment), 0, 0
    for _ in range(25):
        names = drawn.sample(sorted(leaves), min(len(leaves), drawn.choice((1, 1, 2, 4))))
        changes = {name: drawn.choice(leaves[name]) for name in names}
        try:
            _prepare(experiment, _with(plain, changes))
        except ValueError as error:
            message = str(error)
            assert "\n" not in message, (changes, message)
            words = {part for name in names for part in (name.split(".")[-1], name.split(".")[0])}
            assert any(word in message for word in words), (changes, message)
            refused += 1
        else:
            taken += 1
    assert taken
    assert refused


# Name, or its last part -> the greatest value tried in a run; whole numbers elsewhere go up to 17. Nobody knows
# beforehand at which rate a training diverges.
_AT_MOST = {
    "loop.learning_rate": 1e-3, "loop.muon_scale": 1.0, "loop.weight_decay": 1.0, "data.num_frames": 8,
    "turntable.num_frames": 3, "batch_size": 3, "checkpoint_every": 1001, "group_size": 4, "groups": 2,
    "held_out_clips": 2, "held_out_scenes": 2, "num_captions": 1001, "num_clips": 1, "num_frames": 8, "num_heads": 1,
    "num_images": 2, "num_objects": 2, "num_pairs": 0, "num_pictures": 2, "num_scenes": 2, "num_steps": 2,
    "num_things": 1, "num_untrained": 1, "num_utterances": 2, "num_videos": 2, "num_views": 4, "portraits": 2,
    "raster_subdivisions": 3, "seconds": 0.5, "size": 64, "step_turns": 1, "steps": 2, "steps_per_round": 2,
    "turn_seconds": 0.001, "turns": 2,
}  # fmt: skip


def _affordable(name: str, value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 2 and all(_affordable(name, each) for each in value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return True
    most = _AT_MOST.get(name, _AT_MOST.get(name.split(".")[-1], 17 if isinstance(value, int) else 1e30))
    return value <= most


def _extreme(experiment: str, plain: Plain, seed: int) -> Plain:
    """Legal settings, as many as possible at the first or the last of their values that a run may have."""
    drawn = random.Random(f"{experiment} {seed}")
    config = _prepare(experiment, plain)
    leaves = list(_leaves(config))
    drawn.shuffle(leaves)
    for name, values in leaves:
        values = [value for value in values if _affordable(name, value)]
        for value in values if drawn.random() < 0.5 else reversed(values):
            if not _taken_by_its_owner(config, name, value):
                continue
            changed = _with(plain, {name: value})
            try:
                config = _prepare(experiment, changed)
            except ValueError:
                continue
            plain = changed
            break
    return plain


def _taken_by_its_owner(config: Any, name: str, value: Any) -> bool:
    """Whether the dataclass that has the setting takes it beside its others: most refusals are its own, and cheap."""
    *groups, last = name.split(".")
    for group in groups:
        config = config[group] if isinstance(config, dict) else getattr(config, group)
    try:
        dataclasses.replace(config, **{last: _tuples(value)})
    except ValueError:
        return False
    return True


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _arguments(plain: Plain, prefix: str = "") -> Iterator[str]:
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from _arguments(value, f"{prefix}{name}.")
        elif name not in _LEFT_ALONE:
            text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            yield f"{prefix}{name}={text.replace(' ', '')}"


_RUNS = {"text_to_3d/quickstart": 3, "talk/quickstart": 2}
# Whether pictures show anything is not known before they are drawn.
_OF_THE_PICTURES = (
    "show nothing but background",
    "no grid value lies inside",
    "encloses no volume",
    "frames as its past",  # of the talking model's
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "seed"),
    [
        (name, seed)
        for name in EXPERIMENTS
        for seed in range(_RUNS.get(name, 1))
        if name not in ("benchmark/losses", "benchmark/speed", "benchmark/text_to_3d")
    ],
)  # what these make are runs of text_to_3d
def test_extreme_settings_that_are_taken_can_be_done(
    galatea: Galatea, inputs: Path, experiment: str, seed: int
) -> None:
    plain = _plain(galatea, experiment)
    changed = _extreme(experiment, plain, int(os.environ.get("GALATEA_TEST_SEED", "0")) + seed)
    arguments = [
        argument
        for argument in _arguments(changed)
        if argument not in set(_arguments(plain)) and not argument.startswith("threads")
    ]
    outcome = galatea(
        f"experiment={experiment}", "budget=smoke", *EXPERIMENTS[experiment], *arguments, "threads=2", "out=made",
        own_configs=False,
    )  # fmt: skip
    if outcome.status and any(words in outcome.err[-1] for words in _OF_THE_PICTURES):
        return
    assert outcome.status == 0, f"{arguments}: {outcome.err[-1]}"
