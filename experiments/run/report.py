"""report.json, report.html and provenance.json at the end of a run.

report.json is written last: a folder that has it, and the files it names, holds a finished run.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from experiments.run import folder as folders
from experiments.run.files import write_json, write_text
from experiments.run.inputs import without_places
from experiments.run.machine import peak_gpu_memory_mb, peak_memory_mb
from experiments.run.provenance import provenance

if TYPE_CHECKING:
    from experiments.run.run import Run

ASSETS = Path(__file__).parent / "assets"
# A page is a convenience; a file larger than this is linked, not embedded.
MAX_EMBEDDED_BYTES = 24 * 2**20
_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4", ".glb": "model/gltf-binary"}


def write(run: Run, config: Mapping[str, Any], config_hash: str) -> None:
    """Write provenance.json, report.html and report.json of a run that has done its task."""
    paths = [(run.folder / name, kind) for name, kind in run.artefacts.items()]
    record = provenance(
        config,
        config_hash=config_hash,
        inputs=run.inputs,
        facts=run.facts,
        generated_by_ai=run.generated_by_ai,
        artefacts=paths,
    )
    full = {
        **record,
        "seconds": {name: round(value, 3) for name, value in run.seconds.items()},
        "seconds_total": round(sum(run.seconds.values()), 3),
        "peak_memory_mb": peak_memory_mb(),
        "peak_gpu_memory_mb": peak_gpu_memory_mb(run.device),
        "metrics": run.metrics,
        "notes": without_places(run.notes, run.config),
    }
    write_json(run.folder / folders.PROVENANCE, record)
    write_text(run.folder / folders.PAGE, page(run.folder, without_places(config, run.config), full))
    write_json(run.folder / folders.REPORT, full)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line that was cut off is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def data_uri(path: Path) -> str:
    """A file as a data URI."""
    return f"data:{_MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def curve_svg(values: list[float], title: str, width: int = 360, height: int = 120) -> str:
    """A line chart of `values` as inline SVG, at most one point per two pixels, each the mean of its stretch."""
    count = min(len(values), width // 2)
    edges = [round(index * len(values) / count) for index in range(count + 1)] if count else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = (min(means), max(means)) if means else (0.0, 1.0)
    span = (high - low) or 1.0
    step = width / max(len(means) - 1, 1)
    points = " ".join(
        f"{i * step:.1f},{height - 4 - (v - low) / span * (height - 8):.1f}" for i, v in enumerate(means)
    )
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
        f"<figcaption>{html.escape(title)}: {low:.4g} to {high:.4g}, last {values[-1]:.4g}</figcaption></figure>"
    )


def _curves(folder: Path) -> str:
    by_series: dict[tuple[str, str], list[float]] = {}
    for record in read_log(folder / folders.METRICS):
        for name, value in record.items():
            if name not in ("phase", "step"):
                by_series.setdefault((str(record.get("phase", "")), name), []).append(float(value))
    return "".join(curve_svg(v, " ".join(filter(None, key))) for key, v in by_series.items() if len(v) > 1)


def _media(path: Path, kind: str) -> str:
    name = html.escape(path.name)
    if path.suffix not in _MIME:
        return ""
    if not _is_embedded(path):
        size = f"{path.stat().st_size / 1e6:.0f} MB"
        return (
            f'<figure><a href="{quote(path.name)}">{name}</a> ({size}) is too large for this page.</figure>'
        )
    if path.suffix == ".mp4":
        return (
            f'<figure><video src="{data_uri(path)}" controls loop muted playsinline></video>'
            f"<figcaption>{name}</figcaption></figure>"
        )
    if path.suffix == ".glb":
        return (
            f'<figure><model-viewer src="{data_uri(path)}" camera-controls auto-rotate shadow-intensity="0.6"'
            f' alt="{html.escape(kind)}"></model-viewer><figcaption>{name}: drag to turn</figcaption></figure>'
        )
    small = ' class="small"' if kind == "texture" else ""
    return f'<figure{small}><img src="{data_uri(path)}" alt="{name}"><figcaption>{name}</figcaption></figure>'


def _is_embedded(path: Path) -> bool:
    return path.stat().st_size <= MAX_EMBEDDED_BYTES


def _rows(value: Mapping[str, Any]) -> str:
    from experiments.run.settings import flatten

    shown = ((name, f"{v:.5g}" if isinstance(v, float) else v) for name, v in flatten(value).items())
    return "".join(f"<tr><th>{html.escape(str(n))}</th><td>{html.escape(str(v))}</td></tr>" for n, v in shown)


def page(folder: Path, config: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """A self-contained HTML page: pictures, the mesh to turn, curves, numbers, settings. It fetches nothing."""
    media = [(folder / each["file"], each["kind"]) for each in report["artefacts"]]
    # An unwrapped texture says least: it comes last, and small.
    media.sort(key=lambda one: one[1] == "texture")
    figures = "".join(_media(path, kind) for path, kind in media)
    script = ""
    if any(path.suffix == ".glb" and _is_embedded(path) for path, _ in media):
        # "</script" inside a script would end it; the vendored file holds none, and this keeps it so.
        source = (
            (ASSETS / "model-viewer.min.js").read_text(encoding="utf-8").replace("</script", "<\\/script")
        )
        script = f"<script>{source}</script>"
    title = report["inputs"].get("prompt", {}).get("text") or report["experiment"]
    numbers = {"seconds": report["seconds"], "peak_memory_mb": report["peak_memory_mb"], **report["metrics"]}
    made = {k: report[k] for k in ("generator", "created", "config_hash", "seed") if k in report}
    made.update({k: report[k] for k in ("backbone", "device") if k in report})
    model = "Made by a generative model." if report["generated_by_ai"] else "No generative model took part."
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in report["notes"])
    settings = html.escape(folders.to_yaml(config))
    files = "".join(
        f"<tr><th>{html.escape(a['file'])}</th><td>{a['bytes']} bytes</td><td><code>{a['sha256']}</code></td></tr>"
        for a in report["artefacts"]
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(one_title(title))}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }}
section.media {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ margin: 0; }} figcaption {{ font-size: 13px; opacity: .7; }}
img, video {{ max-width: 100%; border-radius: 6px; }} figure.small img {{ width: 200px; }}
model-viewer {{ width: 420px; height: 420px; background: #d8dade; border-radius: 6px; }}
th {{ text-align: left; font-weight: 500; padding-right: 1.5rem; vertical-align: top; }}
td {{ overflow-wrap: anywhere; }} code, pre {{ font-size: 12px; }} pre {{ overflow-x: auto; }}
svg {{ border: 1px solid #8884; border-radius: 6px; }}
</style></head><body>
<h1>{html.escape(one_title(title))}</h1>
<p>{model} {html.escape(report["experiment"])}, budget {html.escape(str(config.get("budget")))}.</p>
<ul>{notes}</ul>
<section class="media">{figures}</section>
<h2>Numbers</h2><table>{_rows(numbers)}</table>
<h2>Curves</h2><section class="media">{_curves(folder)}</section>
<h2>Made with</h2><table>{_rows(made)}</table>
<h2>Files</h2><table>{files}</table>
<h2>Settings</h2><pre>{settings}</pre>
{script}</body></html>
"""


def one_title(text: str, limit: int = 120) -> str:
    """A prompt as a page title: one line, cut."""
    folded = " ".join(str(text).split())
    return folded if len(folded) <= limit else folded[: limit - 3] + "..."
