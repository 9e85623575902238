"""One table of methods against ground truth: the same captions for all, and a row each.

A setting may be swept first, on captions of its own; what was best there makes the table. Each asset is made as a user
would make it, in a folder of its own, and kept: a benchmark that was killed goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from diffusion.backbone import Backbone
from experiments import catalog
from experiments.benchmark import (
    circumstances,
    contact_sheet,
    making,
    measuring,
    methods_table,
    retrieval,
)
from experiments.benchmark.assets import Asset, Job, forget_assets, reason_of, run_galatea
from experiments.benchmark.cases import Case, default_cases
from experiments.benchmark.scoring import mean_scores
from experiments.benchmark.truth import Truth, grey_sphere
from experiments.errors import UserError
from experiments.run.backbones import BackboneConfig, announce_slowness
from experiments.run.files import write_json, write_text
from experiments.run.run import Run
from experiments.tasks.configs.benchmark_methods import Config, Method

_SHOWN = 6  # captions on the contact sheet


def validate(config: Config) -> None:
    """Find mistakes in the experiments' names and in the number of captions before anything is written."""
    _cases(config)
    for name, method in config.chosen.items():
        try:
            catalog.task_of(method.experiment or config.method)
        except UserError as error:
            raise UserError(f"methods.{name}: {error}") from None


def run(config: Config, run: Run) -> None:
    """Sweep, make the assets, score them, and write benchmark.json, benchmark.md and contact_sheet.png."""
    cases, sweep_cases = _cases(config)
    if config.overwrite:
        for folder in sorted(run.folder.glob("methods/*/*")):
            forget_assets(folder)
    load_average = circumstances.load_average()
    announce_slowness(run, config.backbone)
    with run.phase("check"):
        _check_methods(config)
    with run.phase("clip"):
        clip, about_clip = measuring.load_clip(config.backbone, config.clip, run)
    bench = _Bench(config, run, cases, sweep_cases, clip)
    swept = bench.sweep()
    rows = bench.table({name: one["best"] for name, one in swept.items()})
    for name, row in rows.items():
        row["sweep"] = swept.get(name)
    with run.phase("write"):
        run.facts["backbone"] = making.backbone_of(bench.made, run.folder)
        run.generated_by_ai = any(asset.report["generated_by_ai"] for asset in bench.made if asset.report)
        plain = Config(task=config.task, backbone=BackboneConfig(name="tiny"), methods=config.methods)
        result = {
            **circumstances.head(config, plain, run, load_average),
            "evaluations": config.evaluations,
            "at_once": config.assets_at_once,
            "r_precision": about_clip,
            "captions": [case.caption for case in cases],
            "sweep_captions": [case.caption for case in sweep_cases],
            "controls": bench.controls(),
            "methods": rows,
        }
        run.metrics.update({name: row["scores"] for name, row in rows.items()})
        write_json(run.artefact("benchmark.json", kind="table"), result)
        write_text(run.artefact("benchmark.md", kind="table"), methods_table.markdown(result))
        sheet, titles = bench.sheet(rows)
        contact_sheet.save(sheet, run.artefact("contact_sheet.png", kind="image"), titles)
    run.say(methods_table.summary(result))


def _cases(config: Config) -> tuple[list[Case], list[Case]]:
    """Those of the table, and those of the sweep: things that come after the table's."""
    swept = any(method.sweep for method in config.chosen.values())
    more = config.num_sweep if swept else 0
    if swept and not more:
        raise UserError("num_sweep is 0, but methods have a setting to sweep; give at least 1")
    things = default_cases(config.num_things + more, 0, 0) if config.num_things + more else []
    others = [
        each
        for each in default_cases(config.num_things, config.num_pairs, config.num_heads)
        if each.group != "things"
    ]
    table = [*things[: config.num_things], *others]
    return (
        [Case(index=i, caption=one.caption, group=one.group) for i, one in enumerate(table)],
        [
            Case(index=i, caption=one.caption, group=one.group)
            for i, one in enumerate(things[config.num_things :])
        ],
    )


def _settings(config: Config, method: Method, value: float | None, seed: int) -> tuple[str, ...]:
    return (
        f"experiment={method.experiment or config.method}",
        f"budget={config.asset_budget}",
        *config.backbone.typed(),
        f"seed={seed}",
        f"device={config.device}",
        *([f"threads={config.threads}"] if config.threads else []),
        *([f"{config.steps_key}={config.steps(method)}"] if config.evaluations else []),
        *method.settings,
        *([f"{method.sweep}={value:g}"] if value is not None else []),
    )


def _check_methods(config: Config) -> None:
    """Refuse settings that a row's experiment does not take, before hours are spent on the others."""
    for name, method in config.chosen.items():
        value = method.sweep_values[0] if method.sweep else None
        arguments = [*_settings(config, method, value, config.seed), "prompt=a red ball", "--cfg", "job"]
        with TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            status = run_galatea(arguments, log, threading.Event())
            if status:
                raise UserError(f"methods.{name}: {reason_of(status, log)}")


