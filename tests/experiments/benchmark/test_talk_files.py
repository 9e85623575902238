"""The talking benchmark on anybody's files, end to end on untrained weights, and what it measures on known signals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from skimage import data

from avatar.audio import SAMPLE_RATE, AudioClip
from experiments.benchmark.talk_files import FLOOR_DB, loudness, pairs
from experiments.errors import UserError

BENCHMARK = ("experiment=benchmark/talk_files", "budget=smoke", "threads=1", "out=made")
MODEL = ("talking=talking/model.safetensors", "measures=talking")
FOLDERS = ("portrait_dir=faces", "audio_dir=sounds")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A photograph, and two recordings of which the first falls silent half way."""
    for name in ("faces", "sounds"):
        (tmp_path / name).mkdir()
    Image.fromarray(data.astronaut()).save(tmp_path / "faces" / "eileen.png")
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tone = 0.5 * np.sin(2 * math.pi * 220 * time).astype(np.float32)
    soundfile.write(tmp_path / "sounds" / "a.wav", np.where(time < 0.3, tone, 0.0), SAMPLE_RATE)
    soundfile.write(tmp_path / "sounds" / "b.wav", tone * np.abs(np.sin(9 * time)), SAMPLE_RATE)
    return tmp_path


def test_loudness_of_a_tone_that_is_halved_and_then_stops() -> None:
    time = torch.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    gain = torch.where(time < 1, 0.8, torch.where(time < 2, 0.4, 0.0))
    found = loudness(AudioClip(gain * torch.sin(2 * math.pi * 500 * time)), Fraction(25), 75)
    assert found.shape == (75,)
    torch.testing.assert_close(found[:25], torch.zeros(25), atol=0.05, rtol=0)
    torch.testing.assert_close(found[25:50], torch.full((25,), -6.02), atol=0.05, rtol=0)
    assert bool((found[50:] == FLOOR_DB).all())
    silence = loudness(AudioClip(torch.zeros(SAMPLE_RATE)), Fraction(30000, 1001), 30)
    assert bool((silence == FLOOR_DB).all())


def test_every_file_takes_part(files: Path) -> None:
    found = pairs(files / "faces", files / "sounds")
    assert [pair.name for pair in found] == ["eileen, a", "eileen, b"]
    (files / "empty").mkdir()
    with pytest.raises(UserError, match="holds no files"):
        pairs(files / "empty", files / "sounds")
    with pytest.raises(UserError, match=r"portrait_dir is .* no folder"):
        pairs(files / "none", files / "sounds")


def test_measures_and_writes(galatea: Callable[..., Any], files: Path, talking: Path) -> None:
    outcome = galatea(*BENCHMARK, *MODEL, *FOLDERS)
    assert outcome.status == 0, outcome.err
    folder = files / "made"
    result = json.loads((folder / "talk_files.json").read_text())
    assert [each["audio"]["file"] for each in result["pairs"]] == ["a.wav", "b.wav"]
    assert all(each["num_frames"] == 15 for each in result["pairs"])
    assert {"loudness_r", "identity"} <= result["scores"].keys()
    assert result["controls"]["static"]["loudness_r"] == 0.0
    assert result["controls"]["static"]["identity"] == pytest.approx(1.0)
    assert "loudness_r" in result["controls"]["shuffled"]
    for name in ("talk_files.md", "talk_files.png", "pair_00.mp4", "pair_01.mp4"):
        assert (folder / name).stat().st_size > 500
    assert "eileen.png, b.wav" in (folder / "talk_files.md").read_text()


def test_what_is_refused(galatea: Callable[..., Any], files: Path, talking: Path) -> None:
    (files / "sounds" / "notes.txt").write_text("no sound")
    outcome = galatea(*BENCHMARK, *MODEL, *FOLDERS)
    assert (outcome.status, "notes.txt" in "\n".join(outcome.err)) == (2, True)
    outcome = galatea(*BENCHMARK, *MODEL, *FOLDERS, "seconds=0.1")
    assert (outcome.status, "seconds is 0.1" in "\n".join(outcome.err)) == (2, True)
    assert not (files / "made").exists()
