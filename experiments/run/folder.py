"""Which folder a run gets, what may already be in it, and the lock that keeps a second process out.

No user text ever becomes part of a path, except `out` itself, which is a path.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from experiments.errors import UserError, one_line
from experiments.run.files import write_json, write_text
from experiments.run.settings import differences, flatten, identity_hash
from files.atomic import is_temporary

CONFIG, METRICS, REPORT, PAGE, PROVENANCE = (
    "config.yaml",
    "metrics.jsonl",
    "report.json",
    "report.html",
    "provenance.json",
)
CHECKPOINTS, RECORD, LOCK = "checkpoints", ".run.json", ".lock"
# What systems and tools put into folders unasked, in lower case.
_CLUTTER = frozenset(
    (".directory", ".ds_store", ".gitignore", ".gitkeep", ".keep", ".localized", ".trashes", "@eadir", "desktop.ini",
     "ehthumbs.db", "icon\r", "lost+found", "thumbs.db")
)  # fmt: skip


def choose(config: Mapping[str, Any], *, one_of_many: bool = False, base: Path = Path("outputs")) -> Path:
    """The run folder for a config: `out`, or under `base` the newest run of the same config, or a new name.

    In a multirun `out` is the parent of one folder per config, named by its hash.
    """
    digest = identity_hash(config)
    if config.get("out"):
        folder = Path(config["out"])
        return folder / digest if one_of_many else folder
    parent = base / config["task"]
    earlier = sorted(parent.glob(f"????-??-??-{digest}")) if parent.is_dir() else []
    return earlier[-1] if earlier else parent / f"{date.today().isoformat()}-{digest}"


def lock(folder: Path) -> AbstractContextManager[object]:
    """Make the folder and hold its lock; UserError when it cannot be written or another process has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"out: another process is working in {folder}; wait for it or choose another out=DIR"
        ) from None
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UserError(
            f"out: cannot write in {folder}: {reason}; choose another folder with out=DIR"
        ) from None


def read_config(folder: Path) -> dict[str, Any] | None:
    """The config of the run in `folder`; None when it holds none."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({one_line(error, 120)}); choose another out=DIR") from None
    return content if isinstance(content, dict) and "task" in content else None


def refuse_foreign(folder: Path) -> None:
    """UserError when `folder` holds files and none of them says that it is a run."""
    if not folder.is_dir() or read_config(folder) is not None:
        return
    foreign = sorted(
        path.name
        for path in folder.iterdir()
        if path.name != LOCK and not is_temporary(path) and not is_clutter(path.name)
    )
    if foreign:
        listing = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise UserError(
            f"out: {folder} holds files that are no run ({listing}); choose an empty or new folder"
        )


def is_clutter(name: str) -> bool:
    """Whether a file of this name says nothing about its folder: .DS_Store, Thumbs.db, .gitkeep and their like."""
    return name.lower() in _CLUTTER or name.startswith(("._", ".nfs"))


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Save the config a run was started with."""
    write_text(folder / CONFIG, to_yaml(config))


def to_yaml(config: Mapping[str, Any]) -> str:
    """A config as YAML that reads back as the same config, readable where that is possible."""
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    # PyYAML writes a few control characters (NEL, for one) plainly and reads them back as line breaks.
    return text if yaml.safe_load(text) == config else yaml.safe_dump(dict(config), sort_keys=False)


def check(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The saved config when `folder` holds this very run, None when it is free for a new one.

    Raises UserError when it holds another run (unless `overwrite`, which removes that run) or foreign files.
    """
    saved = read_config(folder)
    if saved is None:
        refuse_foreign(folder)
        return None
    if config["overwrite"]:
        remove(folder)
        return None
    different = differences(saved, config)
    if different:
        before, now = flatten(saved), flatten(config)
        shown = ", ".join(
            f"{key}={one_line(repr(before.get(key)), 50)} there and {one_line(repr(now.get(key)), 50)} here"
            for key in different[:3]
        )
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        raise UserError(
            f"out: {folder} holds another run: {shown}{more}. "
            "Choose another out=DIR, give the same settings to continue it, or overwrite=true to replace it"
        )
    return saved


def finished(folder: Path) -> bool:
    """True when the run in `folder` has its report and every file the report names."""
    names = artefact_names(folder)
    return names is not None and all((folder / name).is_file() for name in names)


def artefact_names(folder: Path) -> list[str] | None:
    """Names of the files that a finished run's report lists; None when there is no readable report."""
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        names = [str(artefact["file"]) for artefact in report["artefacts"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return [name for name in names if Path(name).name == name]


def remove(folder: Path) -> None:
    """Remove a run's own files from its folder, and nothing else that lies there."""
    for path in own_files(folder):
        if path.name == CHECKPOINTS and path.is_dir():
            shutil.rmtree(path)
        elif path.is_file() or path.is_symlink():
            path.unlink()


def own_files(folder: Path) -> list[Path]:
    """What `remove` removes: a run's own files and its folder of checkpoints, in that order.

    The record, which knows of artefacts that no report lists yet, comes late, and the config last, because it is what
    marks the folder as ours: a removal that is cut short can be repeated.
    """
    try:
        recorded = list(read_record(folder).artefacts)
    except UserError:  # damaged
        recorded = []
    names = [*(artefact_names(folder) or []), *recorded, METRICS, REPORT, PAGE, PROVENANCE, CHECKPOINTS]
    return [folder / name for name in dict.fromkeys([*names, RECORD, CONFIG])]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a run notes as it goes. inputs: SHA-256 of what it was begun with, by name. artefacts: names of the files
    that it has begun to write."""

    inputs: dict[str, str]
    artefacts: dict[str, str]


def read_record(folder: Path) -> Record:
    """The record of the run in `folder`; UserError when it is damaged."""
    path = folder / RECORD
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return Record(
            inputs={str(key): str(value) for key, value in found.get("inputs", {}).items()},
            artefacts={
                name: str(kind)
                for name, kind in found.get("artefacts", {}).items()
                if Path(name).name == name
            },
        )
    except (ValueError, AttributeError):
        raise UserError(
            f"{path}, which records what the run was begun with, is damaged; choose another out=DIR, or "
            "overwrite=true to begin again"
        ) from None


def remember(
    folder: Path, *, inputs: Mapping[str, str] | None = None, artefacts: Mapping[str, str] | None = None
) -> None:
    """Add to the record of the run in `folder`."""
    known = read_record(folder)
    record = {
        "inputs": {**known.inputs, **(inputs or {})},
        "artefacts": {**known.artefacts, **(artefacts or {})},
    }
    if record != dataclasses.asdict(known):
        write_json(folder / RECORD, record)


def forget_temporary(folder: Path) -> None:
    """Remove the half-written files that a killed process left in a run's folder, which is locked."""
    for path in folder.iterdir():
        if is_temporary(path) and path.is_file():
            path.unlink()


def forget_if_empty(folder: Path) -> None:
    """Take back a folder in which nothing was made yet, so that a corrected command can use it."""
    own = {CONFIG, LOCK, METRICS, RECORD}
    if folder.is_dir() and all(path.name in own for path in folder.iterdir()):
        for name in own:
            (folder / name).unlink(missing_ok=True)
        try:
            os.rmdir(folder)
        except OSError:
            return  # it was there before us, and something else appeared in it
