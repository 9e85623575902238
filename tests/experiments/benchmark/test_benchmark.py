"""The task: what it refuses, that finished assets are kept, and that one failure is only one failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from experiments.benchmark.assets import Asset, Job, make_assets
from experiments.benchmark.cases import Case
from experiments.benchmark.config import ScoreConfig
from experiments.benchmark.making import backbone_of
from experiments.benchmark.truth import Truth
from experiments.errors import UserError
from experiments.run.provenance import SOURCE
from gen3d.export import save_glb

BENCHMARK = "experiment=benchmark/text_to_3d"
SMALL = ["scoring.resolution=32", "scoring.mesh_resolution=40", "scoring.num_points=1000", "budget=smoke"]
Galatea = Callable[..., Any]


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return f"prompts={path.name}"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, ["mine.txt", "No such file"]),
        ("", ["mine.txt holds no caption"]),
        ("\n# a remark\n \n", ["mine.txt holds no caption"]),
        ("a red mushroom\n\na red wombat\n", ["line 3", "wombat"]),
        ("a red mushroom\na red mushroom\n", ["line 2 repeats line 1"]),
    ],
)
def test_a_bad_file_of_captions_is_one_line(
    galatea: Galatea, tmp_path: Path, text: str | None, parts: list[str]
) -> None:
    given = "prompts=mine.txt" if text is None else write(tmp_path / "mine.txt", text)
    outcome = galatea(BENCHMARK, given, "out=made")
    assert outcome.status == 2
    assert len(outcome.err) == 1
    for part in parts:
        assert part in outcome.err[0]
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("num_things=-1", "num_things must not be negative, got -1"),
        ("assets_at_once=0", "assets_at_once must be at least 1, got 0"),
        ("method=text_to_3d/quick", "unknown experiment 'text_to_3d/quick'"),
        ('asset_settings=["seed=3"]', "asset_settings holds 'seed=3'"),
        ("scoring.resolution=2", "scoring: resolution must lie in 8..512, got 2"),
    ],
)
def test_bad_settings_are_one_line(galatea: Galatea, tmp_path: Path, setting: str, part: str) -> None:
    outcome = galatea(BENCHMARK, setting, "out=made")
    assert outcome.status == 2
    assert part in outcome.err[0]
    assert not (tmp_path / "made").exists()


def finished_asset(folder: Path, caption: str, prompt: str | None = None) -> None:
    """A run folder as a finished asset leaves it, with the world's own mesh of `caption` in it, whatever was asked."""
    folder.mkdir(parents=True)
    save_glb(Truth(caption, ScoreConfig(mesh_resolution=40)).mesh, folder / "mesh.glb")
    (folder / "config.yaml").write_text(yaml.safe_dump({"task": "text_to_3d", "prompt": prompt or caption}))
    report = {
        "artefacts": [{"file": "mesh.glb", "kind": "mesh"}],
        "generated_by_ai": True,
        "backbone": {"name": "tiny", "revision": "r"},
        "seconds_total": 12.5,
        "peak_memory_mb": 900.0,
        "metrics": {"rerender_psnr_db": {"glb": 41.0}},
    }
    (folder / "report.json").write_text(json.dumps(report))


