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

from avatar.audio import SAMPLE_RATE, AudioClip, AudioFile
from experiments.benchmark.talk_files import FLOOR_DB, loudness, pairs, read_folder
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


def test_every_file_takes_part() -> None:
    faces, sounds = [Path("eileen.png")], [Path("a.wav"), Path("b.wav")]
    assert [pair.name for pair in pairs(faces, sounds)] == ["eileen, a", "eileen, b"]
    assert [pair.name for pair in pairs(sounds, faces)] == ["a, eileen", "b, eileen"]


def test_what_cannot_be_read_is_left_out_with_its_reason(files: Path) -> None:
    folder = files / "sounds"
    (folder / "notes.txt").write_text("no sound")
    (folder / ".DS_Store").write_bytes(bytes(100))
    (folder / "0.wav").write_bytes(b"")
    (folder / "inner").mkdir()
    found, left_out = read_folder("audio_dir", folder, AudioFile)
    assert [path.name for path in found] == ["a.wav", "b.wav"]
    assert list(left_out) == ["0.wav", "notes.txt"]
    assert left_out["0.wav"] == "0.wav is an empty file"
    assert left_out["notes.txt"].startswith("notes.txt is no sound file that can be read")
    with pytest.raises(UserError, match=r"audio_dir is .* no files that can be used \(it is empty\)"):
        read_folder("audio_dir", folder / "inner", AudioFile)
    with pytest.raises(UserError, match=r"no files that can be used \(eileen.png is no sound file"):
        read_folder("audio_dir", files / "faces", AudioFile)
    with pytest.raises(UserError, match=r"portrait_dir is .* no folder"):
        read_folder("portrait_dir", files / "none", AudioFile)


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


def test_files_of_other_kinds_are_left_out_and_listed(
    galatea: Callable[..., Any], files: Path, talking: Path
) -> None:
    (files / "sounds" / "notes.txt").write_text("no sound")
    (files / "faces" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(500))
    whole = (files / "sounds" / "b.wav").read_bytes()
    (files / "sounds" / "b.wav").write_bytes(whole[: len(whole) * 6 // 10])
    outcome = galatea(*BENCHMARK, *MODEL, *FOLDERS)
    assert outcome.status == 0, outcome.err
    folder = files / "made"
    result = json.loads((folder / "talk_files.json").read_text())
    assert [each["audio"]["file"] for each in result["pairs"]] == ["a.wav", "b.wav"]
    assert list(result["left_out"]) == ["portrait_dir/Thumbs.db", "audio_dir/notes.txt"]
    notes = json.loads((folder / "report.json").read_text())["notes"]
    for words in (
        "audio_dir/notes.txt is left out: notes.txt is no sound",
        "b.wav: the recording is cut short",
    ):
        assert any(words in note for note in notes), notes
    assert "- audio_dir/notes.txt: " in (folder / "talk_files.md").read_text()


def test_what_is_refused(galatea: Callable[..., Any], files: Path, talking: Path) -> None:
    (files / "texts").mkdir()
    (files / "texts" / "notes.txt").write_text("no sound")
    outcome = galatea(*BENCHMARK, *MODEL, FOLDERS[0], "audio_dir=texts")
    assert (outcome.status, "notes.txt" in "\n".join(outcome.err)) == (2, True)
    outcome = galatea(*BENCHMARK, *MODEL, *FOLDERS, "seconds=0.1")
    assert (outcome.status, "seconds must lie in 0.4..600, got 0.1" in "\n".join(outcome.err)) == (2, True)
    outcome = galatea(*BENCHMARK, *MODEL, *FOLDERS, "face=center", "seconds=0.4", "fps=1")
    assert (outcome.status, "makes a single frame" in "\n".join(outcome.err)) == (2, True)
    assert not (files / "made").exists()
