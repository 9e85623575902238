"""Components: what an experiment chooses by name, such as a loss or a representation, and the classes behind the names.

A component is a frozen, keyword-only dataclass that derives from the base of its group and begins with its name:

    @dataclass(frozen=True, kw_only=True)
    class Mine(Loss):
        name: Literal["mine"] = "mine"
        scale: float = 1.0

A name of a group is a YAML file, `configs/<group>/<name>.yaml`, shipped or the user's own (`--config-dir`). Its first
line is a comment that `--help` shows, its defaults list names the class, and it holds the values that are not the
class's defaults; several files may name one class:

    # One line for --help.
    defaults: [schema/mine@_here_]
    scale: 2.0

The class lies in `config.py` of the group's package, which holds many and imports no torch, or in a file of its own,
`<package>/<class's name>.py`. In the user's tree that file lies beside the YAML, `DIR/<group>/<class's name>.py`: it is
code, and run, because the user has named the folder; what a YAML file can say is no more than a name in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments import catalog
from experiments.errors import UserError, did_you_mean, one_line

# Group -> the class that its components derive from. The package that holds the components is that class's.
GROUPS: dict[str, str] = {
    "representation": "gen3d.representations.base:RepresentationConfig",
    "prior": "gen3d.priors.base:PriorConfig",
    "distillation": "gen3d.distillation.base:Loss",
    "reward": "gen3d.rewards.base:Reward",
    "cameras": "gen3d.camera_sampling.base:CameraSampler",
    "stage": "gen3d.stages.base:StageConfig",
    "lesson": "avatar.lessons.base:Lesson",
}
# Further packages of a group, for components that need what the package of the base must not know.
FURTHER: dict[str, tuple[str, ...]] = {"prior": ("experiments.priors",)}
RECIPE = "recipe"
"""The group of recipes: a recipe has no class of its own, its YAML names the stages."""

_SCHEMA = re.compile(r"schema/([A-Za-z_]\w*)@_here_")
_own: ContextVar[str | None] = ContextVar("_own", default=None)


def own() -> str | None:
    """The user's own tree of configs, where `search` was told of one."""
    return _own.get()


def groups() -> list[str]:
    """The groups that have names to choose from."""
    return [group for group in (RECIPE, *GROUPS) if catalog.options(group, own())]


def names(group: str) -> dict[str, str]:
    """Name -> the line that describes it, of all that can be chosen in a group."""
    return {name: catalog.description(path) for name, path in _files(group).items()}


def schemas(group: str) -> dict[str, str]:
    """Name -> name of the component's class, of all that can be chosen in a group.

    Raises:
        UserError: one of the files names no class.
    """
    files = _files(group)
    return {name: _schema(name, files) for name in files}


@cache
def classes(group: str) -> dict[str, type]:
    """Name -> class, of all components that the files of a group name.

    Raises:
        UserError: there is no such class, it cannot be imported, or it has the name of another.
    """
    chosen = schemas(group)
    return {schema: _find(group, schema, name) for name, schema in reversed(chosen.items())}


def group_of(cls: Any) -> str | None:
    """The group of a component's class, or of a base; None for any other type."""
    above = {f"{each.__module__}:{each.__qualname__}" for each in getattr(cls, "__mro__", ())}
    return next((group for group, base in GROUPS.items() if base in above), None)


def name_of(cls: Any) -> str | None:
    """The name of a component's class; None for a base and for any other type."""
    if group_of(cls) is None or not dataclasses.is_dataclass(cls):
        return None
    field = next((field for field in dataclasses.fields(cls) if field.name == "name"), None)
    return field.default if field is not None and isinstance(field.default, str) else None


def is_choice(annotation: Any) -> bool:
    """Whether a field of that type holds a component that is chosen: the type is a base of components."""
    return group_of(annotation) is not None and name_of(annotation) is None


def alternatives(annotation: type) -> list[type]:
    """The dataclasses that may stand in a field of that dataclass's type."""
    group = group_of(annotation)
    if group is None or not is_choice(annotation):
        return [annotation]
    return [each for each in classes(group).values() if issubclass(each, annotation)]


def choice_key(group: str, place: str) -> str:
    """What stands before `=` to choose the component at the dotted key `place`: `distillation`, `stage@recipe.mesh`."""
    return group if place == group else f"{group}@{place}"


def how_to_choose(annotation: Any, place: str) -> str:
    """How the component at the dotted key `place` is chosen, with the names there are."""
    group = group_of(annotation)
    assert group is not None
    return f"choose one with {choice_key(group, place)}=NAME: {', '.join(names(group)) or 'there is none'}"


