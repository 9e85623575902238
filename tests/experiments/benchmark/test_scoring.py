"""Scores: the world's own mesh is nearly perfect, the controls are worse, broken meshes get what they deserve."""

from __future__ import annotations

import pytest
import torch

from experiments.benchmark.cases import Case
from experiments.benchmark.config import ScoreConfig
from experiments.benchmark.janus import face_at, face_evidence
from experiments.benchmark.scoring import failed_scores, mean_scores, score_mesh
from experiments.benchmark.truth import Truth, grey_sphere
from gen3d.asset import Mesh
from gen3d.meshing import is_watertight, num_components

SMALL = ScoreConfig(resolution=64, mesh_resolution=72, num_points=8_000, threshold=0.05)
HEAD = "a portrait of a woman with dark skin and a red ponytail"


@pytest.fixture(scope="module")
def mushroom() -> Truth:
    return Truth("a red mushroom", SMALL)


@pytest.fixture(scope="module")
def head() -> Truth:
    return Truth(HEAD, SMALL)


def case(caption: str, group: str = "things") -> Case:
    return Case(index=0, caption=caption, group=group)


def test_oracle_beats_the_controls(mushroom: Truth) -> None:
    wanted = case(mushroom.caption)
    oracle = score_mesh(mushroom.mesh, mushroom, wanted)
    wrong = score_mesh(Truth("a blue cube", SMALL).mesh, mushroom, wanted)
    ball = score_mesh(grey_sphere(), mushroom, wanted)
    assert oracle["iou"] > 0.97
    assert oracle["albedo_error"] < 0.03
    assert oracle["chamfer"] < 0.02
    assert oracle["fscore"] > 0.99
    assert (oracle["watertight"], oracle["pieces"], oracle["pieces_ok"]) == (True, 1, True)
    for control in (wrong, ball):
        assert control["iou"] < 0.7
        assert control["albedo_error"] > 0.1
        assert control["chamfer"] > 2 * oracle["chamfer"]
        assert control["fscore"] < 0.7
    assert "face_back" not in oracle


def test_nothing_is_aligned(mushroom: Truth) -> None:
    moved = mushroom.mesh.replace(vertices=mushroom.mesh.vertices + torch.tensor([0.2, 0.0, 0.0]))
    assert score_mesh(moved, mushroom, case(mushroom.caption))["iou"] < 0.8


def test_an_open_mesh_has_no_volume_and_a_second_piece_counts(mushroom: Truth) -> None:
    mesh = mushroom.mesh
    opened = score_mesh(mesh.replace(faces=mesh.faces[1:]), mushroom, case(mushroom.caption))
    assert (opened["iou"], opened["watertight"]) == (0.0, False)
    ball = grey_sphere(0.05, 8)
    both = Mesh(
        vertices=torch.cat([mesh.vertices, ball.vertices + 0.8]),
        faces=torch.cat([mesh.faces, ball.faces + mesh.num_vertices]),
    )
    as_thing = score_mesh(both, mushroom, case(mushroom.caption))
    assert (as_thing["pieces"], as_thing["pieces_ok"], as_thing["watertight"]) == (2, False, True)
    assert score_mesh(both, mushroom, case(mushroom.caption, "pairs"))["pieces_ok"] is True


def test_reference_points_lie_on_the_true_surface(mushroom: Truth) -> None:
    assert float(mushroom.scene.sdf(mushroom.points).abs().max()) < 0.02
    assert float(mushroom.scene.sdf(mushroom.points).abs().mean()) < 1e-3


def test_grey_sphere_is_closed_and_round() -> None:
    ball = grey_sphere(0.5, 16)
    assert is_watertight(ball)
    assert num_components(ball) == 1
    corners = ball.vertices[ball.faces]
    volume = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert float(volume) == pytest.approx(4 / 3 * torch.pi * 0.125, rel=0.03)


def test_a_face_is_seen_in_front_only_unless_there_are_two(head: Truth) -> None:
    assert face_at("front", head.mesh, head)
    assert not face_at("back", head.mesh, head)
    # Both halves the front: what a model that knows no back of the head makes.
    mesh = head.mesh
    front = mesh.faces[(mesh.vertices[mesh.faces][..., 2] > 0).all(-1)]
    assert mesh.vertex_colors is not None
    turned = mesh.vertices * torch.tensor([-1.0, 1.0, -1.0])
    janus = Mesh(
        vertices=torch.cat([mesh.vertices, turned]),
        faces=torch.cat([front, front + mesh.num_vertices]),
        vertex_colors=torch.cat([mesh.vertex_colors, mesh.vertex_colors]),
    )
    assert face_at("back", janus, head)
    assert float(face_evidence("front", mesh, head).min()) > 0.95
    assert not face_at("front", grey_sphere(), head)


def test_faces_are_for_heads(mushroom: Truth) -> None:
    with pytest.raises(ValueError, match="only heads have a face"):
        face_at("front", mushroom.mesh, mushroom)


def test_means_count_failures_and_leave_out_what_is_unknown() -> None:
    failed = failed_scores(case(HEAD, "heads"))
    assert (failed["iou"], failed["watertight"], failed["face_back"]) == (0.0, False, False)
    means = mean_scores(
        [{"iou": 0.8, "watertight": True, "pieces": 1}, failed_scores(case("a red mushroom"))]
    )
    assert means["iou"] == pytest.approx(0.4)
    assert means["watertight"] == 0.5
    assert means["pieces"] == 1.0


@pytest.mark.parametrize(
    "bad", [{"resolution": 4}, {"mesh_resolution": 4096}, {"num_points": 1}, {"threshold": 0.0}]
)
def test_score_config_names_what_is_wrong(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        ScoreConfig(**bad)  # type: ignore[arg-type]
