"""Training the talking portrait: three lessons into one file of adapters, exact resume, and the two measures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from avatar.mouth import MouthReader
from avatar.storage import load_adapters
from avatar.syncnet import SyncNet
from diffusion.backbone import load
from diffusion.registry import find
from experiments.speaking import ADAPTERS, MOUTH, SYNC
from experiments.training.talking import TalkingData, portrait_box, sound_windows
from experiments.world.config import TalkingConfig
from experiments.world.talking import make_clip

Galatea = Callable[..., Any]
SMALL = ("budget=smoke", "threads=1", "workers=1", "backbone.name=./model", "checkpoint_every=1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting of a folder that the first training fills and the others find full."""
    return f"data_folder={tmp_path_factory.mktemp('talking')}"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = find("tiny").folder
    assert folder is not None
    shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("talking"))
    return tmp_path / "model"


@pytest.mark.slow
def test_lessons_go_on_from_one_another(galatea: Galatea, tmp_path: Path, model: Path, data: str) -> None:
    assert galatea("experiment=train/tiny_sound", *SMALL, data, "out=sound").status == 0
    before = load_file(model / ADAPTERS)
    for lesson in ("image", "video", "motion"):
        outcome = galatea("experiment=train/tiny_talk", *SMALL, data, f"lesson={lesson}", f"out={lesson}")
        assert outcome.status == 0, outcome.err
        weights = load_file(model / ADAPTERS)
        changed = {n.split(".")[0] for n, value in weights.items() if not torch.equal(value, before[n])}
        if lesson == "image":
            assert changed == {"unet", "reference_projection", "identity", "locator"}
        if lesson == "video":
            assert changed == {"audio", "motion"}
        if lesson == "motion":
            # Blinks come through a layer that starts at zero: two steps hardly move them.
            assert {"motion"} <= changed <= {"motion", "speed", "blink"}
        before = weights
        held_out = json.loads((tmp_path / lesson / "report.json").read_text())["metrics"]["held_out"]
        assert held_out.keys() == ({"v_error"} if lesson == "image" else {"v_error", "v_error_other_sound"})
    assert load_adapters(model / ADAPTERS, load(model).unet).config.reference_net == "shared"
    # As if killed after its first step: the second ends in the same weights.
    folder = tmp_path / "motion"
    for name in ("report.json", "report.html", "provenance.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints" / "step_00000002")
    outcome = galatea("experiment=train/tiny_talk", *SMALL, data, "lesson=motion", "out=motion")
    assert outcome.status == 0, outcome.err
    again = load_file(model / ADAPTERS)
    assert all(torch.equal(again[name], value) for name, value in before.items())
    # Adapters that are there keep to what they have a copy of.
    outcome = galatea(
        "experiment=train/tiny_talk", *SMALL, data, "lesson=image", "tune_unet=all", "out=refused"
    )
    assert outcome.status == 2
    assert (
        "tune_unet is all, and model/talking/model.safetensors has adapters that were begun with attention"
        in (outcome.err[-1])
    )
    # A UNet that was trained further needs to be asked for.
    file = model / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    save_file({**weights, "conv_in.weight": weights["conv_in.weight"] + 0.1}, file)
    onto = ("experiment=train/tiny_talk", *SMALL, data, "lesson=image")
    outcome = galatea(*onto, "out=refused_too")
    assert outcome.status != 0
    assert "another UNet" in "\n".join(outcome.err)
    assert "new_unet=true" in "\n".join(outcome.err)
    assert galatea(*onto, "new_unet=true", "out=onto").status == 0
    assert load_adapters(model / ADAPTERS, load(model).unet).config.tune_unet == "attention"


@pytest.mark.slow
def test_accelerate_launch_trains_as_processes_of_our_own_do(
    galatea: Galatea, tmp_path: Path, model: Path, data: str, subprocess_environment: dict[str, str]
) -> None:
    command = ["experiment=train/tiny_talk", *SMALL, data, "lesson=image", "threads=2"]
    assert galatea(*command, "loop.processes=2", "out=ours").status == 0
    ours = load_file(model / ADAPTERS)
    shutil.rmtree((model / ADAPTERS).parent)
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    launch += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0", "-m", "experiments"]

    # Layers that are computed twice change nothing either.
    done = subprocess.run(
        [sys.executable, *launch, *command, "gradient_checkpointing=true", "out=theirs"], cwd=tmp_path,
        env=subprocess_environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("train          ") == 1
    theirs = load_file(model / ADAPTERS)
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


def test_what_launched_processes_cannot_share_is_refused_before_anything_is_made(
    galatea: Galatea, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    settings = (*SMALL, "data_folder=nothing", "lesson=image", "loop.batch_size=3", "out=refused")
    outcome = galatea("experiment=train/tiny_talk", *settings)
    assert outcome.status == 2
    assert "loop.batch_size is 3, which the 2 processes" in outcome.err[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "file", "network"), [("mouth", MOUTH, MouthReader), ("sync", SYNC, SyncNet)]
)
def test_measures(
    galatea: Galatea, model: Path, data: str, part: str, file: str, network: type[torch.nn.Module]
) -> None:
    outcome = galatea(f"experiment=train/tiny_{part}", *SMALL, data, f"out={part}")
    assert outcome.status == 0, outcome.err
    network().load_state_dict(load_file(model / file))


def test_what_is_refused(galatea: Galatea, tmp_path: Path, model: Path) -> None:
    for setting, words in (
        ("backbone.name=tiny", "must be a folder"),
        ("data.held_out=true", "data.held_out is true"),
        ("lesson.drop_audio=0.1", "drop_audio belongs to lesson=motion or lesson=video"),
        ("held_out_clips=0", "held_out_clips must be at least 1, got 0"),
        ("data.num_frames=2", "data.num_frames is 2; this lesson sees 1 and, before it, 2 motion frames"),
        ("data.augment.reverb_seconds=[0,0.5]", "reverb_seconds must rise within 0.02 ... 10"),
        ("loop.learning_rate=1e30", "learning_rate must lie above 0 and up to 10, got 1e+30"),
    ):
        outcome = galatea("experiment=train/tiny_talk", *SMALL, "lesson=image", setting, "out=made")
        assert outcome.status == 2
        assert words in "\n".join(outcome.err)
        assert not (tmp_path / "made").exists()


def test_a_new_unet_begins_with_pictures(galatea: Galatea, model: Path) -> None:
    outcome = galatea("experiment=train/tiny_talk", *SMALL, "lesson=video", "new_unet=true", "out=made")
    assert outcome.status == 2
    assert "new_unet is true" in "\n".join(outcome.err)


def test_what_a_recipe_sees_of_a_clip() -> None:
    config = TalkingConfig(num_clips=1, num_frames=3, size=32, speech="formants")
    clip = make_clip(config, 0)
    data = TalkingData([clip, clip])
    assert len(data) == 2
    assert data.num_frames == 3
    assert data.windows.shape == (2, 3, 5, 4, 80)
    # The window of a frame holds its neighbours, and its middle is the frame itself.
    assert torch.equal(data.windows[0, 0, 3], data.windows[0, 1, 2])
    assert torch.equal(sound_windows(clip), data.windows[1])
    box = portrait_box(clip.portrait_landmarks)
    assert 0.3 * 32 < box.size < 32
    assert float(data.blink.max()) <= 1
