"""talk_files.md: the report on anybody's pictures and recordings. The result is what goes into talk_files.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.benchmark.table import Columns, cell, escape, heading, table

COLUMNS: Columns = {
    "loudness_r": ("loudness r", 3),
    "stillness": ("stillness", 3),
    "identity": ("identity", 3),
    "boundary_jump": ("joins", 2),
}
CONTROLS = {"static": "the portrait, held still", "shuffled": "held against another recording"}
_EXPLAINED = (
    "No truth is known of these, so the numbers say less than those of benchmark/talk.",
    (
        "Loudness r: Pearson correlation, over the frames, of the mouth opening read from the pictures with the "
        "recording's loudness in dB. Mouths shut in loud sounds too, and open in quiet ones: 1 is not to be had."
    ),
    "Stillness: variance of the opening in silence over that in sound; lower is better.",
    "Identity: cosine of CLIP embeddings with the portrait's. Joins: change where clips meet over that inside them.",
    "The mouth opening is read by a small network trained on the heads of the procedural world.",
)


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report."""
    header = ["", *(title for title, _ in COLUMNS.values())]
    rows = [["**made**", *_cells(result["scores"])]]
    rows += [[CONTROLS[key], *_cells(scores)] for key, scores in result["controls"].items()]
    each = [
        [escape(f"{one['portrait']['file']}, {one['audio']['file']}"), *_cells(one["scores"])]
        for one in result["pairs"]
    ]
    lines = [
        *heading(result),
        f"- weights: SHA-256 of the adapters {result['adapters'][:16]}...",
        f"- speed: {result['frames_per_second']:.2f} frames a second; peak memory {result['peak_memory_mb']:.0f} MB",
        "",
        *(f"- {text}" for text in _EXPLAINED),
        "",
        *table(header, rows),
        "",
        "## Pairs",
        "",
        *table(["portrait, recording", *header[1:]], each),
        "",
    ]
    if result["left_out"]:
        lines += ["## Left out", ""]
        lines += [escape(f"- {name}: {reason}") for name, reason in result["left_out"].items()] + [""]
    return "\n".join(lines)


def _cells(scores: Mapping[str, Any]) -> list[str]:
    return [cell(scores.get(key), digits) for key, (_, digits) in COLUMNS.items()]


def summary(result: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    lines = [f"{'':10} " + " ".join(f"{title:>12}" for title, _ in COLUMNS.values())]
    for name, scores in {"made": result["scores"], **result["controls"]}.items():
        lines.append(f"{name:10} " + " ".join(f"{each:>12}" for each in _cells(scores)))
    return "\n".join([*lines, f"{result['frames_per_second']:.2f} frames a second"])
