"""The scores of one mesh against the truth of its caption, as they are: no alignment, no rescaling.

The controls (the world's own mesh, a grey ball, the truth of another caption) go through this very code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from experiments.benchmark.cases import Case
from experiments.benchmark.janus import face_at
from experiments.benchmark.truth import Truth
from gen3d.asset import Mesh
from gen3d.meshing import is_watertight, num_components
from gen3d.metrics import albedo_error, chamfer, fscore, mesh_occupancy, sample_surface

# What an asset that was never made gets: the worst there is. Chamfer's is the unit sphere's diameter.
FAILED: dict[str, Any] = {
    "iou": 0.0,
    "chamfer": 2.0,
    "fscore": 0.0,
    "albedo_error": 1.0,
    "sharpness": 0.0,
    "watertight": False,
    "pieces": None,
    "pieces_ok": False,
}


def score_mesh(mesh: Mesh, truth: Truth, case: Case) -> dict[str, Any]:
    """Scores of `mesh` (+Y up, facing +Z, within the unit sphere).

    iou: volume intersection over union; 0 for an open mesh, which has no inside. chamfer, fscore: on surface
    points, world units. albedo_error: mean absolute difference in linear [0, 1] over the mesh's surface.
    pieces: connected components, pieces_ok: no more than the caption has things. Heads also get
    face_front and face_back: whether a face is seen there.
    """
    config = truth.config
    watertight = is_watertight(mesh)
    generator = torch.Generator().manual_seed(0)
    points, _, _ = sample_surface(mesh, config.num_points, generator=generator)
    pieces = num_components(mesh)
    scores: dict[str, Any] = {
        "iou": _iou(mesh, truth) if watertight else 0.0,
        "chamfer": chamfer(points, truth.points),
        "fscore": fscore(points, truth.points, config.threshold),
        "albedo_error": albedo_error(mesh, truth.scene.albedo, generator=generator),
        "watertight": watertight,
        "pieces": pieces,
        "pieces_ok": 1 <= pieces <= case.max_pieces,
    }
    if case.group == "heads":
        scores["face_front"] = face_at("front", mesh, truth)
        scores["face_back"] = face_at("back", mesh, truth)
    return scores


def failed_scores(case: Case) -> dict[str, Any]:
    """The scores of an asset that was not made. Without a head there is a face on no side."""
    faces = {"face_front": False, "face_back": False} if case.group == "heads" else {}
    return {**FAILED, **faces}


def _iou(mesh: Mesh, truth: Truth) -> float:
    inside = mesh_occupancy(mesh, truth.config.resolution)
    union = int((inside | truth.occupancy).sum())
    return int((inside & truth.occupancy).sum()) / union if union else 1.0


def mean_scores(scores: list[Mapping[str, Any]]) -> dict[str, float]:
    """Means over assets of every number or yes-no score that at least one of them has."""
    names = dict.fromkeys(name for each in scores for name in each)
    means = {}
    for name in names:
        values = [float(each[name]) for each in scores if each.get(name) is not None]
        if values:
            means[name] = sum(values) / len(values)
    return means
