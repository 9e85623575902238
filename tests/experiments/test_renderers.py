"""The renderer by name, from the command line to the mesh."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gen3d.render import rasterize as rasterize_warp
from gen3d.render import rasterize_reference

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
@needs_pytorch3d
def test_another_renderer_makes_nearly_the_same_mesh(
    galatea: Galatea, tmp_path: Path, tiny_weights: Path
) -> None:
    made = {}
    for renderer in ("warp", "pytorch3d"):
        outcome = galatea(*SMALL, f"renderer={renderer}", f"out={renderer}")
        assert outcome.status == 0, outcome.err
        report = json.loads((tmp_path / renderer / "report.json").read_text())
        assert report["metrics"]["mesh"]["watertight"]
        made[renderer] = report["metrics"]
    for key in ("psnr_to_representation_db", "image_text_similarity"):
        assert made["pytorch3d"][key] == pytest.approx(made["warp"][key], rel=0.05)


@pytest.mark.slow
def test_all_pictures_of_a_run_are_drawn_by_the_renderer(
    galatea: Galatea, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the one of plain torch, which here lends its name to Warp's: it is slow."""
    drawn = {"reference": 0, "warp": 0}

    def counted(name: str) -> Callable[..., Any]:
        def rasterize(*arguments: Any) -> Any:
            drawn[name] += 1
            return warp(*arguments)

        return rasterize

    warp = rasterize_warp.rasterize
    monkeypatch.setattr(rasterize_reference, "rasterize", counted("reference"))
    monkeypatch.setattr(rasterize_warp, "rasterize", counted("warp"))
    outcome = galatea(*SMALL, "renderer=reference", "out=made")
    assert outcome.status == 0, outcome.err
    assert drawn["reference"] > 20
    assert drawn["warp"] == 0


def test_a_renderer_that_is_not_installed_is_told_in_one_line(
    galatea: Galatea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gen3d.render.renderer.find_spec", lambda name: None)
    outcome = galatea(*SMALL, "renderer=pytorch3d", "out=made")
    assert outcome.status == 2
    assert len(outcome.err) == 1
    assert 'pip install "galatea[pytorch3d]", or use warp' in outcome.err[0]
    assert not (tmp_path / "made").exists()