@pytest.mark.slow
def test_finished_assets_are_kept_and_one_failure_is_recorded(galatea: Galatea, tmp_path: Path) -> None:
    prompts = write(tmp_path / "mine.txt", "a red ball\na blue cube\n")
    finished_asset(tmp_path / "made" / "assets" / "000", "a red ball")
    # The mark of a run of ours that was killed: its folder with a config.
    arguments = [BENCHMARK, prompts, *SMALL, "backbone=/nowhere/model", "out=made"]
    shown = galatea(*arguments, "--cfg", "job", "--resolve")
    assert shown.status == 0
    (tmp_path / "made" / "config.yaml").write_text(shown.out)

    outcome = galatea(*arguments)

    assert outcome.status == 0, outcome.err
    folder = tmp_path / "made"
    result = json.loads((folder / "benchmark.json").read_text())
    kept, failed = result["assets"]
    assert (kept["caption"], kept["reason"]) == ("a red ball", "")
    assert kept["scores"]["iou"] > 0.9
    assert kept["costs"]["seconds"] == 12.5
    assert kept["costs"]["psnr_db"] == 41.0
    assert kept["controls"]["oracle"]["iou"] >= kept["controls"]["other_proportions"]["iou"]
    assert kept["controls"]["other_proportions"]["iou"] > kept["controls"]["wrong_caption"]["iou"]
    assert failed["scores"]["iou"] == 0.0
    assert "exit status 2" in failed["reason"]
    assert "/nowhere/model" in failed["reason"]
    assert result["groups"]["things"]["failed"] == 1
    assert result["r_precision"].startswith("not measured")
    assert "a blue cube (failed: exit status 2" in (folder / "benchmark.md").read_text()
    assert (folder / "contact_sheet.png").stat().st_size > 1000
    assert any("things" in line for line in outcome.err)
    assert json.loads((folder / "report.json").read_text())["generated_by_ai"] is True
    again = galatea(*arguments)
    assert again.status == 0
    assert "finished already" in again.err[0]
    write(tmp_path / "mine.txt", "a red ball\n")
    (folder / "report.json").unlink()
    assert "prompts (mine.txt) has other content than when made was begun" in galatea(*arguments).err[-1]


def test_settings_that_no_asset_accepts_stop_at_once(galatea: Galatea, tmp_path: Path) -> None:
    outcome = galatea(BENCHMARK, *SMALL, 'asset_settings=["recipe.nonsense=3"]', "out=made")
    assert outcome.status == 2
    assert "nonsense" in outcome.err[-1]
    assert not (tmp_path / "made").exists()


def test_assets_made_at_once_come_in_order(tmp_path: Path) -> None:
    captions = ("a red ball", "a blue cube", "a green cone", "a pink torus")
    cases = [Case(index=index, caption=caption, group="things") for index, caption in enumerate(captions)]
    for case in (cases[0], cases[2]):
        finished_asset(tmp_path / "assets" / f"{case.index:03d}", case.caption)
    settings = ["experiment=text_to_3d/quickstart", "budget=smoke", "recipe.nonsense=3"]
    made = list(
        make_assets([Job(case=case, out=tmp_path, settings=tuple(settings)) for case in cases], at_once=2)
    )
    assert [asset.folder.name for asset in made] == ["000", "001", "002", "003"]
    assert [asset.refused for asset in made] == [False, True, False, True]
    assert "nonsense" in made[1].reason


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_the_assets_at_work(galatea: Galatea, tmp_path: Path) -> None:
    prompts = write(tmp_path / "mine.txt", "a red ball\na blue cube\na green cone\n")
    # Far more steps than there is time for: neither is done when the other one begins, however busy the machine.
    long = 'asset_settings=["recipe.refine.num_steps=5000"]'
    arguments = [BENCHMARK, prompts, *SMALL, long, "assets_at_once=2", "threads=1", "out=made"]
    finished_asset(tmp_path / "made" / "assets" / "000", "a red ball")
    (tmp_path / "made" / "config.yaml").write_text(galatea(*arguments, "--cfg", "job", "--resolve").out)
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments", *arguments], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    folders = [tmp_path / "made" / "assets" / name for name in ("001", "002")]
    while not all((folder / "config.yaml").is_file() for folder in folders):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    for folder in folders:
        with FileLock(folder / ".lock", timeout=0):  # nobody works there any more
            assert not (folder / "report.json").exists()


def test_assets_of_two_models_are_not_scored_together(tmp_path: Path) -> None:
    old, new = ({"name": "tiny", "weights_sha256": digest} for digest in ("a" * 64, "b" * 64))
    made = [Asset(folder=tmp_path, report={"backbone": one}) for one in (old, old)]
    assert backbone_of([Asset(folder=tmp_path, reason="failed"), *made], tmp_path) == old
    with pytest.raises(UserError, match="'tiny' has other weights than when"):
        backbone_of([*made, Asset(folder=tmp_path, report={"backbone": new})], tmp_path)
