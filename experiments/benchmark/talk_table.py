"""talk.md: the report of a talking-portrait model, for people. The result is what goes into talk.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.benchmark.table import Columns, cell, escape, heading, table

COLUMNS: Columns = {
    "r": ("mouth r", 3),
    "error": ("mouth error", 3),
    "in_step": ("in step", None),
    "closures": ("closures", None),
    "stillness": ("stillness", 3),
    "static_psnr_db": ("static dB", 1),
    "identity": ("identity", 3),
    "boundary_jump": ("joins", 2),
    "sync_c": ("Sync-C", 2),
    "sync_d": ("Sync-D", 2),
}
CONTROLS = {
    "oracle": "the world's own frames",
    "static": "the portrait, held still",
    "shuffled": "frames made for another clip's sound",
}
_EXPLAINED = (
    (
        "Mouth r: Pearson correlation, over a clip's frames, of the mouth opening read from the pictures with the "
        "rig's. Mouth error: its mean absolute difference; 0.15 is wide open."
    ),
    "In step: clips whose mouth correlates best within one frame of where it should.",
    "Closures: bilabial sounds (p, b, m) at which the mouth shuts, to below a quarter of wide open.",
    "Stillness: variance of the opening in silence over that in speech; lower is better.",
    "Static: PSNR where the truth does not move. Identity: cosine of CLIP embeddings with the portrait's.",
    "Joins: change from frame to frame where clips meet, over that inside them; 1 is invisible.",
    "Sync-C, Sync-D: of the miniature SyncNet of this world; they do not compare with the public one's.",
    "The mouth opening is read by a small network; the world's own frames show what it can read at best.",
)


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report."""
    header = ["", *(title for title, _ in COLUMNS.values())]
    rows = [["**made**", *_cells(result["scores"])]]
    controls, speed, memory = result["controls"], result["frames_per_second"], result["peak_memory_mb"]
    rows += [[title, *_cells(controls[key])] for key, title in CONTROLS.items() if key in controls]
    clips = [[_name(each), *_cells(each["scores"])] for each in result["clips"]]
    lines = [
        *heading(result),
        f"- weights: SHA-256 of the adapters {result['adapters'][:16]}...",
        f"- animation: {result['animation']}",
        f"- speed: {speed:.2f} frames a second, decoding included; peak memory {memory:.0f} MB",
        f"- clips: {len(result['clips'])} of held-out people, voices and sentences, {result['num_frames']} frames each",
        "",
        *(f"- {text}" for text in _EXPLAINED),
        "",
        *table(header, rows),
        "",
        "## Clips",
        "",
        *table(["clip", *header[1:]], clips),
        "",
    ]
    return "\n".join(lines)


def _name(clip: Mapping[str, Any]) -> str:
    return escape(f"{clip['voice']}: {clip['text'] or '(syllables)'}")


def _cells(scores: Mapping[str, Any]) -> list[str]:
    return [cell(scores.get(key), digits) for key, (_, digits) in COLUMNS.items()]


def summary(result: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    shown = ("r", "in_step", "closures", "stillness", "static_psnr_db", "identity")
    lines = [f"{'':10} " + " ".join(f"{COLUMNS[key][0]:>12}" for key in shown)]
    for name, scores in {"made": result["scores"], **result["controls"]}.items():
        lines.append(f"{name:10} " + " ".join(f"{cell(scores.get(k), COLUMNS[k][1]):>12}" for k in shown))
    return "\n".join([*lines, f"{result['frames_per_second']:.2f} frames a second"])
