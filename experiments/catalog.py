"""The experiments there are: the YAML files under `experiment/` of the config tree, and their first line."""

from __future__ import annotations

from pathlib import Path

import yaml

import configs
from experiments.errors import UserError, did_you_mean

CONFIG_ROOT = Path(configs.__file__).parent


def roots(config_dir: str | None = None) -> list[Path]:
    """Config trees to look in: the user's own (`--config-dir`) first."""
    own = [Path(config_dir).expanduser()] if config_dir else []
    return [*own, CONFIG_ROOT]


def experiments(config_dir: str | None = None) -> dict[str, Path]:
    """Name ('family/name') -> file, sorted by name."""
    found: dict[str, Path] = {}
    for root in reversed(roots(config_dir)):
        base = root / "experiment"
        found.update(
            {path.relative_to(base).with_suffix("").as_posix(): path for path in base.rglob("*.yaml")}
        )
    return dict(sorted(found.items()))


def options(group: str, config_dir: str | None = None) -> list[str]:
    """Names of the configs of a group."""
    return sorted({path.stem for root in roots(config_dir) for path in (root / group).glob("*.yaml")})


def description(path: Path) -> str:
    """The first comment line of an experiment that is not Hydra's package line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
    return ""


def task_of(name: str, config_dir: str | None = None) -> str:
    """The task of an experiment: `- /task: NAME` in its defaults list, or in that of one it builds on."""
    known = experiments(config_dir)
    if name not in known:
        listing = ", ".join(known) or "none"
        raise UserError(f"unknown experiment {name!r}.{did_you_mean(name, known)} There are: {listing}")
    task = _task_in(name, known, depth=0)
    if task is None:
        raise UserError(f"{known[name]} names no task; its defaults list must hold a line '- /task: NAME'")
    return task


def _task_in(name: str, known: dict[str, Path], depth: int) -> str | None:
    if name not in known or depth > 8:
        return None
    content = yaml.safe_load(known[name].read_text(encoding="utf-8")) or {}
    for entry in content.get("defaults", []):
        if isinstance(entry, dict):
            for key, value in entry.items():
                if key.removeprefix("override ").strip("/ ") == "task":
                    return str(value)
        elif isinstance(entry, str):
            # Another experiment this one builds on: '/experiment/family/name', or 'family/name' for short.
            task = _task_in(entry.removeprefix("/experiment/"), known, depth + 1)
            if task is not None:
                return task
    return None
