"""Text to 3D against ground truth: held-out captions, each made as a user would make it, then scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.backbone import Backbone
from diffusion.errors import BackboneError
from experiments import catalog
from experiments.benchmark import circumstances, contact_sheet, gltf, retrieval, table
from experiments.benchmark.assets import MESH, Asset, forget_assets, forget_refused, make_assets
from experiments.benchmark.cases import Case, default_cases, read_cases
from experiments.benchmark.scoring import failed_scores, score_mesh
from experiments.benchmark.sharpness import sharpness
from experiments.benchmark.summary import summarise
from experiments.benchmark.truth import Truth, grey_sphere
from experiments.errors import RunFailed, UserError, one_line
from experiments.run.backbones import BackboneConfig, announce_slowness, describe
from experiments.run.files import write_json, write_text
from experiments.run.images import read_row
from experiments.run.provenance import describe_file
from experiments.run.run import Run
from experiments.run.spool import spooled
from experiments.tasks.configs.benchmark_text_to_3d import Config
from gen3d.asset import Mesh
from gen3d.mesh_files import load_mesh_file

_CAPTIONS = "captions.json"


def cases_of(config: Config) -> list[Case]:
    """The captions of this benchmark."""
    if config.prompts is not None:
        return read_cases(spooled(config.prompts))
    return default_cases(config.num_things, config.num_pairs, config.num_heads)


def validate(config: Config) -> None:
    """Find mistakes in the file of captions and in the name of the method before anything is written."""
    cases_of(config)
    catalog.task_of(config.method)


def run(config: Config, run: Run) -> None:
    """Make the assets, score them, and write benchmark.json, benchmark.md and contact_sheet.png."""
    cases = cases_of(config)
    if config.overwrite:
        forget_assets(run.folder)
    _keep_captions(run.folder / _CAPTIONS, cases, again=config.overwrite)
    if config.prompts is not None:
        run.inputs["prompts"] = describe_file(spooled(config.prompts))
    load_average = circumstances.load_average()
    assets = _make(config, run, cases)
    run.generated_by_ai = any(asset.report["generated_by_ai"] for asset in assets if asset.report)
    with run.stage("clip"):
        clip, about_clip = _load_clip(config, run)
    scored, rows = _score(config, run, cases, assets, clip)
    with run.stage("write"):
        made = [asset for asset in assets if asset.report is not None]
        validator, issues = gltf.validate([asset.folder / MESH for asset in made])
        found = dict(zip((asset.folder for asset in made), issues, strict=False))
        for entry, asset in zip(scored, assets, strict=True):
            entry["gltf"] = found.get(asset.folder)
        result = {
            **circumstances.head(
                config, Config(task=config.task, backbone=BackboneConfig(name="tiny")), run, load_average
            ),
            "prior": config.asset_prior,
            "at_once": config.assets_at_once,
            "r_precision": about_clip,
            "gltf_validator": {
                "version": validator,
                "files": len(issues),
                "errors": sum(int(str(each["errors"])) for each in issues),
                "warnings": sum(int(str(each["warnings"])) for each in issues),
            },
            "groups": summarise(scored),
            "assets": scored,
        }
        run.metrics.update({name: group["scores"] for name, group in result["groups"].items()})
        write_json(run.artefact("benchmark.json", kind="table"), result)
        write_text(run.artefact("benchmark.md", kind="table"), table.markdown(result))
        contact_sheet.save(rows, run.artefact("contact_sheet.png", kind="image"), ("truth", "views", "mesh"))
    run.say(table.summary(result))


def _keep_captions(path: Path, cases: Sequence[Case], *, again: bool) -> None:
    """Keep the captions with the run: a file of prompts may change between two calls, the run's assets do not."""
    captions = [case.caption for case in cases]
    if not again and path.is_file() and json.loads(path.read_text(encoding="utf-8")) != captions:
        raise UserError(
            f"out: {path.parent} was begun with other captions than prompts holds now; "
            "choose another out=DIR, or overwrite=true to make everything again"
        )
    write_json(path, captions)