class _Bench:
    """The assets of one benchmark, and the truths they are held against."""

    def __init__(
        self, config: Config, run: Run, cases: list[Case], sweep_cases: list[Case], clip: Backbone | None
    ) -> None:
        self.config, self.run, self.cases, self.sweep_cases = config, run, cases, sweep_cases
        self.clip, self.made = clip, list[Asset]()
        words = [case.caption for case in (*cases, *sweep_cases)]
        self.captions = retrieval.embed_captions(clip, words[: len(cases)]) if clip else None
        self.truths = {caption: Truth(caption, config.scoring) for caption in words}
        self.pictures: dict[tuple[str, int], Tensor | None] = {}

    def sweep(self) -> dict[str, dict[str, Any]]:
        """For each method with a setting to sweep: the mean IoU of every value, and the best of them."""
        tried = [
            (name, value) for name, method in self.config.chosen.items() for value in method.sweep_values
        ]
        jobs = [
            self._job(name, case, f"sweep_{value:g}", value=value)
            for name, value in tried
            for case in self.sweep_cases
        ]
        scores = self._scores("sweep", jobs, with_clip=False)
        found: dict[str, dict[str, Any]] = {}
        for index, (name, value) in enumerate(tried):
            count = len(self.sweep_cases)
            entries = scores[index * count : (index + 1) * count]
            mean = sum(entry["scores"]["iou"] for entry in entries) / count
            found.setdefault(name, {"key": self.config.methods[name].sweep, "iou": {}})["iou"][
                f"{value:g}"
            ] = mean
        for one in found.values():
            one["best"] = float(max(one["iou"], key=one["iou"].__getitem__))
        return found

    def table(self, best: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """A row for each method."""
        config = self.config
        plan = [
            (name, seed, case)
            for name, method in config.chosen.items()
            for seed in (config.seed, *method.seeds)
            for case in (self.cases if seed == config.seed else self.cases[: config.num_seeded])
        ]
        jobs = [
            self._job(name, case, f"seed_{seed}", value=best.get(name), seed=seed)
            for name, seed, case in plan
        ]
        entries = self._scores("assets", jobs, with_clip=self.clip is not None, keep=True)
        rows: dict[str, dict[str, Any]] = {}
        for name, method in config.chosen.items():
            mine = [
                (seed, entry) for (other, seed, _), entry in zip(plan, entries, strict=True) if other == name
            ]
            first = [entry for seed, entry in mine if seed == config.seed]
            rows[name] = {
                "settings": list(method.settings),
                "steps": config.steps(method) if config.evaluations else None,
                "evaluations_a_step": method.evaluations,
                "failed": sum(bool(entry["reason"]) for entry in first),
                "scores": mean_scores([entry["scores"] for entry in first]),
                "costs": mean_scores([entry["costs"] for entry in first]),
                "seeds": {
                    str(each): mean_scores(
                        [
                            entry["scores"]
                            for seed, entry in mine
                            if seed == each and entry["index"] < config.num_seeded
                        ]
                    )
                    for each in (config.seed, *method.seeds)
                }
                if method.seeds
                else None,
                "assets": first,
            }
        return rows

    def controls(self) -> dict[str, dict[str, float]]:
        """Means of what no method made, on the same captions."""
        controls: dict[str, dict[str, float]] = {}
        for name in ("oracle", "sphere"):
            scores = []
            for case in self.cases:
                truth = self.truths[case.caption]
                mesh = truth.mesh if name == "oracle" else grey_sphere()
                scores.append(self._measure(case)(mesh)[0])
            controls[name] = mean_scores(scores)
        return controls

    def sheet(self, rows: Mapping[str, Any]) -> tuple[list[contact_sheet.Row], list[str]]:
        """A row a method, a block a caption: from the front and from the side."""
        shown = self.cases[:_SHOWN]
        truths = tuple(self.truths[case.caption].views[:2] for case in shown)
        sheet = [contact_sheet.Row(caption="the truth", line="", blocks=truths)]
        for name, row in rows.items():
            blocks = [self.pictures.get((name, case.index)) for case in shown]
            sheet.append(
                contact_sheet.Row(
                    caption=name,
                    line=f"IoU {row['scores']['iou']:.2f}  albedo {row['scores']['albedo_error']:.2f}",
                    blocks=tuple(None if images is None else images[:2] for images in blocks),
                )
            )
        return sheet, [case.caption for case in shown]

    def _job(self, name: str, case: Case, part: str, *, value: float | None, seed: int | None = None) -> Job:
        config = self.config
        settings = _settings(config, config.methods[name], value, config.seed if seed is None else seed)
        return Job(
            case=case,
            out=self.run.folder / "methods" / name / part,
            settings=settings,
            method=f"{name} {part}",
        )

    def _scores(
        self, name: str, jobs: Sequence[Job], *, with_clip: bool, keep: bool = False
    ) -> list[dict[str, Any]]:
        """An entry for each job, made and scored."""
        if not jobs:
            return []
        at_once = self.config.assets_at_once
        assets = making.make(self.run, jobs, name=name, at_once=at_once, begun=len(self.made))
        self.made += assets
        self.run.begin_phase(f"score {name}", len(jobs))
        entries = []
        for done, (job, asset) in enumerate(zip(jobs, assets, strict=True), start=1):
            entry, images = measuring.score_asset(
                job.case, asset, self._measure(job.case, with_clip=with_clip), with_clip=with_clip
            )
            if keep and job.out.name == f"seed_{self.config.seed}":
                self.pictures[job.out.parent.name, job.case.index] = images
            entries.append(entry)
            self.run.display.update(done, {"iou": entry["scores"]["iou"]})
        self.run.end_phase()
        return entries

    def _measure(self, case: Case, *, with_clip: bool = True) -> Any:
        clip = self.clip if with_clip else None
        return partial(
            measuring.measure,
            truth=self.truths[case.caption],
            case=case,
            clip=clip,
            captions=self.captions if clip is not None else None,
        )
