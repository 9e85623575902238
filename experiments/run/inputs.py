"""Files and folders outside a run that its settings name: told by their content, and kept from being overwritten.

A file keeps its name when it is exchanged, and a run that went on with another recording would mix the two.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.errors import UserError
from experiments.run import folder as folders
from experiments.run.files import sha256_of_file
from experiments.run.settings import FILE, FOLDER, Settings
from experiments.run.spool import spooled

WRITTEN = frozenset({"out", "model", "data_folder"})
"""Settings whose folder is written too; what is in it is not what the run was begun with."""
_INDEX = "model_index.json"


def named_paths(config: Any, prefix: str = "") -> dict[str, str]:
    """Dotted key -> value of every setting of a built config that is the path of a file or folder, by its type."""
    found: dict[str, str] = {}
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            found |= named_paths(value, f"{key}.")
        elif isinstance(value, dict):
            for name, each in value.items():
                found |= named_paths(each, f"{key}.{name}.") if dataclasses.is_dataclass(each) else {}
        elif _is_path(hints[field.name]):
            several: Iterable[str] = value if isinstance(value, (list, tuple)) else [value]
            found |= {key if each is value else f"{key}[{i}]": each for i, each in enumerate(several) if each}
    return found


def without_places(value: Any, config: Settings) -> Any:
    """`value` (of dicts, lists and scalars) with the last part of each absolute path in the settings for the whole.

    Where files lie on a machine is private, and says nothing about a result.
    """
    paths = sorted(filter(os.path.isabs, named_paths(config).values()), key=len, reverse=True)

    def hide(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: hide(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [hide(item) for item in value]
        if isinstance(value, str):
            for path in paths:
                value = value.replace(path, os.path.basename(path.rstrip("/")))
        return value

    return hide(value)


def _is_path(annotation: Any) -> bool:
    marks = getattr(annotation, "__metadata__", ())
    return FILE in marks or FOLDER in marks or any(map(_is_path, typing.get_args(annotation)))


def input_paths(module: ModuleType, config: Settings) -> dict[str, Path]:
    """What the task reads: the paths in its settings that are there, and what it finds by itself.

    A name of the registry stands for the folder that it has on this machine, if it has one.
    """
    named = {key: place_of(value) for key, value in named_paths(config).items() if key not in WRITTEN}
    named |= module.inputs(config) if hasattr(module, "inputs") else {}
    # Weights may be trained on where they are.
    own = {path.resolve() for path in written_paths(config).values()}
    return {
        key: path
        for key, path in named.items()
        if path is not None and path.exists() and path.resolve() not in own
    }


def written_paths(config: Settings) -> dict[str, Path]:
    """The folders beside the run's own that the task writes to."""
    named = named_paths(config)
    return {key: Path(named[key]).expanduser() for key in WRITTEN - {"out"} if key in named}


def place_of(value: str) -> Path | None:
    """The file or folder that a setting names; for a name of the registry the folder packaged with it, if any."""
    from diffusion import registry

    path = spooled(value)
    return registry.find(value).folder if value in registry.names() and not path.is_file() else path


def contents(path: Path) -> list[Path]:
    """The regular files that are read through a path: itself, or those in a folder.

    Of a backbone's folder those that loading it reads: adapters that were trained onto it lie there too.
    """
    if not path.is_dir():
        return [path] if path.is_file() else []
    if (path / _INDEX).is_file():
        from diffusion.backbone_folder import files_of

        return files_of(path)
    return sorted(
        each
        for each in path.rglob("*")
        if each.is_file() and not any(map(folders.is_clutter, each.relative_to(path).parts))
    )


def digests(inputs: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of what each input holds; of a folder, of its files' names and contents."""
    return {key: _digest(path, contents(path)) for key, path in inputs.items()}


def _digest(path: Path, files: list[Path]) -> str:
    if files == [path]:
        return sha256_of_file(path)
    lines = [f"{sha256_of_file(file)} {file.relative_to(path).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def refuse_changed(folder: Path, found: Mapping[str, str], inputs: Mapping[str, Path]) -> None:
    """UserError when the run in `folder` was begun with other inputs; it need not know of all."""
    known = folders.read_record(folder).inputs
    for key, digest in found.items():
        if known.get(key, digest) != digest:
            path = inputs[key]
            is_weights = path.suffix == ".safetensors" or (path / _INDEX).is_file()
            raise UserError(changed(f"{key} ({path.name})", folder, "weights" if is_weights else "content"))


def changed(what: str, folder: Path, holds: str = "weights") -> str:
    """What to say about an input that is not what it was."""
    return (
        f"{what} has other {holds} than when {folder} was begun; choose another out=DIR, or "
        "overwrite=true to begin again"
    )


def refuse_own(folder: Path, inputs: Mapping[str, Path], written: Mapping[str, Path]) -> None:
    """UserError when overwriting the run in `folder` would remove one of the new run's `inputs`, or a folder that it
    writes to."""
    removed = {_real(path) for path in folders.own_files(folder)}
    named = {key: [path, *contents(path)] for key, path in inputs.items()}
    named |= {key: [path] for key, path in written.items()}
    for key, files in named.items():
        for file in files:
            if not removed.isdisjoint(_places(file)):
                raise UserError(
                    f"{key}: {file} belongs to the run in {folder}, which overwrite=true removes; choose another "
                    "out=DIR, or copy it out of there first"
                )


def _places(path: Path, links: int = 40) -> Iterator[Path]:
    """Every place on the way to a file: its own, its folders', and where those of them that are links lead to."""
    path = Path.cwd() / path
    for place in (path, *path.parents):
        if place.name != "..":
            yield _real(place)
        if links and place.is_symlink():
            yield from _places(place.parent / os.readlink(place), links - 1)


def _real(path: Path) -> Path:
    """An absolute path without links on the way, but not followed if it is a link itself."""
    return path.parent.resolve() / path.name
