"""What a benchmark says of given views: that the world itself is perfect, and that it asks a backbone for the right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion.backbone import load, save_backbone
from diffusion.domains import DOMAINS
from experiments.benchmark import given_views
from experiments.benchmark.cases import default_cases
from experiments.benchmark.gathered_pictures import Album
from experiments.world import scene_from_caption
from gen3d.cameras import ring
from gen3d.domain_pictures import depth_picture, normals_picture
from tests.diffusion.models import make_parts

PROMPT, SIZE = "a red mushroom, on a white background", 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Album:
    """What a random backbone of all domains draws."""
    path = tmp_path_factory.mktemp("model")
    save_backbone(path, **make_parts(), num_views=4, image_size=SIZE, domains=DOMAINS)
    album = Album()
    given_views.gather(album, 3, PROMPT, "a red mushroom", load(path), torch.Generator().manual_seed(0), 2)
    return album


def test_what_is_gathered(made: Album) -> None:
    assert made.get("others", 3).shape == made.get("true_others", 3).shape == (8, 3, SIZE, SIZE)
    assert torch.equal(made.get("others", 3)[0], made.get("true_others", 3)[0]), "it is given"
    assert made.get("drawn_depth", 3).shape == made.get("drawn_normals", 3).shape == (4, 3, SIZE, SIZE)
    scores = given_views.score(made, 3, 4)
    assert list(scores) == list(given_views.COLUMNS)
    assert scores["others_db"] is not None
    assert 2 < scores["others_db"] < 15
    assert scores["normals_deg"] is not None
    assert 30 < scores["normals_deg"] < 150


def test_the_world_is_perfect_and_nothing_is_bad(made: Album) -> None:
    seen = scene_from_caption(PROMPT).render(ring(4), SIZE)
    album = Album(made.tensors)
    album.put("drawn_depth", 3, depth_picture(seen.depth, seen.mask, ring(4)))
    album.put("drawn_normals", 3, normals_picture(seen.normals, seen.mask))
    scores = given_views.score(album, 3, 4)
    assert scores["depth_error"] == pytest.approx(0.0, abs=0.01)
    assert scores["depth_missing"] == 0.0
    assert scores["normals_deg"] == pytest.approx(0.0, abs=1.0)
    nearer = depth_picture((seen.depth - 0.1).clamp(min=0.0), seen.mask, ring(4))
    album.put("drawn_depth", 3, nearer)
    assert given_views.score(album, 3, 4)["depth_error"] == pytest.approx(0.1, abs=0.01)
    for name in ("drawn_depth", "drawn_normals"):
        album.put(name, 3, torch.full((4, 3, SIZE, SIZE), 0.5 if name == "drawn_normals" else 0.0))
    album.put("others", 3, album.get("true_others", 3)[:1].expand(8, -1, -1, -1))
    scores = given_views.score(album, 3, 4)
    assert (scores["depth_error"], scores["depth_missing"]) == (None, 1.0)
    assert scores["normals_deg"] == pytest.approx(90.0)
    assert scores["others_db"] == scores["repeated_db"]


def test_captions_means_and_sheets(made: Album) -> None:
    cases = default_cases(4, 1, 2)
    rows = given_views.chosen(cases, 3)
    assert [cases[row].group for row in rows] == ["things"] * 3 + ["heads"] * 2
    assert given_views.chosen(cases, 0) == []
    found = given_views.result(cases, [3], made, 4)
    assert list(found["means"]) == ["all", "things"]
    assert found["means"]["all"]["scores"] == {
        key: value for key, value in found["captions"][0]["scores"].items() if value is not None
    }
    text = "\n".join(given_views.markdown(found))
    for part in ("normals, degrees", "**things** (1)", cases[3].caption):
        assert part in text
    assert list(given_views.sheets(cases, found, [3], made)) == ["given", "depth", "normals"]


def test_views_that_are_strangers_cannot_be_given(galatea: Callable[..., Any], tmp_path: Path) -> None:
    save_backbone(tmp_path / "model", **make_parts(), num_views=1, image_size=SIZE)
    outcome = galatea(
        "experiment=benchmark/tiny", "budget=smoke", "threads=1", "backbone=./model", "out=made"
    )
    assert outcome.status == 2
    assert "give num_given=0" in outcome.err[-1]
