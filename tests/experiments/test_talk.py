"""Portrait and recording to talk.mp4: what it writes, that it continues to the same bytes, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from skimage import data

from avatar.config import TINY
from avatar.face import FaceBox
from avatar.model import TalkingModel
from avatar.storage import save_adapters
from diffusion.backbone import load
from experiments.run.checkpoint import CheckpointStore
from experiments.speaking import Sitter
from tests.avatar.talking import randomise
from video.decode import decode, decode_audio

Galatea = Callable[..., Any]
QUICK = (
    "experiment=talk/quickstart", "budget=smoke", "threads=1", "animate.num_steps=1", "animate.clip_frames=3",
    "talking=talking.safetensors", "portrait=face.png", "audio=speech.wav",
)  # fmt: skip


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TalkingModel(load("tiny").unet, TINY)
    randomise(model)
    path = tmp_path_factory.mktemp("talking") / "talking.safetensors"
    save_adapters(path, model)
    return path


@pytest.fixture
def inputs(tmp_path: Path, adapters: Path) -> Path:
    """A photograph that is not square, a third of a second of noise at 44.1 kHz in stereo, and adapters."""
    shutil.copy(adapters, tmp_path / "talking.safetensors")
    Image.fromarray(data.astronaut()[:301, 80:400]).save(tmp_path / "face.png")
    noise = 0.2 * np.random.default_rng(0).standard_normal((14_700, 2)).clip(-4, 4)
    soundfile.write(tmp_path / "speech.wav", noise, 44_100)
    return tmp_path


def test_a_video_with_its_sound(galatea: Galatea, inputs: Path) -> None:
    outcome = galatea(*QUICK, "out=made")
    assert outcome.status == 0, outcome.err
    folder = inputs / "made"
    clip = decode(folder / "talk.mp4")
    assert clip.frames.shape == (9, 3, 300, 320)  # the odd last row is left out
    assert clip.fps == 25
    assert "generative model" in clip.metadata["comment"]
    samples, rate = decode_audio(folder / "talk.mp4")
    assert rate == 44_100
    assert len(samples) == 2  # the recording's own channels
    assert abs(samples.shape[-1] / rate - 9 / 25) < 1 / 25
    # What lies far from the face stays the photograph.
    truth = torch.from_numpy(data.astronaut()[:300, 80:400]).permute(2, 0, 1) / 255
    assert float((clip.frames[0, :, -40:] - truth[:, -40:]).abs().mean()) < 0.02
    report = json.loads((folder / "report.json").read_text())
    assert report["metrics"]["frames"] == 9
    assert report["metrics"]["frames_per_second"] > 0
    assert report["inputs"]["audio"]["file"] == "speech.wav"
    assert not (folder / "checkpoints/clips").exists()
    with Image.open(folder / "talk.png") as sheet:
        assert sheet.size == (8 * 130 - 2, 128)


@pytest.mark.parametrize(
    "box", [(10.5, 8, 33), (11, 41, 40.5), (300.5, 7.25, 61), (301, 139, 50), (150, 70, 90)]
)
def test_a_close_up_makes_the_same_face(box: tuple[float, float, float]) -> None:
    picture = torch.rand(3, 191, 367, generator=torch.Generator().manual_seed(0))
    sitter = Sitter(picture=picture, box=FaceBox(*box))
    near = sitter.close_up()
    assert near.picture.numel() < 0.6 * picture.numel()
    for found, wanted in zip(astuple(near.face(64)), astuple(sitter.face(64)), strict=True):
        assert torch.equal(found, wanted)
    assert near.crop.to_crop(near.box, 64) == sitter.crop.to_crop(sitter.box, 64)


def test_a_large_picture_is_scaled_in_the_video_and_said(galatea: Galatea, inputs: Path) -> None:
    with Image.open(inputs / "face.png") as picture:
        picture.resize((1280, 1204), Image.Resampling.BICUBIC).save(inputs / "face.png")
    box = "face_box=[420,280,480]"  # in the pixels of the picture as it is
    outcome = galatea(*QUICK, box, "max_size=320", "out=made")
    assert outcome.status == 0, outcome.err
    small = decode(inputs / "made/talk.mp4").frames
    assert small.shape[1:] == (3, 300, 320)
    (note,) = json.loads((inputs / "made/report.json").read_text())["notes"]
    assert note.startswith(
        "the picture of 1280 x 1204 pixels is scaled to 320 x 300 in the video (max_size=320;"
    )
    # The face speaks at the same place of the picture that keeps its size.
    assert galatea(*QUICK, box, "max_size=null", "out=whole").status == 0
    whole = decode(inputs / "whole/talk.mp4").frames
    assert whole.shape[1:] == (3, 1204, 1280)
    assert json.loads((inputs / "whole/report.json").read_text())["notes"] == []
    again = torch.nn.functional.interpolate(whole[:3], (300, 320), mode="bilinear", antialias=True)
    assert float((again - small[:3]).abs().mean()) < 0.02
    # The square alone is no whole picture: it is as large as the model makes it.
    assert galatea(*QUICK, box, "max_size=64", "frame=face", "out=square").status == 0
    assert decode(inputs / "square/talk.mp4").frames.shape[1:] == (3, 128, 128)


def test_a_video_that_few_players_show_is_said(galatea: Galatea, inputs: Path) -> None:
    wide = Image.new("RGB", (6208, 1552), (90, 120, 150))
    with Image.open(inputs / "face.png") as picture:
        wide.paste(picture, (3000, 600))
    wide.save(inputs / "face.png")
    soundfile.write(inputs / "speech.wav", np.full(1600, 0.1), 16_000)
    face = "face_box=[3110,620,120]"
    assert galatea(*QUICK, face, "out=made").status == 0
    (note,) = json.loads((inputs / "made/report.json").read_text())["notes"]
    assert note.endswith("where the face is 25 pixels wide")
    assert galatea(*QUICK, face, "max_size=null", "out=whole").status == 0
    (note,) = json.loads((inputs / "whole/report.json").read_text())["notes"]
    assert note.startswith("the video of 6208 x 1552 pixels is beyond what most players and phones show")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_inputs_from_pipes(galatea: Galatea, inputs: Path) -> None:
    assert galatea(*QUICK, "out=files").status == 0
    writers = []
    for name in ("face.png", "speech.wav", "talking.safetensors"):
        content = (inputs / name).read_bytes()
        (inputs / name).unlink()
        os.mkfifo(inputs / name)
        writers.append(threading.Thread(target=(inputs / name).write_bytes, args=(content,), daemon=True))
        writers[-1].start()
    outcome = galatea(*QUICK, "out=pipes")
    assert outcome.status == 0, outcome.err
    assert (inputs / "pipes/talk.mp4").read_bytes() == (inputs / "files/talk.mp4").read_bytes()
    described = [
        json.loads((inputs / out / "report.json").read_text())["inputs"] for out in ("files", "pipes")
    ]
    assert described[0] == described[1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_that_holds_no_picture_is_named_as_typed(galatea: Galatea, inputs: Path) -> None:
    os.mkfifo(inputs / "typed")
    threading.Thread(target=(inputs / "typed").write_bytes, args=(b"words",), daemon=True).start()
    outcome = galatea(*QUICK, "portrait=typed", "out=made")
    assert outcome.status == 2
    assert outcome.err[-1].startswith("galatea: portrait: typed is no picture")


def test_an_interrupted_video_ends_in_the_same_bytes(galatea: Galatea, inputs: Path) -> None:
    settings = (*QUICK, "frame=face", "fps=30000/1001")
    assert galatea(*settings, "out=whole").status == 0
    # As if killed in the second clip: the first one's latents and checkpoint are there.
    assert galatea(*settings, "out=broken").status == 0
    folder = inputs / "broken"
    for name in ("report.json", "report.html", "provenance.json", "talk.mp4", "talk.png"):
        (folder / name).unlink()
    store = CheckpointStore(folder / "checkpoints")
    for step in store.steps():
        shutil.rmtree(store.path(step))
    first = _first_clip(galatea, settings, inputs)
    shutil.copytree(first / "checkpoints", folder / "checkpoints", dirs_exist_ok=True)
    assert len(list((folder / "checkpoints/clips").iterdir())) == 1
    outcome = galatea(*settings, "out=broken")
    assert outcome.status == 0, outcome.err
    for name in ("talk.mp4", "talk.png"):
        assert (folder / name).read_bytes() == (inputs / "whole" / name).read_bytes()


def test_a_run_is_not_continued_with_other_adapters(galatea: Galatea, inputs: Path) -> None:
    _first_clip(galatea, QUICK, inputs)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        save_adapters(inputs / "talking.safetensors", TalkingModel(load("tiny").unet, TINY))
    outcome = galatea(*QUICK, "out=stopped")
    assert outcome.status == 2
    assert "talking (talking.safetensors) has other weights than when stopped was begun" in outcome.err[-1]
    record = inputs / "stopped" / ".run.json"
    for damage in ('{"inputs": "12', "[]"):
        record.write_text(damage)
        outcome = galatea(*QUICK, "out=stopped")
        assert outcome.status == 2
        assert ".run.json, which records what the run was begun with, is damaged" in outcome.err[-1]
    assert galatea(*QUICK, "out=stopped", "overwrite=true").status == 0


def _first_clip(galatea: Galatea, settings: tuple[str, ...], inputs: Path) -> Path:
    """The run folder of a run that was stopped after its first clip."""
    import experiments.tasks.talk as talk

    folder = inputs / "stopped"
    keep = talk.Run.save

    def save(run: Any, step: int, *more: Any) -> None:
        keep(run, step, *more)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(talk.Run, "save", save)
        assert galatea(*settings, "out=stopped").status == 130
    return folder


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("portrait=none.png", "there is no file none.png"),
        ("portrait=speech.wav", "speech.wav"),
        ("portrait=blank.png", "no face was found"),
        ("audio=none.wav", "none.wav"),
        ("audio=face.png", "face.png"),
        ("audio=short.wav", "at least 0.1 s"),
        ("audio=nan.wav", "NaN"),
        ("fps=0", "fps is '0'"),
        ("fps=many", "fps is 'many'"),
        ("face_box=[0,0,5000]", "leaves the picture"),
        ("face_model=none.tflite", "face_model: there is no MediaPipe face model none.tflite"),
        ("talking=none.safetensors", "has no talking adapters"),
        ("talking=speech.wav", "cannot be read as safetensors"),
        ("animate.lip_weight=-1", "lip_weight must lie in 0..5, got -1"),
        ("animate.clip_frames=31", "the talking model makes at most 30 frames at once"),
        ("animate.num_steps=1001", "num_steps must lie in 1..1000, got 1001"),
    ],
)
def test_what_is_refused(galatea: Galatea, inputs: Path, setting: str, words: str) -> None:
    Image.new("RGB", (200, 200), "white").save(inputs / "blank.png")
    soundfile.write(inputs / "short.wav", np.zeros(160), 16_000)
    soundfile.write(inputs / "nan.wav", np.full(8_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    outcome = galatea(*QUICK, setting, "out=made")
    assert outcome.status == 2
    assert words in "\n".join(outcome.err)
    assert not (inputs / "made" / "talk.mp4").exists()


def test_what_is_heard(galatea: Galatea, inputs: Path) -> None:
    """Eight channels at 96 kHz work, silence as a portrait that is still, and a cut file whose channels cancel."""
    loud = 0.3 * np.random.default_rng(0).standard_normal((19_200, 8)).clip(-3, 3)
    soundfile.write(inputs / "eight.wav", loud, 96_000)
    soundfile.write(inputs / "silence.wav", np.zeros(3_200), 16_000)
    noise = 0.3 * np.random.default_rng(0).standard_normal(3_200).clip(-3, 3)
    soundfile.write(inputs / "against.wav", np.stack([noise, -noise], 1), 16_000)
    whole = (inputs / "against.wav").read_bytes()
    (inputs / "against.wav").write_bytes(
        whole.replace(b"data" + whole[40:44], b"data" + (1 << 20).to_bytes(4, "little"))
    )
    for name in ("eight", "silence", "against"):
        outcome = galatea(*QUICK, f"audio={name}.wav", f"out={name}")
        assert outcome.status == 0, outcome.err
        assert len(decode(inputs / name / "talk.mp4").frames) == 5
    assert "silent throughout" in (inputs / "silence" / "report.json").read_text()
    report = (inputs / "against" / "report.json").read_text()
    assert "the recording is cut short or damaged: of 16.38 s only 0.20 s can be read" in report
    assert "the recording has channels that cancel one another" in report
