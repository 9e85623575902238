"""A model that makes NaN stops its run, in every task, with one line that names the part, and leaves no result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data

from avatar.config import TINY
from avatar.model import TalkingModel
from avatar.mouth import MouthReader
from avatar.storage import save_adapters
from diffusion.backbone import load, save_backbone
from diffusion.finite import NonFiniteError
from experiments.benchmark.talk_scores import read_mouths
from tests.avatar.talking import randomise
from tests.diffusion.models import make_parts

Galatea = Callable[..., Any]
SAMPLE = ("experiment=sample/multiview", "budget=smoke", "threads=1", "prompt=x", "sampling.num_steps=2")
# Finite, but what comes of it is not.
HUGE = 1e30


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_backbone(folder, **make_parts(), num_views=4, image_size=64, revision="r1", dtype=torch.float32)
    return folder


def _change(folder: Path, part: str, value: float, name: str = "") -> None:
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    for key in tensors:
        if name in key and tensors[key].is_floating_point():
            tensors[key].fill_(value)
    save_file(tensors, file, {"format": "pt"})


def _results(folder: Path) -> list[str]:
    """What a run left that could be taken for a result."""
    kinds = {".png", ".mp4", ".glb", ".obj", ".ply", ".stl", ".html", ".md"}
    return [path.name for path in folder.rglob("*") if path.suffix in kinds or path.name == "report.json"]


@pytest.mark.parametrize("part", ["text_encoder", "image_encoder", "vae", "unet"])
def test_damaged_weights_are_refused_at_once(
    galatea: Galatea, tmp_path: Path, model: Path, part: str
) -> None:
    _change(model, part, float("nan"))
    outcome = galatea(*SAMPLE, f"backbone={model}", "out=made")
    assert outcome.status == 2
    assert "holds NaN or infinity" in outcome.err[-1]
    assert f"/{part}/" in outcome.err[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("part", "name", "called"),
    [
        ("text_encoder", "layer_norm", "text encoder"),
        ("unet", "conv_in", "UNet"),
        ("vae", "post_quant_conv", "VAE decoder"),
        ("image_encoder", "projection", "image encoder"),
    ],
)
def test_a_part_that_makes_nan_stops_the_run(
    galatea: Galatea, tmp_path: Path, model: Path, part: str, name: str, called: str
) -> None:
    _change(model, part, HUGE if part != "image_encoder" else 3e38, name)
    outcome = galatea(*SAMPLE, f"backbone={model}", "out=made")
    assert outcome.status == 1
    assert f"the {called} of backbone" in outcome.err[-1]
    assert "NaN or infinity" in outcome.err[-1]
    assert "internal error" not in outcome.err[-1]
    assert _results(tmp_path / "made") in ([], ["views.png"] if part == "image_encoder" else [])


@pytest.mark.parametrize("experiment", ["text_to_3d/quickstart", "benchmark/tiny"])
def test_so_do_the_tasks_that_sample_views(
    galatea: Galatea, tmp_path: Path, tiny_weights: Path, experiment: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_weights, folder)
    (file,) = (folder / "unet").glob("*.safetensors")
    tensors = {key: value.float() for key, value in load_file(file).items()}
    tensors["conv_in.weight"] *= HUGE
    save_file(tensors, file, {"format": "pt"})
    words = ("prompt=a red mushroom",) if experiment.startswith("text") else ("num_pictures=2",)
    outcome = galatea(
        f"experiment={experiment}", "budget=smoke", "threads=1", *words, f"backbone={folder}", "out=made"
    )
    assert outcome.status == 1
    assert "the UNet of backbone" in outcome.err[-1]
    assert _results(tmp_path / "made") == []


@pytest.mark.parametrize(
    ("value", "name", "status", "words"),
    [
        (float("nan"), "audio", 2, "holds NaN or infinity; fetch or train it again"),
        (HUGE, "audio_projection", 1, "what the talking model hears holds NaN or infinity"),
        (HUGE, "attention", 1, "what the talking model predicts holds NaN or infinity"),
    ],
)
def test_so_does_a_talking_model(
    galatea: Galatea, tmp_path: Path, value: float, name: str, status: int, words: str
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TalkingModel(load("tiny").unet, TINY)
    randomise(model)
    save_adapters(tmp_path / "talking.safetensors", model, dtype=torch.float32)
    (tmp_path / "folder").mkdir()
    shutil.move(tmp_path / "talking.safetensors", tmp_path / "folder" / "talking.safetensors")
    file = tmp_path / "folder" / "talking.safetensors"
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    assert any(name in key for key in tensors), sorted(tensors)
    for key in tensors:
        if name in key:
            tensors[key].fill_(value)
    save_file(tensors, file, metadata)
    Image.fromarray(data.astronaut()[:300, 80:400]).save(tmp_path / "face.png")
    soundfile.write(tmp_path / "speech.wav", 0.2 * np.sin(np.arange(4_000)), 16_000)
    outcome = galatea(
        "experiment=talk/quickstart", "budget=smoke", "threads=1", "animate.num_steps=2", f"talking={file}",
        "portrait=face.png", "audio=speech.wav", "out=made",
    )  # fmt: skip
    assert outcome.status == status
    assert words in outcome.err[-1]
    assert _results(tmp_path / "made") == []


def test_a_reader_of_mouths_that_fails_is_not_a_score_left_out() -> None:
    reader = MouthReader()
    assert read_mouths(reader, torch.rand(2, 3, 48, 48)).shape == (2,)
    reader.out.weight.data.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="the reader of mouths makes holds NaN"):
        read_mouths(reader, torch.rand(2, 3, 48, 48))


def test_a_training_that_diverges_says_what_to_try(galatea: Galatea, tmp_path: Path) -> None:
    outcome = galatea(
        "experiment=train/tiny_vae", "budget=smoke", "threads=1", "model=tiny", "data_folder=data",
        "data.num_scenes=2", "held_out_scenes=1", "portraits=0", "workers=1", "loop.learning_rate=10",
        "loop.warmup=0", "loop.steps=6", "loop.validate_every=6", "loop.batch_size=2", "out=made",
    )  # fmt: skip
    assert outcome.status == 1
    assert "the weights diverge: lower loop.learning_rate" in outcome.err[-1]
    assert _results(tmp_path / "made") == []
