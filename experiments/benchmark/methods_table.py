"""benchmark.md of a table of methods, for people. The result is what goes into benchmark.json."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any

from experiments.benchmark.table import COLUMNS, COSTS, cell, escape, heading, table

_SCORES = {key: COLUMNS[key] for key in COLUMNS if key != "pieces_ok"}
_COSTS = {key: COSTS[key] for key in ("psnr_db", "seconds", "peak_memory_mb")}
_CONTROLS = {"oracle": "the world's mesh", "sphere": "a grey ball"}
_EXPLAINED = (
    "A row a method, the same captions for all. Volume IoU, Chamfer distance and F-score are measured without any "
    "alignment, against the world's canonical shape of each caption; albedo error is a mean absolute difference in "
    "linear [0, 1] over the mesh's surface. Seconds are those of the run's stages; memory is its peak. A failed asset "
    "counts with the worst scores."
)


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report."""
    methods = result["methods"]
    lines = [
        *heading(result),
        *([f"- network evaluations an asset: {result['evaluations']}"] if result["evaluations"] else []),
        *([f"- seconds: of {result['at_once']} assets made at once"] if result["at_once"] > 1 else []),
        f"- R-precision: {result['r_precision']}",
        f"- captions: {'; '.join(map(escape, result['captions']))}",
        "",
        _EXPLAINED,
        "",
        "## Methods",
        "",
        *table(*_methods(result)),
        "",
    ]
    swept = {name: row["sweep"] for name, row in methods.items() if row["sweep"]}
    if swept:
        others = " and ".join(map(escape, result["sweep_captions"]))
        lines += [
            "## Sweeps",
            "",
            f"Mean IoU on {others}, which the table above leaves out; the best value is taken.",
            "",
            *table(
                ["", "setting", "value: IoU", "taken"], [_sweep(name, one) for name, one in swept.items()]
            ),
            "",
        ]
    seeded = {name: row["seeds"] for name, row in methods.items() if row["seeds"]}
    if seeded:
        lines += ["## Seeds", "", *table(*_seeds(seeded)), ""]
    header = ["IoU", *(escape(caption) for caption in result["captions"])]
    rows = [
        [name, *(cell(asset["scores"]["iou"], 3) for asset in row["assets"])] for name, row in methods.items()
    ]
    lines += ["## Captions", "", *table(header, rows), ""]
    failed = [
        f"- {name}, {escape(asset['caption'])}: {escape(asset['reason'])}"
        for name, row in methods.items()
        for asset in row["assets"]
        if asset["reason"]
    ]
    return "\n".join([*lines, *(["## Failed", "", *failed, ""] if failed else [])])


def summary(result: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    lines = [f"{'':14} {'steps':>6} {'IoU':>7} {'s':>7}"]
    for name, row in result["methods"].items():
        scores, costs = row["scores"], row["costs"]
        lines.append(
            f"{name:14} {row['steps'] or '-':>6} {cell(scores['iou'], 3):>7} {cell(costs.get('seconds'), 1):>7}"
        )
    return "\n".join(lines)


def _methods(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = [
        "",
        "steps",
        *(title for title, _ in _SCORES.values()),
        *(title for title, _ in _COSTS.values()),
    ]
    rows = []
    for name, row in result["methods"].items():
        taken = f" ({row['sweep']['best']:g})" if row["sweep"] else ""
        failed = f", {row['failed']} failed" if row["failed"] else ""
        rows.append(
            [
                f"**{name}**{taken}{failed}",
                str(row["steps"] or "own"),
                *(cell(row["scores"].get(key), digits) for key, (_, digits) in _SCORES.items()),
                *(cell(row["costs"].get(key), digits) for key, (_, digits) in _COSTS.items()),
            ]
        )
    for name, title in _CONTROLS.items():
        scores = [cell(result["controls"][name].get(key), digits) for key, (_, digits) in _SCORES.items()]
        rows.append([title, "", *scores, *[""] * len(_COSTS)])
    return header, rows


def _sweep(name: str, one: Mapping[str, Any]) -> list[str]:
    tried = ", ".join(f"{value}: {cell(iou, 3)}" for value, iou in one["iou"].items())
    return [name, f"`{one['key']}`", tried, f"{one['best']:g}"]


def _seeds(seeded: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Mean IoU of each seed on the captions that all of them have, and how far they spread."""
    rows = []
    for name, seeds in seeded.items():
        means = [scores["iou"] for scores in seeds.values()]
        each = ", ".join(f"{seed}: {cell(mean, 3)}" for seed, mean in zip(seeds, means, strict=True))
        rows.append([name, each, cell(fmean(means), 3), cell(stdev(means), 3) if len(means) > 1 else "-"])
    return ["", "seed: IoU", "mean", "standard deviation"], rows
