"""benchmark.md: a benchmark's result for people. The result is what goes into benchmark.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Score -> column title, digits (None: a share, in per cent).
COLUMNS: dict[str, tuple[str, int | None]] = {
    "iou": ("IoU", 3),
    "chamfer": ("Chamfer", 4),
    "fscore": ("F@0.02", 3),
    "albedo_error": ("albedo error", 3),
    "r_precision": ("R-precision", None),
    "watertight": ("watertight", None),
    "pieces_ok": ("one piece a thing", None),
    "face_front": ("face in front", None),
    "face_back": ("Janus", None),
}
_COSTS = {
    "psnr_db": ("PSNR dB", 1),
    "seconds": ("s", 1),
    "wall_seconds": ("s, process", 1),
    "peak_memory_mb": ("MB", 0),
}
CONTROLS = {
    "oracle": "oracle (the world's mesh)",
    "sphere": "a grey ball",
    "wrong_caption": "another caption's truth",
}
_EXPLAINED = (
    "Volume IoU, Chamfer distance and F-score are measured without any alignment, against the world's canonical shape "
    "of each caption. Albedo error is a mean absolute difference in linear [0, 1] over the mesh's surface. Janus is "
    "the share of heads with a face on the back. Seconds are those of the run's stages, then of the whole process; "
    "memory is its peak. A failed asset counts with the worst scores."
)


def cell(value: Any, digits: int | None) -> str:
    """A number, a share in per cent, or a dash."""
    if value is None:
        return "-"
    return f"{100 * float(value):.0f} %" if digits is None else f"{float(value):.{digits}f}"


def _answer(value: Any, digits: int | None) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else cell(value, digits)


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"| --- {'| ---: ' * (len(header) - 1)}|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def group_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the means: each group's assets, then its controls."""
    header = ["", "n", *(title for title, _ in COLUMNS.values()), *(title for title, _ in _COSTS.values())]
    rows = []
    for name, group in result["groups"].items():
        costs = [cell(group["costs"].get(key), digits) for key, (_, digits) in _COSTS.items()]
        means = [cell(group["scores"].get(key), digits) for key, (_, digits) in COLUMNS.items()]
        rows.append([f"**{name}**", str(group["count"]), *means, *costs])
        for control, title in CONTROLS.items():
            if control in group["controls"]:
                means = [
                    cell(group["controls"][control].get(key), digits) for key, (_, digits) in COLUMNS.items()
                ]
                rows.append([f"{name}: {title}", "", *means, *[""] * len(_COSTS)])
    return header, rows


def _asset_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = [
        "caption",
        *(title for title, _ in COLUMNS.values()),
        *(title for title, _ in _COSTS.values()),
        "glTF",
    ]
    rows = []
    for asset in result["assets"]:
        failed = f" (failed: {_escape(asset['reason'])})" if asset["reason"] else ""
        means = [_answer(asset["scores"].get(key), digits) for key, (_, digits) in COLUMNS.items()]
        costs = [cell(asset["costs"].get(key), digits) for key, (_, digits) in _COSTS.items()]
        issues = asset["gltf"]
        valid = f"{issues['errors']} / {issues['warnings']}" if issues else "-"
        rows.append([_escape(asset["caption"]) + failed, *means, *costs, valid])
    return header, rows


def _gltf_line(result: Mapping[str, Any]) -> str:
    gltf = result["gltf_validator"]
    if gltf["version"] is None:
        return "gltf-validator: not run (it was not found; `npm install gltf-validator`)."
    return (
        f"gltf-validator {gltf['version']}: {gltf['errors']} errors and {gltf['warnings']} warnings "
        f"in {gltf['files']} files."
    )


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report."""
    made, hardware = result["generator"], result["hardware"]
    changed = " with changes" if made.get("modified") else ""
    load = f"{hardware['load_average']:.1f}" if hardware["load_average"] is not None else "unknown"
    machine = f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gb']} GB, {hardware['device']}"
    lines = [
        f"# {result['experiment']}, {result['created'][:10]}",
        "",
        f"- command: `{result['command']}`",
        f"- code: Galatea {made['version']}, commit {made.get('commit') or 'unknown'}{changed}",
        f"- backbone: {result['backbone']['name']}, revision {result['backbone']['revision'] or 'unknown'}",
        f"- hardware: {machine}; load at the start {load}",
        f"- R-precision: {result['r_precision']}",
        f"- {_gltf_line(result)}",
        f"- failed assets: {sum(bool(asset['reason']) for asset in result['assets'])} of {len(result['assets'])}",
        "",
        _EXPLAINED,
        "",
        "## Means",
        "",
        *_table(*group_rows(result)),
        "",
        "## Assets",
        "",
        "glTF: errors / warnings of the validator.",
        "",
        *_table(*_asset_rows(result)),
        "",
    ]
    return "\n".join(lines)


def summary(result: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    shown = ("iou", "fscore", "albedo_error", "r_precision", "watertight", "face_back")
    lines = [
        f"{'':10} {'n':>3} " + " ".join(f"{COLUMNS[key][0]:>13}" for key in shown) + f" {'s':>7} {'MB':>7}"
    ]
    for name, group in result["groups"].items():
        scores = " ".join(f"{cell(group['scores'].get(key), COLUMNS[key][1]):>13}" for key in shown)
        costs = group["costs"]
        spent = f"{cell(costs.get('seconds'), 1):>7} {cell(costs.get('peak_memory_mb'), 0):>7}"
        lines.append(f"{name:10} {group['count']:>3} {scores} {spent}")
    failed = [asset for asset in result["assets"] if asset["reason"]]
    lines += [f"failed: {asset['caption']}: {asset['reason']}" for asset in failed]
    return "\n".join([*lines, _gltf_line(result)])
