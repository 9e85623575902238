"""A run killed with SIGKILL and started again ends with the very bytes of a run that was left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from experiments.errors import EXIT_OK
from experiments.run.checkpoint import STATE, CheckpointStore

ROOT = Path(__file__).resolve().parents[2]
COUNTING = [
    "--config-dir",
    str(ROOT / "tests" / "experiments" / "configs"),
    "experiment=test/counting",
    "prompt=x",
    "num_steps=40",
    "checkpoint_every=7",
    "threads=1",
]


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path.is_file() else 0


def kill_when(command: list[str], environment: dict[str, str], cwd: Path, ready: Callable[[], bool]) -> None:
    """Start a process and kill it, unasked, as soon as `ready()`."""
    process = subprocess.Popen(
        command, env=environment, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 900
        while not ready():
            if process.poll() is not None:
                _, stderr = process.communicate()
                pytest.fail(f"ended before it could be killed: {stderr.decode()}")
            assert time.monotonic() < deadline, "never got to the moment of the kill"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


@pytest.mark.parametrize("after", [1, 12, 33])
def test_small_task(
    galatea: Callable[..., Any], tmp_path: Path, subprocess_environment: dict[str, str], after: int
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, str(ROOT / "tests" / "experiments" / "counting_cli.py"), *COUNTING]
    ready = lambda: lines(killed) >= after  # noqa: E731
    kill_when([*command, "pause=0.05", f"out={killed}"], subprocess_environment, tmp_path, ready)
    assert not (killed / "report.json").exists()
    before = CheckpointStore(killed / "checkpoints").steps()
    assert (before[-1] if before else 0) >= after // 7 * 7
    # `pause` is a setting like any other, so the other two runs have it as well.
    assert galatea(*COUNTING, "pause=0.05", f"out={killed}", own_configs=False).status == EXIT_OK
    assert galatea(*COUNTING, "pause=0.05", f"out={whole}", own_configs=False).status == EXIT_OK
    assert (killed / "x.safetensors").read_bytes() == (whole / "x.safetensors").read_bytes()
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.filterwarnings("default::experiments.run.checkpoint.CheckpointWarning")
def test_a_damaged_newest_checkpoint_costs_steps_not_the_result(
    galatea: Callable[..., Any], tmp_path: Path
) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    arguments = [*COUNTING, "fail_at=null"]
    assert galatea(*COUNTING, "fail_at=30", f"out={stopped}", own_configs=False).status == 130
    store = CheckpointStore(stopped / "checkpoints")
    newest = store.path(store.steps()[-1]) / STATE
    newest.write_bytes(newest.read_bytes()[:-8])
    config = (stopped / "config.yaml").read_text().replace("fail_at: 30", "fail_at: null")
    (stopped / "config.yaml").write_text(config)
    outcome = galatea(*arguments, f"out={stopped}", own_configs=False)
    assert outcome.status == EXIT_OK
    assert any("cannot be read" in line and "going back to step 21" in line for line in outcome.err)
    assert galatea(*arguments, f"out={whole}", own_configs=False).status == EXIT_OK
    assert (stopped / "x.safetensors").read_bytes() == (whole / "x.safetensors").read_bytes()


@pytest.mark.slow
def test_quickstart_mesh_is_bit_identical(
    galatea: Callable[..., Any], tiny_weights: Path, tmp_path: Path, subprocess_environment: dict[str, str]
) -> None:
    """Three kills of one run: early in the reconstruction, in its middle, and in the refinement of the mesh."""
    arguments = [
        *("experiment=text_to_3d/quickstart", "prompt=a red mushroom", "budget=smoke"),
        *(f"backbone={tiny_weights}", "threads=1", "checkpoint_every=4"),
        *("turntable.num_frames=3", "turntable.size=64", "turntable.preview_size=64"),
    ]
    command = [sys.executable, "-m", "experiments", *arguments]
    killed, whole = tmp_path / "killed", tmp_path / "whole"

    def stage_reached(name: str) -> bool:
        path = killed / "metrics.jsonl"
        return path.is_file() and f'"phase": "{name}"' in path.read_text()

    moments: list[Callable[[], bool]] = [
        lambda: lines(killed) >= 2,
        lambda: lines(killed) >= 22,
        lambda: stage_reached("refine"),
    ]
    for ready in moments:
        kill_when([*command, f"out={killed}"], subprocess_environment, tmp_path, ready)
    for folder in (killed, whole):
        done = galatea(*arguments, f"out={folder}", own_configs=False)
        assert done.status == EXIT_OK, done.err
    for name in ("mesh.glb", "mesh.obj", "mesh.ply", "mesh.stl", "preview.png", "turntable.mp4"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
def test_a_killed_portrait_is_not_continued_with_another_recording(
    galatea: Callable[..., Any], tiny_weights: Path, tmp_path: Path, subprocess_environment: dict[str, str]
) -> None:
    """Killed behind its first clip; another sound of the same name is refused, and the first one ends as ever."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "face.png")
    first, other = (0.1 * rng.standard_normal(8_000) for _ in range(2))
    soundfile.write(tmp_path / "speech.wav", first, 16_000)
    arguments = [
        *(
            "experiment=talk/quickstart",
            "portrait=face.png",
            "audio=speech.wav",
            "face=center",
            "budget=smoke",
        ),
        *(f"backbone={tiny_weights}", "threads=1", "animate.clip_frames=3"),
    ]
    command = [sys.executable, "-m", "experiments", *arguments]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    ready = (killed / "checkpoints/clips/000000.safetensors").is_file
    kill_when([*command, f"out={killed}"], subprocess_environment, tmp_path, ready)

    soundfile.write(tmp_path / "speech.wav", other, 16_000)
    refused = galatea(*arguments, f"out={killed}", own_configs=False)
    assert refused.status == 2
    assert "audio (speech.wav) has other content than when" in refused.err[-1]
    soundfile.write(tmp_path / "speech.wav", first, 16_000)
    for folder in (killed, whole):
        done = galatea(*arguments, f"out={folder}", own_configs=False)
        assert done.status == EXIT_OK, done.err
    assert (killed / "talk.mp4").read_bytes() == (whole / "talk.mp4").read_bytes()
