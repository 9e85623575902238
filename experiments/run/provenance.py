"""How a result was made: the facts that provenance.json, report.json and the video's comment are filled from.

One function collects them, so the three cannot disagree.
"""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from experiments.run.files import sha256_of_file, sha256_of_text

SOURCE = Path(__file__).resolve().parents[2]
LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "safetensors",
    "hydra-core",
    "manifold3d",
    "warp-lang",
    "xatlas",
    "av",
)


def version() -> str:
    """Galatea's version; 'unknown' when it runs from a folder that was never installed."""
    try:
        return importlib.metadata.version("galatea")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def library_versions() -> dict[str, str]:
    """Versions of the libraries that results depend on, and of Python."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def code_commit() -> dict[str, Any]:
    """{'commit': hash or None, 'modified': True when the tree differs from it}."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(SOURCE), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A site-packages folder inside someone else's repository is not our commit.
    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != SOURCE:
        return {"commit": None, "modified": None}
    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "modified": bool(status) if status is not None else None}


def describe_text(text: str) -> dict[str, Any]:
    """A text input with its SHA-256."""
    return {"text": text, "sha256": sha256_of_text(text)}


def describe_file(path: Path) -> dict[str, Any]:
    """A file by name (not by place: that is private), size and SHA-256."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of_file(path)}


def media_tags(
    *, generated_by_ai: bool, seed: int, backbone: Mapping[str, Any] | None = None, prompt: str | None = None
) -> dict[str, str]:
    """Metadata for a video's container: what made it, a model only where one took part, and from what.

    backbone: as `experiments.run.backbones.describe` gives it.
    """
    made = f"Made by Galatea {version()}, without a generative model"
    if generated_by_ai:
        made = f"Made by a generative model: Galatea {version()}"
        if backbone is not None:
            made += f", backbone {backbone['name']} {backbone['revision'] or ''}"
    return {"comment": f"{made}, seed {seed}" + ("" if prompt is None else f", prompt: {prompt}")}


def provenance(
    config: Mapping[str, Any],
    *,
    config_hash: str,
    inputs: Mapping[str, Any],
    facts: Mapping[str, Any],
    generated_by_ai: bool,
    artefacts: Iterable[tuple[Path, str]] = (),
) -> dict[str, Any]:
    """Everything needed to say how a run's files came about.

    config: the run's config as plain containers. inputs: name -> `describe_text` / `describe_file`.
    facts: what the task adds (the backbone's id and revision, the device). generated_by_ai: whether a generative model
    took part in what the run made. artefacts: (path, kind) pairs.
    """
    return {
        "generator": {"name": "galatea", "version": version(), **code_commit()},
        "generated_by_ai": generated_by_ai,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "task": config["task"],
        "experiment": config["experiment"],
        "config_hash": config_hash,
        "seed": config["seed"],
        "inputs": dict(inputs),
        **facts,
        "libraries": library_versions(),
        "artefacts": [{**describe_file(path), "kind": kind} for path, kind in artefacts],
    }