def offered(choices: Mapping[str, Any]) -> dict[str, str]:
    """Of Hydra's choices, those that a user is offered: what stands before `=` -> the chosen name, ??? for none yet."""
    known = (RECIPE, *GROUPS, "backbone", "budget")
    found = [
        (key, "???" if name is None else str(name))
        for key, name in choices.items()
        if key.partition("@")[0] in known
    ]
    found.reverse()  # of one group, Hydra lists them backwards
    return dict(sorted(found, key=lambda item: known.index(item[0].partition("@")[0])))


def unknown_name(group: str, name: str) -> UserError | None:
    """What to say of a name that a group does not have; None for one that it has."""
    known = names(group)
    if name in known:
        return None
    return UserError(f"unknown {group} {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}")


@contextlib.contextmanager
def search(config_dir: str | None) -> Iterator[None]:
    """Within it, groups have the names in the user's own tree too, and Python files beside them are found."""
    packages: list[tuple[ModuleType, str]] = []
    for group in GROUPS if config_dir else ():
        folder = Path(str(config_dir), group).absolute()
        if any(folder.glob("*.py")):
            # At the end: no file of the user's takes the place of one of ours.
            packages.append((importlib.import_module(_package(group)), str(folder)))
    before = _own.set(config_dir and str(Path(config_dir).absolute()))
    for package, folder in packages:
        package.__path__.append(folder)
    classes.cache_clear()
    importlib.invalidate_caches()
    try:
        yield
    finally:
        _own.reset(before)
        for package, folder in packages:
            package.__path__.remove(folder)
            _forget(package.__name__, Path(folder))
        classes.cache_clear()


def _forget(package: str, folder: Path) -> None:
    """Unload the modules of a package that lie in `folder`; another tree may have others of the same name."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}.") and Path(getattr(module, "__file__", None) or "").parent == folder:
            del sys.modules[name]
            vars(sys.modules[package]).pop(name.rpartition(".")[2], None)


def _files(group: str) -> dict[str, Path]:
    return {
        path.stem: path for root in catalog.roots(own()) for path in sorted((root / group).glob("*.yaml"))
    }


def _package(group: str) -> str:
    return GROUPS[group].partition(":")[0].rpartition(".")[0]


def _schema(name: str, files: dict[str, Path], depth: int = 0) -> str:
    """The class that a file names in its defaults list, by itself or by the name of another file of the group."""
    for entry in catalog.defaults(files[name], "schema/NAME@_here_"):
        found = _SCHEMA.fullmatch(entry) if isinstance(entry, str) else None
        if found:
            return found[1]
        other = str(entry).removesuffix("@_here_")
        if other in files and depth < 8:
            return _schema(other, files, depth + 1)
    raise UserError(
        f"{files[name]} names no component: its defaults list must hold 'schema/NAME@_here_', and NAME is what the "
        "component's class has for its name"
    )


def _find(group: str, schema: str, chosen_by: str) -> type:
    """The class of that name, looked for because the file `chosen_by` of the group names it."""
    base_module, _, base_name = GROUPS[group].partition(":")
    base = getattr(importlib.import_module(base_module), base_name)
    package = _package(group)
    tree = own()
    beside = Path(tree, group, f"{schema}.py") if tree else None
    further = (f"{each}.config" for each in FURTHER.get(group, ()))
    for place in (f"{package}.config", f"{package}.{schema}", *further):
        module = _import(place) if importlib.util.find_spec(place) else None
        found = next((each for each in vars(module or object).values() if _is_it(each, base, schema)), None)
        ours = (
            beside is None or not beside.is_file() or module is None or Path(module.__file__ or "") == beside
        )
        if not ours and (found or place.endswith(f".{schema}")):
            raise UserError(
                f"{beside} has a name that is taken: {place}; give the file and its class another"
            )
        if found:
            return found
    shipped = f"{package.replace('.', '/')}/{schema}.py"
    raise UserError(
        f"{_files(group)[chosen_by]} names the component {schema!r}, but {beside or shipped} holds no frozen dataclass "
        f"that derives from {base_name} and begins with name: Literal[{schema!r}] = {schema!r}"
    )


def _is_it(found: Any, base: type, schema: str) -> bool:
    return isinstance(found, type) and issubclass(found, base) and name_of(found) == schema


def _import(module: str) -> ModuleType:
    """A module of a group's package; UserError for a file of the user's that cannot be imported."""
    try:
        return importlib.import_module(module)
    except Exception as error:
        found = importlib.util.find_spec(module)
        origin = Path(found.origin) if found is not None and found.origin else None
        if origin is None or Path(own() or "/nowhere") not in origin.parents:
            raise
        raise UserError(
            f"{origin} cannot be imported: {type(error).__name__}: {one_line(error, 200)}"
        ) from error
