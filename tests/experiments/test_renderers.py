"""The renderer by name, from the command line to the mesh."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

Galatea = Callable[..., Any]
needs_pytorch3d = pytest.mark.skipif(find_spec("pytorch3d") is None, reason="needs pytorch3d")
SMALL = (
    "experiment=text_to_3d/quickstart",
    "prompt=a red mushroom",
    "budget=smoke",
    "threads=1",
    "recipe.extract.target_faces=300",
    "turntable.num_frames=2",
    "turntable.size=32",
    "turntable.preview_size=64",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reference", pytest.param("pytorch3d", marks=needs_pytorch3d)])
def test_another_renderer_makes_nearly_the_same_mesh(
    galatea: Galatea, tmp_path: Path, tiny_weights: Path, name: str
) -> None:
    made = {}
    for renderer in ("warp", name):
        outcome = galatea(*SMALL, f"renderer={renderer}", f"out={renderer}")
        assert outcome.status == 0, outcome.err
        report = json.loads((tmp_path / renderer / "report.json").read_text())
        assert report["metrics"]["mesh"]["watertight"]
        made[renderer] = report["metrics"]
    for key in ("psnr_to_representation_db", "image_text_similarity"):
        assert made[name][key] == pytest.approx(made["warp"][key], rel=0.05)


def test_a_renderer_that_is_not_installed_is_told_in_one_line(
    galatea: Galatea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gen3d.render.renderer.find_spec", lambda name: None)
    outcome = galatea(*SMALL, "renderer=pytorch3d", "out=made")
    assert outcome.status == 2
    assert len(outcome.err) == 1
    assert 'pip install "galatea[pytorch3d]", or use warp' in outcome.err[0]
    assert not (tmp_path / "made").exists()
