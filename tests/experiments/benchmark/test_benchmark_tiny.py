"""The task end to end on a random backbone: what it writes, that it continues, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffusion.backbone import save_backbone
from experiments.run.checkpoint import CheckpointStore
from tests.diffusion.models import make_parts

Galatea = Callable[..., Any]
BENCHMARK = "experiment=benchmark/tiny"
SMALL = (
    "budget=smoke", "threads=1", "num_things=2", "num_pairs=1", "num_heads=0", "num_pictures=2", "workers=1",
    "batch_size=2", "checkpoint_every=1", "sampling.num_steps=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "my model"
    save_backbone(path, **make_parts(), num_views=4, image_size=64, revision="r1")
    return path


@pytest.mark.slow
def test_measures_writes_and_continues(galatea: Galatea, tmp_path: Path, model: Path) -> None:
    arguments = (BENCHMARK, *SMALL, f"backbone={model}")
    outcome = galatea(*arguments, "out=made")
    assert outcome.status == 0, outcome.err
    folder = tmp_path / "made"
    result = json.loads((folder / "tiny.json").read_text())
    assert result["backbone"]["revision"] == "r1"
    assert len(result["backbone"]["weights_sha256"]) == 64
    assert result["vae"]["scores"]["psnr_db"] > 0
    assert result["retrieval"]["captions"] == 2
    things, pairs = result["groups"]["things"], result["groups"]["pairs"]
    assert (things["count"], pairs["count"]) == (2, 1)
    assert {"thing", "color", "r_precision", "silhouette_iou", "frechet"} <= things["scores"].keys()
    assert {"colors_bound", "things_bound", "colors_bound_pixels"} <= pairs["scores"].keys()
    assert things["controls"].keys() == {"truth", "truth_vae", "varied", "other", "untrained"}
    assert things["controls"]["truth"]["silhouette_iou"] > 0.9 > things["scores"]["silhouette_iou"]
    assert things["controls"]["truth"]["view_difference"] < 0.1
    assert things["controls"]["truth"]["sharpness"] == 1.0
    assert pairs["controls"]["truth"]["colors_bound_pixels"] == 1.0
    assert "frechet" not in things["controls"]["truth"]
    assert "other" not in pairs["controls"], "one pair has no other"
    given = result["given"]
    assert list(given["means"]) == ["all", "things"], "one thing, and no heads"
    assert given["means"]["all"]["scores"].keys() == {"others_db", "repeated_db"}, (
        "this backbone knows no depth"
    )
    assert (folder / "given.png").is_file()
    assert not (folder / "depth.png").exists()
    text = (folder / "tiny.md").read_text()
    for part in (
        result["created"][:10],
        "num_things=2",
        "revision r1",
        "right thing",
        "an untrained UNet",
        "other views, dB",
        "a pink car",
    ):
        assert part in text
    with Image.open(folder / "things.png") as sheet:
        assert sheet.size[1] == 24 + 2 * 66
    assert not (folder / "heads.png").exists()
    report = json.loads((folder / "report.json").read_text())
    assert {"pictures", "truth", "samples", "untrained", "score"} <= report["seconds"].keys()
    assert report["metrics"]["things"]["controls"]["truth"] == things["controls"]["truth"]
    assert "finished already" in galatea(*arguments, "out=made").err[0]

    # As a run that was killed before its last batch leaves it.
    shutil.copytree(folder, tmp_path / "killed")
    for name in ("report.json", "tiny.json", "tiny.md", "things.png"):
        (tmp_path / "killed" / name).unlink()
    store = CheckpointStore(tmp_path / "killed" / "checkpoints")
    shutil.rmtree(store.path(store.steps()[-1]))
    assert galatea(*arguments, "out=killed").status == 0
    again = json.loads((tmp_path / "killed" / "tiny.json").read_text())
    for name in ("groups", "captions", "vae", "retrieval", "given"):
        assert again[name] == result[name]
    assert (tmp_path / "killed" / "things.png").read_bytes() == (folder / "things.png").read_bytes()


def test_a_run_is_not_continued_with_other_weights(galatea: Galatea, tmp_path: Path) -> None:
    save_backbone(tmp_path / "model", **make_parts(), num_views=4, image_size=64, revision="same")
    arguments = (
        BENCHMARK,
        *SMALL,
        "num_things=1",
        "num_pairs=0",
        "num_untrained=0",
        "backbone=./model",
        "out=made",
    )
    assert galatea(*arguments).status == 0
    (tmp_path / "made" / "report.json").unlink()
    save_backbone(tmp_path / "model", unet=make_parts(seed=1)["unet"])
    outcome = galatea(*arguments)
    assert outcome.status == 2
    assert "has other weights than when made was begun" in outcome.err[-1]
    assert not (tmp_path / "made" / "report.json").exists()


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("num_things=-1", "num_things must not be negative, got -1"),
        ("num_things=40", "only 32 distinct held-out captions"),
        ("batch_size=0", "batch_size must be at least 1, got 0"),
        ("background=mauve", "background is 'mauve'"),
        ("sampling.num_steps=0", "num_steps"),
        ("num_cats=3", "unknown key 'num_cats'"),
    ],
)
def test_bad_settings_are_one_line(galatea: Galatea, tmp_path: Path, setting: str, part: str) -> None:
    outcome = galatea(BENCHMARK, setting, "out=made")
    assert outcome.status == 2
    assert len(outcome.err) == 1
    assert part in outcome.err[0]
    assert not (tmp_path / "made").exists()


def test_no_captions_at_all(galatea: Galatea, tmp_path: Path) -> None:
    outcome = galatea(BENCHMARK, "num_things=0", "num_pairs=0", "num_heads=0", "out=made")
    assert outcome.status == 2
    assert "are all 0" in outcome.err[0]
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("lacking", "part"), [("camera", "has no cameras"), ("clip", "give clip=tiny")])
def test_backbones_that_cannot_be_measured(galatea: Galatea, tmp_path: Path, lacking: str, part: str) -> None:
    parts = make_parts(camera=lacking != "camera")
    if lacking == "clip":
        del parts["image_encoder"]
    save_backbone(tmp_path / "model", **parts, num_views=4, image_size=64)
    outcome = galatea(BENCHMARK, *SMALL, "backbone=./model", "out=made")
    assert outcome.status == 2
    assert part in outcome.err[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
