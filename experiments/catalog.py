"""The experiments there are: the YAML files under `experiment/` of the config tree, and their first line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

import configs
from diffusion import registry
from experiments.errors import UserError, did_you_mean, one_line

CONFIG_ROOT = Path(configs.__file__).parent


def roots(config_dir: str | None = None) -> list[Path]:
    """Config trees to look in: the user's own (`--config-dir`) first."""
    own = [Path(config_dir)] if config_dir else []
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


def refuse_hidden(config_dir: str | None) -> None:
    """UserError for a config of the user's with the name of a shipped one: Hydra would take that and not theirs."""
    for path in sorted(Path(config_dir).rglob("*.yaml")) if config_dir else []:
        name = path.relative_to(str(config_dir))
        if (CONFIG_ROOT / name).is_file() and not (CONFIG_ROOT / name).samefile(path):
            raise UserError(
                f"{path}: {name.with_suffix('')} is shipped, and is what would be taken; rename yours"
            )


def backbones(config_dir: str | None = None) -> list[str]:
    """Names that `backbone=` takes: the registered ones, and the user's own configs."""
    return sorted({*registry.names(), *options("backbone", config_dir)})


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
    task = _choice(name, "task", known)
    if task is None:
        raise UserError(f"{known[name]} names no task; its defaults list must hold a line '- /task: NAME'")
    return task


def chooses(name: str, group: str, config_dir: str | None = None) -> bool:
    """Whether an experiment, or one it builds on, chooses a config of `group`, such as "hydra/launcher"."""
    return _choice(name, group, experiments(config_dir)) is not None


def budgets(name: str, chosen: Mapping[str, str] | None = None, config_dir: str | None = None) -> list[str]:
    """Names that `budget=` takes for an experiment: those that a file of its groups `budget/...` says something about.

    chosen: what was chosen in other groups, for experiments whose budgets go by that (`${recipe}_${budget}`).
    """
    entries = list(_choices(name, experiments(config_dir)))
    choices = {**dict(reversed(entries)), **(chosen or {})}
    found: set[str] = set()
    for group, pattern in entries:
        if group.startswith("budget/"):
            pattern = re.sub(r"\$\{(?!budget\})(\w+)\}", lambda one: choices.get(one[1], ""), pattern)
            before, _, after = pattern.partition("${budget}")
            files = (each for each in options(group, config_dir) if each.startswith(before))
            found |= {each[len(before) :].removesuffix(after) for each in files if each.endswith(after)}
    return sorted(found) or options("budget", config_dir)


def refuse_budgets(
    name: str, wanted: Iterable[str], chosen: Mapping[str, str] | None = None, config_dir: str | None = None
) -> None:
    """UserError for a budget that an experiment does not have."""
    known = budgets(name, chosen, config_dir)
    for each in wanted:
        if each not in known:
            raise UserError(
                f"{name} has no budget {each!r}.{did_you_mean(each, known)} There are: {', '.join(known)}"
            )


def _choice(name: str, group: str, known: dict[str, Path]) -> str | None:
    return next((value for key, value in _choices(name, known) if key == group), None)


def _choices(name: str, known: dict[str, Path], depth: int = 0) -> Iterator[tuple[str, str]]:
    """Group and name of all that the defaults list of an experiment, or of one it builds on, chooses; of two choices in
    one group, the one that counts comes first."""
    if name not in known or depth > 8:
        return
    for entry in sorted(defaults(known[name]), key=lambda entry: "override " not in str(entry)):
        if isinstance(entry, dict):
            for key, value in entry.items():
                group = str(key).removeprefix("optional ").removeprefix("override ")
                yield group.strip("/ ").partition("@")[0], str(value)
        elif isinstance(entry, str):
            # Another experiment this one builds on: '/experiment/family/name', or 'family/name' for short.
            yield from _choices(entry.removeprefix("/experiment/"), known, depth + 1)


def defaults(path: Path, needs: str = "/task: NAME") -> list[Any]:
    """The defaults list of a config, which must have the entry `needs`."""
    content = read_yaml(path) or {}
    entries = content.get("defaults", []) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(
            f"{path} is no config: it must hold lines of KEY: VALUE and, as 'defaults', a list that has '- {needs}'"
        )
    return entries


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; UserError with file and line for one that is no YAML or no UTF-8."""
    data = path.read_bytes()
    try:
        return yaml.safe_load(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is no UTF-8; save the file as UTF-8"
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}{_where(error)}") from None


def _where(error: yaml.YAMLError) -> str:
    """The line of a mistake in YAML, and what it is."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return f": {one_line(error, 200)}"
    tab = "; a tab stands where only spaces may" if "\\t" in problem else ""
    return f", line {mark.line + 1}: {one_line(problem, 200)}{tab}"


def refuse_unreadable(config_dir: str | None, error: yaml.YAMLError | UnicodeDecodeError) -> None:
    """UserError that names the one of the user's configs, and the line in it, that Hydra stumbled over with `error`."""
    for path in sorted(Path(config_dir).rglob("*.yaml")) if config_dir else []:
        if isinstance(error, UnicodeDecodeError):
            meant = error.object in path.read_bytes()
        else:
            mark = getattr(error, "problem_mark", None)
            meant = mark is not None and Path(mark.name) == path.absolute()
        if meant:
            read_yaml(path)
