"""Words to a figure that speaks, end to end on the embedded model with untrained adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from avatar.config import TINY
from avatar.face import BlazeDetector, find_face
from avatar.model import TalkingModel
from avatar.storage import save_adapters
from diffusion.backbone import load
from experiments.portraits import portrait_camera, usual_face
from experiments.tasks.text_to_talk import portrait_of
from experiments.training.talking import portrait_box
from experiments.world.head_spec import HeadSpec
from experiments.world.heads import make_head
from experiments.world.scene import scene_from_caption
from experiments.world.talking import LANDMARKS, project
from video.decode import decode

QUICK = (
    "experiment=text_to_talk/quickstart", "budget=smoke", "threads=1", "animate.num_steps=1",
    "talking=talking.safetensors", "audio=speech.wav", "prompt=a portrait of a woman with curly red hair",
)  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_adapters(tmp_path / "talking.safetensors", TalkingModel(load("tiny").unet, TINY))
    soundfile.write(
        tmp_path / "speech.wav", 0.2 * np.random.default_rng(0).standard_normal(3_200).clip(-4, 4), 16_000
    )
    return tmp_path


@pytest.mark.slow
def test_mesh_portrait_and_video_in_one_run(galatea: Callable[..., Any], inputs: Path) -> None:
    outcome = galatea(*QUICK, "portrait_size=128", "out=made")
    assert outcome.status == 0, outcome.err
    folder = inputs / "made"
    for name in ("mesh.glb", "turntable.mp4", "preview.png", "talk.png", "report.html"):
        assert (folder / name).stat().st_size > 0
    with Image.open(folder / "portrait.png") as portrait:
        assert portrait.size == (128, 128)
        corner, middle = portrait.getpixel((2, 2)), portrait.getpixel((64, 64))
    assert corner != middle
    assert decode(folder / "talk.mp4").frames.shape == (5, 3, 128, 128)
    report = json.loads((folder / "report.json").read_text())
    assert {"prompt", "audio"} <= report["inputs"].keys()
    assert {"portrait", "animate", "export"} <= report["seconds"].keys()
    assert "finished already" in galatea(*QUICK, "portrait_size=128", "out=made").err[0]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("audio=none.wav", "audio: none.wav: No such file or directory"),
        ("prompt=", "prompt is empty"),
        ("portrait_size=63", "portrait_size is 63"),
        ("background=[0,0,2]", "background is"),
        ("recipe.redraw.timestep=20", "recipe.redraw: redraw timestep does not go with the prior"),
        ("talking=none.safetensors", "has no talking adapters"),
    ],
)
def test_what_is_refused(galatea: Callable[..., Any], inputs: Path, setting: str, words: str) -> None:
    outcome = galatea(*QUICK, setting, "out=made")
    assert outcome.status == 2
    assert words in "\n".join(outcome.err)
    assert not (inputs / "made" / "mesh.glb").exists()


@pytest.mark.parametrize("size", [64, 257, 1024])
def test_the_usual_face_is_that_of_the_worlds_usual_head(size: int) -> None:
    points = make_head(HeadSpec()).landmarks()
    seen = project(portrait_camera(), torch.stack([points[name] for name in LANDMARKS]), size)
    assert usual_face(size).overlap(portrait_box(seen)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "caption", ["a portrait of a woman with curly red hair", "a bust of a bald man with a beard"]
)
def test_the_face_of_a_mesh_is_found_where_busts_have_it(caption: str) -> None:
    picture = portrait_of(scene_from_caption(caption, seed=0).mesh(96), 256, (0.83, 0.83, 0.83))
    usual = usual_face(256)
    assert find_face(picture, face="best", detector=BlazeDetector(expected=usual)).overlap(usual) > 0.75
