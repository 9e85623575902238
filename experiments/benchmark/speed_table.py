"""benchmark.md of the benchmark of speed, for people. The result is what goes into benchmark.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.benchmark.speed_peers import OURS
from experiments.benchmark.speed_steps import BARE, STEP
from experiments.benchmark.table import cell, escape, heading, table

_EXPLAINED = (
    "The sides of a ratio take turns in one process. Seconds are medians over the turns; a ratio is the median of "
    "those of the turns, with the least and the greatest of them."
)
_PEERS = (
    "The rasterisers get the same shape in their own coordinates, and nothing else is timed: PyTorch3D's "
    "`rasterize_meshes` with one face a pixel and no blur. The hash grids have the same sixteen levels of up to 2^19 "
    "rows of 2 features from 16 to 2048 cells and hidden layers of 64, and get the same samples, none of them left "
    "out, a volume rendering and a squared error; no optimiser. Nerfacto's field is nerfstudio's own, in torch: it has "
    "two networks of five layers together, colours that depend on the direction, an appearance embedding, and "
    "gradients of the positions, which ours has not; four hidden layers give ours as many layers."
)
_STEPS = (
    "A step is all that the loop does: drawing, the encoder, the loss with its evaluations of the network, backward, "
    "the optimiser. Beside it stands one forward pass of the denoiser with and without the prompt in one batch, of as "
    "many views, without gradients. Evaluations are counted forward passes, a condition of all views at a time."
)


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        *heading(result),
        f"- threads: {result['threads']}",
        f"- versions: {versions}",
        f"- clock: {result['clock']}",
        "",
        _EXPLAINED,
        "",
    ]
    if result["comparisons"]:
        header = ["", "s", "peer", "its s", "times faster", "target", ""]
        rows = [_comparison(row) for row in result["comparisons"]]
        lines += ["## Beside others", "", _PEERS, "", *table(header, rows), ""]
    steps = result["distillation"]
    if steps:
        header = ["loss", "evaluations a step", "s a step", "s, bare denoiser", "ratio", "target"]
        rows = [_step(row) for row in steps["losses"]]
        title = f"## A distillation step ({steps['method']}, budget {steps['budget']})"
        lines += [title, "", _STEPS, "", *table(header, rows), ""]
    if steps and steps["parts"]:
        lines += [f"## Where a step of {steps['taken_apart']} goes", "", *table(*_parts(steps["parts"])), ""]
    whole = result["quickstart"]
    if whole:
        lines += [
            f"## A whole run (text_to_3d/quickstart, budget {whole['budget']})",
            "",
            f"{escape(whole['prompt'])}; in a process of its own, seconds that passed.",
            "",
            *table(["stage", "s"], [[name, cell(each, 1)] for name, each in whole["seconds"].items()]),
            "",
        ]
    return "\n".join(lines)


def summary(result: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    lines = []
    for row in result["comparisons"]:
        against = f"{_ratio(row['ratio'])} faster than {row['peer']}" if row["ratio"] else row["missing"]
        lines.append(f"{row['about']}: {_s(row['seconds'][OURS])} s  {against}".rstrip())
    steps = result["distillation"]
    lines += [
        f"{row['loss']:14} {row['evaluations']:5.1f} evaluations {_s(row['seconds'][STEP]):>8} s  "
        f"{_ratio(row['ratio'])} the denoiser"
        for row in (steps["losses"] if steps else [])
    ]
    if result["quickstart"]:
        total = sum(result["quickstart"]["seconds"].values())
        lines.append(f"quickstart: {cell(total, 1)} s")
    return "\n".join(lines)


def _comparison(row: Mapping[str, Any]) -> list[str]:
    ours, theirs = row["seconds"][OURS], row["seconds"].get(row["peer"])
    targets = [
        f"at least {row['target']:g}" if row["target"] else "",
        f"{row['target_seconds']:g} s" if row["target_seconds"] else "",
    ]
    facts = row["facts"]
    told = [
        f"covered pixels shared: {100 * facts['same_pixels']:.3f} %" if "same_pixels" in facts else "",
        f"samples: {facts['samples']:,}" if "samples" in facts else "",
    ]
    return [
        row["about"],
        _s(ours),
        row["missing"] or row["peer"] or "-",
        _s(theirs) if theirs else "-",
        _ratio(row["ratio"]) if row["ratio"] else "-",
        ", ".join(filter(None, targets)) or "-",
        "; ".join(filter(None, told)),
    ]


def _step(row: Mapping[str, Any]) -> list[str]:
    return [
        row["loss"],
        cell(row["evaluations"], 1),
        _s(row["seconds"][STEP]),
        _s(row["seconds"][BARE]),
        _ratio(row["ratio"]),
        f"at most {row['target']:g}" if row["target"] else "-",
    ]


def _parts(parts: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    whole = parts["the whole step"]["median"]
    rows = [[name, _s(each), cell(each["median"] / whole, None)] for name, each in parts.items()]
    return ["", "s", "share"], rows


def _ratio(ratio: Mapping[str, float]) -> str:
    def short(value: float) -> str:
        return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"

    return f"{short(ratio['median'])} ({short(ratio['least'])}-{short(ratio['greatest'])})"


def _s(seconds: Mapping[str, float]) -> str:
    """Three digits that count."""
    value = seconds["median"]
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"
