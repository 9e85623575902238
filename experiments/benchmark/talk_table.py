"""talk.md: the report of a talking-portrait model, for people. The result is what goes into talk.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.benchmark import sharpness
from experiments.benchmark.table import Columns, cell, escape, heading, table

COLUMNS: Columns = {
    "r": ("mouth r", 3),
    "error": ("mouth error", 3),
    "in_step": ("in step", None),
    "closures": ("closures", None),
    "stillness": ("stillness", 3),
    "static_psnr_db": ("static dB", 1),
    "identity": ("identity", 3),
    "sharpness": ("sharpness", 2),
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
    f"{sharpness.EXPLAINED} In the portrait's face box, the portrait being the truth.",
    "Joins: change from frame to frame where clips meet, over that inside them; 1 is invisible.",
    (
        "Made: about the face box that the world knows. The face found: about the box that is found in the portrait, "
        "cropped and put back as the task talk does; its overlap with the true box is intersection over union."
    ),
    "Sync-C, Sync-D: of the miniature SyncNet of this world; they do not compare with the public one's.",
    "The mouth opening is read by a small network; the world's own frames show what it can read at best.",
)


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report."""
    header = ["", *(title for title, _ in COLUMNS.values())]
    found = result["found"]
    rows = [["**made**", *_cells(result["scores"])]]
    if found["clips"]:
        rows.append([f"**the face found**, {found['clips']} clips", *_cells(found["scores"])])
        rows.append(["made, the same clips", *_cells(found["true_face"])])
    controls, speed, memory = result["controls"], result["frames_per_second"], result["peak_memory_mb"]
    rows += [[title, *_cells(controls[key])] for key, title in CONTROLS.items() if key in controls]
    clips = []
    for each in result["clips"]:
        clips.append([_name(each), cell(each["box_overlap"], 2), *_cells(each["scores"])])
        if "found" in each:
            clips.append(["... the face found", "", *_cells(each["found"])])
    lines = [
        *heading(result),
        f"- weights: SHA-256 of the adapters {result['adapters'][:16]}...",
        f"- animation: {result['animation']}",
        f"- speed: {speed:.2f} frames a second, decoding included; peak memory {memory:.0f} MB",
        f"- faces: {_faces(found, len(result['clips']))}",
        f"- waiting: {_waiting(result['waiting'])}",
        f"- clips: {len(result['clips'])} of held-out people, voices and sentences, {result['num_frames']} frames each",
        "",
        *(f"- {text}" for text in _EXPLAINED),
        "",
        *table(header, rows),
        "",
        "## Clips",
        "",
        *table(["clip", "overlap", *header[1:]], clips),
        "",
    ]
    return "\n".join(lines)


def _faces(found: Mapping[str, Any], count: int) -> str:
    median, worst = found["overlap_median"], found["overlap_worst"]
    return (
        f"found in {found['faces']} of {count} portraits; overlap with the true box {median:.2f} (median), "
        f"{worst:.2f} (worst)"
    )


def _waiting(waiting: Mapping[str, Any]) -> str:
    if waiting["reason"]:
        return f"unknown, for talk/quickstart failed ({escape(waiting['reason'])})"
    return (
        f"{waiting['frames_per_second']:.2f} frames a second as a user of talk/quickstart waits for them: "
        f"{waiting['frames']} frames in {waiting['seconds']:.1f} s, from the start of the process to the finished video"
    )


def _name(clip: Mapping[str, Any]) -> str:
    return escape(f"{clip['voice']}: {clip['text'] or '(syllables)'}")


def _cells(scores: Mapping[str, Any]) -> list[str]:
    return [cell(scores.get(key), digits) for key, (_, digits) in COLUMNS.items()]


def summary(result: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    shown = ("r", "in_step", "closures", "stillness", "static_psnr_db", "identity")
    lines = [f"{'':10} " + " ".join(f"{COLUMNS[key][0]:>12}" for key in shown)]
    found = {"found": result["found"]["scores"]} if result["found"]["clips"] else {}
    for name, scores in {"made": result["scores"], **found, **result["controls"]}.items():
        lines.append(f"{name:10} " + " ".join(f"{cell(scores.get(k), COLUMNS[k][1]):>12}" for k in shown))
    return "\n".join([*lines, f"{result['frames_per_second']:.2f} frames a second"])
