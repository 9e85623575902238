"""`Settings`: the keys every task has. A task's own `Config` is a subclass that adds its fields."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from diffusion.limits import check_least

# Keys that say where and how to run, not what comes out. Only the others make a run's identity.
# `budget` and `experiment` are labels: the values they set are all in the config and count there.
NOT_IDENTITY = frozenset({"budget", "checkpoint_every", "experiment", "out", "overwrite", "threads"})

# What the text in a field of a Config is. The command line takes all of these as typed (`schema.literal_keys` collects
# them), and `schema.build` puts the home folder for a leading `~` of a path. A library, which imports nothing from
# here, writes `Annotated[str, "text"]` itself. A plain `str` is left to Hydra's grammar: names of configs, numbers.
TEXT, FILE, FOLDER = "text", "file", "folder"
Text = Annotated[str, TEXT]
FilePath = Annotated[str, FILE]
FolderPath = Annotated[str, FOLDER]
BackboneName = Annotated[str, FOLDER]  # a registered name, or a folder: no name begins with "~"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Common settings of all tasks.

    task: name in `experiments.tasks.TASKS`; set by the experiment's YAML.
    seed: every random draw of the run derives from it.
    device: "cpu", "cuda" or "cuda:N".
    budget: name of a file of `configs/budget/` and of `configs/budget/<task>/`; how much work.
    threads: torch's CPU threads; None takes what the process may use. A resumed run keeps the number it began
        with, because sums in another order are other bits.
    out: run folder; None takes `outputs/<task>/<date>-<hash>`.
    overwrite: start again in a folder that already holds a run.
    checkpoint_every: steps between checkpoints.
    """

    task: str
    experiment: str = ""
    budget: str = "cpu"
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    out: FolderPath | None = None
    overwrite: bool = False
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; it must be in 0 ... 2**63 - 1")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads}; it must be at least 1, or null for all there are")
        check_least(self, 1, "checkpoint_every")
        if not re.fullmatch(r"cpu|cuda(:(0|[1-9][0-9]{0,2}))?", self.device):
            raise ValueError(f"device is {self.device!r}; it must be cpu, cuda or cuda:N, such as cuda:0")


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config (as plain containers) that decides the result."""
    return {key: value for key, value in config.items() if key not in NOT_IDENTITY}


def identity_hash(config: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits that two configs share exactly when they ask for the same result."""
    counted = identity(config)
    ordered = dict(_orders(counted))
    text = json.dumps(
        [counted, ordered] if ordered else counted, sort_keys=True, ensure_ascii=True, default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as {'a.b': value}; lists stay values. The order of named components in a row is a value too."""
    flat: dict[str, Any] = {} if prefix else dict(_orders(config))
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _orders(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """The dotted key of every mapping of two or more components, such as a recipe's stages, and their order in it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            if len(value) > 1 and all(
                isinstance(each, Mapping) and "name" in each for each in value.values()
            ):
                yield f"{prefix}{key}", list(value)
            yield from _orders(value, f"{prefix}{key}.")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted names of the result-changing keys on which two configs differ."""
    before, after = flatten(identity(old)), flatten(identity(new))
    absent = object()
    return sorted(
        key for key in before.keys() | after.keys() if before.get(key, absent) != after.get(key, absent)
    )
