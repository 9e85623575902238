"""benchmark.md: a benchmark's result for people. The result is what goes into benchmark.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.benchmark import sharpness

# Score -> column title, digits (None: a share, in per cent).
Columns = Mapping[str, tuple[str, int | None]]

COLUMNS: Columns = {
    "iou": ("IoU", 3),
    "chamfer": ("Chamfer", 4),
    "fscore": ("F@0.02", 3),
    "albedo_error": ("albedo error", 3),
    "sharpness": ("sharpness", 2),
    "r_precision": ("R-precision", None),
    "watertight": ("watertight", None),
    "pieces_ok": ("one piece a thing", None),
    "face_front": ("face in front", None),
    "face_back": ("Janus", None),
}
COSTS: Columns = {
    "psnr_db": ("PSNR dB", 1),
    "seconds": ("s", 1),
    "wall_seconds": ("s, process", 1),
    "peak_memory_mb": ("MB", 0),
}
CONTROLS = {
    "oracle": "oracle (the world's mesh)",
    "other_proportions": "the same caption in other proportions",
    "sphere": "a grey ball",
    "wrong_caption": "another caption's truth",
}
_TRUE_VIEWS = (
    "**a control: the world's own pictures stand in for sampled ones.** No model takes part in the assets, so the "
    "numbers are the ceiling of what follows the views"
)
_EXPLAINED = (
    "Volume IoU, Chamfer distance and F-score are measured without any alignment, against the world's canonical shape "
    "of each caption. Albedo error is a mean absolute difference in linear [0, 1] over the mesh's surface. "
    f"{sharpness.EXPLAINED} Of the mesh's shaded views. Janus is "
    "the share of heads with a face on the back. Seconds are those of the run's phases, then of the whole process; "
    "memory is its peak. A failed asset counts with the worst scores."
)


def cell(value: Any, digits: int | None) -> str:
    """A number, a share in per cent, or a dash."""
    if value is None:
        return "-"
    return f"{100 * float(value):.0f} %" if digits is None else f"{float(value):.{digits}f}"


def _answer(value: Any, digits: int | None) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else cell(value, digits)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, its numbers to the right."""
    lines = [f"| {' | '.join(header)} |", f"| --- {'| ---: ' * (len(header) - 1)}|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def group_rows(
    result: Mapping[str, Any],
    columns: Columns = COLUMNS,
    controls: Mapping[str, str] = CONTROLS,
    costs: Columns = COSTS,
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the means: each group's assets, then its controls (key -> title)."""
    header = ["", "n", *(title for title, _ in columns.values()), *(title for title, _ in costs.values())]
    rows = []
    for name, group in result["groups"].items():
        spent = [cell(group["costs"].get(key), digits) for key, (_, digits) in costs.items()]
        means = [cell(group["scores"].get(key), digits) for key, (_, digits) in columns.items()]
        rows.append([f"**{name}**{_from(result)}", str(group["count"]), *means, *spent])
        for control, title in controls.items():
            if control in group["controls"]:
                means = [
                    cell(group["controls"][control].get(key), digits) for key, (_, digits) in columns.items()
                ]
                rows.append([f"{name}: {title}", "", *means, *[""] * len(costs)])
    return header, rows


def _asset_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = [
        "caption",
        *(title for title, _ in COLUMNS.values()),
        *(title for title, _ in COSTS.values()),
        "glTF",
    ]
    rows = []
    for asset in result["assets"]:
        failed = f" (failed: {escape(asset['reason'])})" if asset["reason"] else ""
        means = [_answer(asset["scores"].get(key), digits) for key, (_, digits) in COLUMNS.items()]
        costs = [cell(asset["costs"].get(key), digits) for key, (_, digits) in COSTS.items()]
        issues = asset["gltf"]
        valid = f"{issues['errors']} / {issues['warnings']}" if issues else "-"
        rows.append([escape(asset["caption"]) + failed, *means, *costs, valid])
    return header, rows


def _from(result: Mapping[str, Any]) -> str:
    """What stands beside a group's name when no model made its assets."""
    return " from true views" if result.get("prior") == "truth" else ""


def _gltf_line(result: Mapping[str, Any]) -> str:
    gltf = result["gltf_validator"]
    if gltf["version"] is None:
        return "gltf-validator: not run (it was not found; `npm install gltf-validator`)."
    return (
        f"gltf-validator {gltf['version']}: {gltf['errors']} errors and {gltf['warnings']} warnings "
        f"in {gltf['files']} files."
    )


def heading(result: Mapping[str, Any]) -> list[str]:
    """Title and date, then command, code, backbone and machine, one line each."""
    made, hardware = result["generator"], result["hardware"]
    changed = " with changes" if made.get("modified") else ""
    load = f"{hardware['load_average']:.1f}" if hardware["load_average"] is not None else "unknown"
    machine = f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gb']} GB, {hardware['device']}"
    return [
        f"# {result['experiment']}, {result['created'][:10]}",
        "",
        f"- command: `{result['command']}`",
        f"- code: Galatea {made['version']}, commit {made.get('commit') or 'unknown'}{changed}",
        f"- backbone: {result['backbone']['name']}, revision {result['backbone']['revision'] or 'unknown'}",
        f"- hardware: {machine}; load at the start {load}",
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report."""
    lines = [
        *heading(result),
        *([f"- views: {_TRUE_VIEWS}"] if _from(result) else []),
        *([f"- seconds: of {result['at_once']} assets made at once"] if result.get("at_once", 1) > 1 else []),
        f"- R-precision: {result['r_precision']}",
        f"- {_gltf_line(result)}",
        f"- failed assets: {sum(bool(asset['reason']) for asset in result['assets'])} of {len(result['assets'])}",
        "",
        _EXPLAINED,
        "",
        "## Means",
        "",
        *table(*group_rows(result)),
        "",
        "## Assets",
        "",
        "glTF: errors / warnings of the validator.",
        "",
        *table(*_asset_rows(result)),
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
