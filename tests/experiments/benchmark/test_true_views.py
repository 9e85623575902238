"""The control that puts the world's own pictures in the place of a model's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion.backbone import load
from experiments.benchmark import table
from experiments.benchmark.truth import TrueViews
from experiments.priors.config import TruthConfig
from gen3d.cameras import orbit, ring
from gen3d.priors.base import Request
from gen3d.views import Views
from tests.experiments.benchmark.test_report import result

Galatea = Callable[..., Any]


def test_the_world_shows_the_scene_over_the_background_that_was_asked_for() -> None:
    views_of = TrueViews("a red mushroom, on a dark grey background", 32)
    images = views_of(ring(4))
    assert images.shape == (4, 3, 32, 32)
    assert float(images[:, :, 0, 0].max()) < 0.4
    views = Views.from_images(images, ring(4))
    assert 0.1 < float(views.masks.mean()) < 0.7
    assert not torch.equal(images, views_of(orbit([10, 100, 190, 280], [30] * 4)))


def test_the_prior_shows_the_truth_whatever_it_is_given_to_start_from() -> None:
    prior = TruthConfig().build(Request(backbone=load("tiny"), prompt="a red mushroom"))
    generator = torch.Generator().manual_seed(0)
    images = prior.sample(ring(4), generator)
    assert images.shape == (4, 3, 128, 128)
    again = prior.sample(ring(4), generator, init_images=torch.rand(4, 3, 128, 128), start_timestep=500)
    assert torch.equal(images, again)
    assert prior.background is not None
    torch.testing.assert_close(images[0, :, 0, 0], torch.tensor(prior.background), atol=0.02, rtol=0)
    assert not TruthConfig().is_model
    assert not TruthConfig().predicts


def test_the_table_says_which_views_were_used() -> None:
    made = result()
    assert "true views" not in table.markdown(made)
    made["prior"] = "truth"
    text = table.markdown(made)
    assert "**things** from true views" in text
    assert "No model takes part in the assets" in text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("prompt=a red wombat",), "wombat"),
        (("prompt=a red mushroom", "prior.joint_views=4"), "joint_views belongs to prior=text"),
        (("prompt=a red mushroom", "prior=lies"), "unknown prior 'lies'"),
        (("prompt=a red mushroom", "negative_prompt=blurry"), "prior truth shows its captions as they are"),
        (("prompt=a red mushroom", "recipe=distill"), "prior 'truth' has finished pictures and no scores"),
    ],
)
def test_text_to_3d_refuses_what_has_no_true_views(
    galatea: Galatea, tmp_path: Path, arguments: tuple[str, ...], part: str
) -> None:
    outcome = galatea("experiment=text_to_3d/quickstart", "prior=truth", *arguments, "out=made")
    assert outcome.status == 2
    assert part in outcome.err[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_benchmark_from_true_views(galatea: Galatea, tmp_path: Path, tiny_weights: Path) -> None:
    (tmp_path / "mine.txt").write_text("a red mushroom\n", encoding="utf-8")
    outcome = galatea(
        "experiment=benchmark/text_to_3d", "prompts=mine.txt", "asset_prior=truth", "budget=smoke", "threads=1",
        "scoring.mesh_resolution=48", "scoring.resolution=48", "scoring.num_points=4000",
        'asset_settings=["turntable.num_frames=2","turntable.size=64"]', "out=made",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    made = json.loads((tmp_path / "made" / "benchmark.json").read_text())
    assert made["prior"] == "truth"
    assert "asset_prior=truth" in made["command"]
    scores = made["assets"][0]["scores"]
    assert scores["iou"] > 0.6
    assert scores["albedo_error"] < 0.15
    assert scores["pieces"] == 1
    assert json.loads((tmp_path / "made" / "report.json").read_text())["generated_by_ai"] is False
    report = json.loads((tmp_path / "made" / "assets" / "000" / "report.json").read_text())
    assert report["generated_by_ai"] is False
    assert any("no model takes part" in note for note in report["notes"])
