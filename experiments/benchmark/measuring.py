"""Measuring one asset of a benchmark, or a control in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from diffusion.backbone import Backbone
from diffusion.errors import BackboneError
from experiments.benchmark import retrieval
from experiments.benchmark.assets import MESH, Asset
from experiments.benchmark.cases import Case
from experiments.benchmark.scoring import failed_scores, score_mesh
from experiments.benchmark.sharpness import sharpness
from experiments.benchmark.truth import Truth
from experiments.errors import one_line
from experiments.run.backbones import BackboneConfig, describe
from experiments.run.run import Run
from gen3d.asset import Mesh
from gen3d.mesh_files import load_mesh_file


def load_clip(wanted: BackboneConfig, clip: str | None, run: Run) -> tuple[Backbone | None, str]:
    """The backbone with the CLIP towers, or None, and what to say about it."""
    if clip is not None:
        wanted = BackboneConfig(name=clip, offline=wanted.offline)
    try:
        loaded = wanted.build(run.device)
        loaded.embed_text(["a"])
        if loaded.image_encoder is None:
            raise BackboneError(f"backbone {loaded.name!r} has no image_encoder")
    except (BackboneError, OSError) as error:
        run.note(f"R-precision is not measured: {one_line(error, 200)}")
        return None, f"not measured ({one_line(error, 200)})"
    about = f"CLIP of {describe(loaded, wanted)['name']}, {retrieval.NUM_VIEWS} views, among all captions of the set"
    return loaded, about


def measure(
    mesh: Mesh, *, truth: Truth, case: Case, clip: Backbone | None, captions: Tensor | None
) -> tuple[dict[str, Any], Tensor]:
    """All scores of one mesh, generated or control, and its pictures [V, 3, S, S]."""
    scores, images = score_mesh(mesh, truth, case), retrieval.views(mesh)
    scores["sharpness"] = sharpness(images, truth.views)
    if clip is not None and captions is not None:
        embedding = retrieval.embed_views(clip, images)
        scores["r_precision"] = retrieval.retrieved(embedding, captions, case.index)
    return scores, images


def score_asset(
    case: Case, asset: Asset, scores_of: Callable[[Mesh], tuple[dict[str, Any], Tensor]], *, with_clip: bool
) -> tuple[dict[str, Any], Tensor | None]:
    """What a table says about an asset, made or not, and its pictures [V, 3, S, S] where it was."""
    scores, images, reason = failed_scores(case), None, asset.reason
    if with_clip:
        scores["r_precision"] = False
    report = asset.report or {}
    if asset.report is not None:
        try:
            scores, images = scores_of(load_mesh_file(asset.folder / MESH))
        except (ValueError, OSError) as error:  # a mesh that cannot be read or measured is a failed asset
            reason = f"{MESH} cannot be scored: {one_line(error, 200)}"
    costs = {
        "psnr_db": asset.psnr_db,
        "seconds": report.get("seconds_total"),
        "wall_seconds": asset.wall_seconds,
        "peak_memory_mb": report.get("peak_memory_mb"),
        "peak_gpu_memory_mb": report.get("peak_gpu_memory_mb"),
    }
    entry = {
        "index": case.index,
        "caption": case.caption,
        "group": case.group,
        "reason": reason,
        "scores": scores,
        "costs": costs,
    }
    return entry, images
