"""Text to 3D against ground truth: held-out captions, each made as a user would make it, then scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from diffusion.backbone import Backbone
from experiments import catalog
from experiments.benchmark import circumstances, contact_sheet, gltf, making, measuring, retrieval, table
from experiments.benchmark.assets import MESH, Asset, Job, forget_assets
from experiments.benchmark.cases import Case, default_cases, read_cases
from experiments.benchmark.summary import summarise
from experiments.benchmark.truth import Truth, grey_sphere
from experiments.errors import UserError
from experiments.run.backbones import BackboneConfig, announce_slowness
from experiments.run.files import write_json, write_text
from experiments.run.images import read_row
from experiments.run.provenance import describe_file
from experiments.run.run import Run
from experiments.run.spool import spooled
from experiments.tasks.configs.benchmark_text_to_3d import Config

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
    with run.phase("clip"):
        clip, about_clip = measuring.load_clip(config.backbone, config.clip, run)
    scored, rows = _score(config, run, cases, assets, clip)
    with run.phase("write"):
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
        *config.backbone.typed(),
        f"seed={config.seed}",
        f"device={config.device}",
        *([f"threads={config.threads}"] if config.threads else []),
        *([f"prior={config.asset_prior}"] if config.asset_prior else []),
        *config.asset_settings,
    ]
    announce_slowness(run, config.backbone)
    jobs = [Job(case=case, out=run.folder, settings=tuple(settings)) for case in cases]
    assets = making.make(run, jobs, at_once=config.assets_at_once, record=run.folder / _CAPTIONS)
    run.facts["backbone"] = making.backbone_of(assets, run.folder)
    return assets


def _score(
    config: Config, run: Run, cases: Sequence[Case], assets: Sequence[Asset], clip: Backbone | None
) -> tuple[list[dict[str, Any]], list[contact_sheet.Row]]:
    """An entry and a row of the contact sheet for every case, controls included."""
    captions = retrieval.embed_captions(clip, [case.caption for case in cases]) if clip else None
    scored, rows = [], []
    run.begin_phase("score", len(cases))
    following = Truth(cases[0].caption, config.scoring)
    first = following
    for index, (case, asset) in enumerate(zip(cases, assets, strict=True)):
        truth, following = following, first
        if index + 1 < len(cases):
            following = Truth(cases[index + 1].caption, config.scoring)

        scores_of = partial(measuring.measure, truth=truth, case=case, clip=clip, captions=captions)
        entry, images = measuring.score_asset(case, asset, scores_of, with_clip=clip is not None)
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
    run.end_phase()
    return scored, rows


def _samples(asset: Asset, like: Tensor) -> Tensor | None:
    """The pictures an asset was made from, as many and as large as `like` [V, 3, S, S]; None where there are none."""
    path = asset.folder / "samples.png"
    if not path.is_file():
        return None
    images = F.interpolate(read_row(path), size=like.shape[-2:], mode="bilinear", antialias=True)
    return images if len(images) == len(like) else None