def _make(config: Config, run: Run, cases: Sequence[Case]) -> list[Asset]:
    settings = [
        f"experiment={config.method}",
        f"budget={config.asset_budget}",
        f"backbone={config.backbone.name}",
        f"backbone.dtype={config.backbone.dtype}",
        f"backbone.offline={str(config.backbone.offline).lower()}",
        *([f"backbone.revision={config.backbone.revision}"] if config.backbone.revision else []),
        f"seed={config.seed}",
        f"device={config.device}",
        *([f"threads={config.threads}"] if config.threads else []),
        *([f"prior={config.asset_prior}"] if config.asset_prior else []),
        *config.asset_settings,
    ]
    assets = []
    announce_slowness(run, config.backbone)
    run.begin_stage("assets", len(cases))
    with closing(make_assets(cases, run.folder, settings, at_once=config.assets_at_once)) as made:
        for done, (case, asset) in enumerate(zip(cases, made, strict=True), start=1):
            if asset.refused and done == 1:
                # The settings are wrong, so they are for all: leave the folder free for a corrected command.
                (run.folder / _CAPTIONS).unlink()
                forget_refused(asset)
                raise UserError(asset.reason)
            assets.append(asset)
            run.display.update(done, {})
            if run.resumed is None or done > run.resumed.step:
                # What there is to keep lies in the assets' own folders.
                run.save(done, {"done": torch.tensor(done)})
            spent = f"{asset.report['seconds_total']:.0f} s" if asset.report else f"failed: {asset.reason}"
            run.say(f"{case.index:03d} {case.caption}: {spent}")
    run.end_stage()
    if all(asset.report is None for asset in assets):
        raise RunFailed(f"no asset could be made; the first: {assets[0].reason}")
    run.facts["backbone"] = backbone_of(assets, run.folder)
    return assets


def backbone_of(assets: Sequence[Asset], out: Path) -> dict[str, Any]:
    """What the reports say about the backbone; UserError when it was trained on between two assets."""
    told = [asset.report["backbone"] for asset in assets if asset.report is not None]
    if any(one != told[0] for one in told):
        raise UserError(
            f"backbone {told[0]['name']!r} has other weights than when {out} was begun, and some assets are of the "
            "old ones; choose another out=DIR, or overwrite=true to make all again"
        )
    return told[0]


def _load_clip(config: Config, run: Run) -> tuple[Backbone | None, str]:
    """The backbone with the CLIP towers, or None, and what to say about it."""
    wanted = config.backbone
    if config.clip is not None:
        wanted = BackboneConfig(name=config.clip, offline=wanted.offline)
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


def _score(
    config: Config, run: Run, cases: Sequence[Case], assets: Sequence[Asset], clip: Backbone | None
) -> tuple[list[dict[str, Any]], list[contact_sheet.Row]]:
    """An entry and a row of the contact sheet for every case, controls included."""
    captions = retrieval.embed_captions(clip, [case.caption for case in cases]) if clip else None
    scored, rows = [], []
    run.begin_stage("score", len(cases))
    following = Truth(cases[0].caption, config.scoring)
    first = following
    for index, (case, asset) in enumerate(zip(cases, assets, strict=True)):
        truth, following = following, first
        if index + 1 < len(cases):
            following = Truth(cases[index + 1].caption, config.scoring)

        scores_of = partial(_measure, truth=truth, case=case, clip=clip, captions=captions)
        entry, images = _score_asset(case, asset, scores_of, with_clip=clip is not None)
        oracle, truth_images = scores_of(truth.mesh)
        entry["controls"] = {
            "oracle": oracle,
            "other_proportions": scores_of(truth.other_proportions)[0],
            "sphere": scores_of(grey_sphere())[0],
        }
        if len(cases) > 1:
            entry["controls"]["wrong_caption"] = scores_of(following.mesh)[0]
        scored.append(entry)
        line = f"IoU {entry['scores']['iou']:.2f}  albedo {entry['scores']['albedo_error']:.2f}"
        rows.append(
            contact_sheet.Row(
                caption=case.caption,
                line=entry["reason"] or line,
                blocks=(truth_images, _samples(asset, truth_images), images),
            )
        )
        run.display.update(index + 1, {"iou": entry["scores"]["iou"]})
    run.end_stage()
    return scored, rows


def _samples(asset: Asset, like: Tensor) -> Tensor | None:
    """The pictures an asset was made from, as many and as large as `like` [V, 3, S, S]; None where there are none."""
    path = asset.folder / "samples.png"
    if not path.is_file():
        return None
    images = F.interpolate(read_row(path), size=like.shape[-2:], mode="bilinear", antialias=True)
    return images if len(images) == len(like) else None


def _measure(
    mesh: Mesh, *, truth: Truth, case: Case, clip: Backbone | None, captions: Tensor | None
) -> tuple[dict[str, Any], Tensor]:
    """All scores of one mesh, generated or control, and its pictures [V, 3, S, S]."""
    scores, images = score_mesh(mesh, truth, case), retrieval.views(mesh)
    scores["sharpness"] = sharpness(images, truth.views)
    if clip is not None and captions is not None:
        embedding = retrieval.embed_views(clip, images)
        scores["r_precision"] = retrieval.retrieved(embedding, captions, case.index)
    return scores, images


def _score_asset(
    case: Case, asset: Asset, scores_of: Callable[[Mesh], tuple[dict[str, Any], Tensor]], *, with_clip: bool
) -> tuple[dict[str, Any], Tensor | None]:
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
