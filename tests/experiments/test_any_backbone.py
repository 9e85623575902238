"""The shipped text-to-3D experiments on a model as Stable Diffusion 1.5: one view at a time, and no camera."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

from diffusion.backbone import facts
from experiments.run.schema import build
from experiments.tasks.text_to_3d import Config as TextTo3D
from gen3d.mesh_files import load_mesh_file
from gen3d.meshing import is_watertight
from gen3d.recipe import check_backbone
from tests.diffusion.small_sd15 import save_small_sd15

Galatea = Callable[..., Any]
BASELINES = ("baseline/dreamfusion", "baseline/mvdream", "baseline/sjc")
ALONE = "makes one view at a time"


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 96 pixels, which no setting has."""
    return save_small_sd15(tmp_path_factory.mktemp("backbone") / "sd15", sample_size=12)


@pytest.mark.parametrize("experiment", ["text_to_3d/quickstart", *BASELINES])
def test_a_single_view_backbone_makes_a_mesh(
    galatea: Galatea, tmp_path: Path, sd15: Path, experiment: str
) -> None:
    settings = ("prompt=a red mushroom", "budget=smoke", "threads=1", f"backbone={sd15}", "out=made")
    outcome = galatea(f"experiment={experiment}", *settings)
    assert outcome.status == 0, outcome.err
    assert is_watertight(load_mesh_file(tmp_path / "made" / "mesh.glb"))
    report = json.loads((tmp_path / "made" / "report.json").read_text())
    assert report["backbone"]["num_views"] == 1
    assert "image_text_similarity" not in report["metrics"], "it has no image tower"
    asks_for_more = experiment in ("text_to_3d/quickstart", "baseline/mvdream")
    assert any(ALONE in note for note in report["notes"]) == asks_for_more


@pytest.mark.parametrize("setting", ["elevation_deg=30", "azimuth_deg=90"])
def test_sample_refuses_directions_that_it_is_not_told_of(
    galatea: Galatea, tmp_path: Path, sd15: Path, setting: str
) -> None:
    arguments = ("experiment=sample/multiview", "budget=smoke", "threads=1", "prompt=x", f"backbone={sd15}")
    outcome = galatea(*arguments, setting, "out=made")
    assert outcome.status == 2
    assert len(outcome.err) == 1
    assert f"sample {setting.partition('=')[0]} is" in outcome.err[0]
    assert "backbone is sd15, which takes no cameras" in outcome.err[0]
    assert list(tmp_path.iterdir()) == []
    assert galatea(*arguments, "out=made").status == 0


@pytest.mark.parametrize("experiment", ["text_to_3d/quickstart", *BASELINES])
@pytest.mark.parametrize("budget", ["cpu", "gpu"])
def test_every_budget_goes_with_it(galatea: Galatea, tmp_path: Path, experiment: str, budget: str) -> None:
    """Of its settings, that is, which the schema and the facts of a 512-pixel model allow."""
    outcome = galatea(
        f"experiment={experiment}", "backbone=sd15", f"budget={budget}", "prompt=x", "--cfg", "job"
    )
    assert outcome.status == 0, outcome.err
    config = build(TextTo3D, DictConfig(yaml.safe_load(outcome.out)))
    assert config.backbone.name == "sd15"
    known = facts(save_small_sd15(tmp_path / "large", sample_size=64))
    assert known is not None
    assert known.image_size == 512
    check_backbone(config.recipe, config.chosen, known)
