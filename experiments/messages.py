"""One line for whatever Hydra and OmegaConf have to say about a config that cannot be composed."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments import catalog, components
from experiments.errors import UnknownKey, did_you_mean, one_line

if TYPE_CHECKING:
    from omegaconf import DictConfig


def of(error: BaseException, typed: Sequence[str]) -> str | None:
    """The line for an error while composing; None for any other error.

    typed: the command line.
    """
    if isinstance(error, UnknownKey):
        return _unknown_key(error.key, error.node)
    too_large = re.search(r"\n\s*full_key: (\S+)", str(error)) if isinstance(error, OverflowError) else None
    if too_large:
        return f"{too_large[1]}: no computation can hold a number that large"
    if not type(error).__module__.startswith(("hydra", "omegaconf")):
        return None
    from omegaconf.errors import OmegaConfBaseException

    cause: Any = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return _of_composition(error)
    key, text = cause.full_key, one_line(str(cause.msg or cause).splitlines()[0])
    if "is not in struct" in str(cause) or "not in '" in str(cause):
        line = _unknown_key(str(key), cause.parent_node)
    else:
        override = re.match(r"Error merging override \+*([^=]+)=", str(error))
        if override and not override[1].startswith(key or " "):
            key = override[1]
        line = (
            _no_component(key, text)
            or _not_chosen(key, cause.parent_node)
            or _list_form(key, typed)
            or (f"{key}: {text}" if key else text)
        )
    file = re.match(r"In '([^']+)': \w+ raised while composing", str(error))
    return f"{file[1]}.yaml: {line}" if file else line


def unmatched_choice(error: BaseException) -> str | None:
    """What stood before `=` in a choice on the command line that the experiment does not have; None for all else."""
    found = re.match(r"Could not override '([^']+)'\.\s(?!To append to your config)", str(error))
    return found[1] if found and type(error).__module__.startswith("hydra") else None


def is_about_none(error: BaseException) -> bool:
    """Whether OmegaConf stumbled over a setting below one that is null; it says so by an assertion that fails."""
    return isinstance(error, AssertionError) and "Unexpected type for root" in str(error)


def empty_above(key: str, config: DictConfig) -> str | None:
    """The part of a dotted key at which a config holds null; None if there is no such part."""
    from omegaconf import OmegaConf

    parts = key.split(".")
    above = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((each for each in above if OmegaConf.select(config, each, default="") is None), None)


def no_such_choice(key: str, choices: dict[str, str]) -> str:
    """What to say of a choice that an experiment does not have, with those it has: key -> chosen name."""
    group = key.partition("@")[0]
    same = {each: name for each, name in choices.items() if each.partition("@")[0] == group}
    return f"this experiment has no {key!r} to choose; it has {_listing(same or choices)}"


def nothing_there(key: str, empty: str, choices: dict[str, str]) -> str:
    """What to say of a setting below the dotted key `empty`, for which nothing is chosen."""
    return f"unknown key {key!r}: nothing is chosen for {empty}; this experiment has {_listing(choices)}"


def _listing(choices: dict[str, str]) -> str:
    return ", ".join(f"{key}={name}" for key, name in choices.items()) or "nothing to choose"


def _unknown_key(key: str, node: DictConfig) -> str:
    """What to say of a key that `node`, a part of a config, does not have."""
    from omegaconf import OmegaConf

    from experiments.run.schema import class_of
    from experiments.run.settings import flatten

    parent, _, last = key.rpartition(".")
    cls = class_of(OmegaConf.get_type(node))
    group, name = components.group_of(cls), components.name_of(cls)
    siblings = sorted(str(each) for each in node if each not in ("hydra", last))
    if group is None:
        root: Any = OmegaConf.to_container(node._get_root(), resolve=False)
        flat = flatten({each: value for each, value in root.items() if each != "hydra"})
        known = [each for each in flat if each != key and not any(f.startswith(f"{each}.") for f in flat)]
        if cls is dict and parent:
            known = [f"{parent}.{each}" for each in siblings]
        listing = f" Keys{' of ' + parent if parent else ''}: {', '.join(siblings)}" if siblings else ""
        renamed: dict[str, str] = getattr(cls, "RENAMED", {})
        if key in renamed:
            return f"unknown key {key!r}: write {renamed[key]}"
        others = [] if parent else _experiments_with(key, str(root.get("task")))
        if others:
            return f"unknown key {key!r}: it belongs to {', '.join(others)}.{listing}"
        return f"unknown key {key!r}.{did_you_mean(key, known)}{listing}"
    if name is None:
        above, _, own = parent.rpartition(".")
        row: Any = node._get_parent()
        others = ", ".join(f"{above}.{each}" for each in row if above and each != own)
        return f"unknown key {key!r}: there is no {group} {parent}" + (f", only {others}" if others else "")
    settings = [each for each in siblings if each != "name"]
    line = f"unknown key {key!r}: {group} {name} has {', '.join(settings) or 'no settings'}."
    others = [
        other
        for other, schema in components.schemas(group).items()
        if last in {field.name for field in dataclasses.fields(components.classes(group)[schema])}
    ]
    if others:
        chosen = " or ".join(f"{components.choice_key(group, parent)}={other}" for other in others[:3])
        return f"{line} {last} belongs to {chosen}"
    near = did_you_mean(last, settings)
    return f"{line}{near}"


def _experiments_with(key: str, task: str) -> list[str]:
    """The shipped experiments that have a setting of that name, of the family that those of `task` belong to."""
    from experiments import tasks

    known = {name: catalog.task_of(name) for name in catalog.experiments()}
    families = {name.partition("/")[0] for name, each in known.items() if each == task}
    return [
        f"experiment={name}"
        for name, each in known.items()
        if name.partition("/")[0] in families
        and key in {field.name for field in dataclasses.fields(tasks.config(each))}
    ]


def _not_chosen(key: str | None, parent: DictConfig | None) -> str | None:
    """What to say of a setting of the component at the dotted key `key`, none being chosen; None for all others."""
    from omegaconf import OmegaConf

    from experiments.run.schema import class_of

    cls, name = class_of(OmegaConf.get_type(parent)), str(key).rpartition(".")[2]
    annotation = typing.get_type_hints(cls).get(name) if dataclasses.is_dataclass(cls) else None
    if annotation is None or not components.is_choice(annotation) or not OmegaConf.is_missing(parent, name):
        return None
    return f"{key} is missing; {components.how_to_choose(annotation, str(key))}"


def _no_component(key: str | None, text: str) -> str | None:
    """What to say of a value where a component must stand; None for all others."""
    found = re.match(r"Invalid type assigned: \w+ is not a subclass of (\w+)", text)
    group = next(
        (group for group, base in components.GROUPS.items() if found and base.endswith(f":{found[1]}")), None
    )
    return group and f"{key}: a {group} stands there, chosen by name: {', '.join(components.names(group))}"


def _list_form(key: str | None, typed: Sequence[str]) -> str | None:
    """What to say of a setting that must be a list and is not, or of one of its values; None for all others."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from experiments.run.schema import class_of, list_form

    name = (key or "").partition("[")[0]
    nodes = ConfigStore.instance().repo.get("task", {}).values()
    forms = (list_form(class_of(OmegaConf.get_type(node.node)), name) for node in nodes)
    form = next((form for form in forms if form), None)
    if form is None:
        return None
    given = next((each.partition("=")[2] for each in typed if each.lstrip("+").startswith(f"{name}=")), None)
    return f"{name} must be {form}" + (f", got {given!r}" if given is not None else "")


def _of_composition(error: BaseException) -> str:
    """One line for a config or an override that Hydra could not make sense of."""
    text = str(error).partition("Config search path")[0]
    missing = re.search(
        r"Could not find '([\w/]+)/([^'/]*)'\s+Available options in '[^']*':\s(.*)", text, re.DOTALL
    )
    if missing:
        group, name, known = missing[1], missing[2], missing[3].split()
        return f"unknown {group} {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}"
    override = getattr(error, "override", None)
    if override:
        reason = text.splitlines()[0]
        key, _, value = str(override).partition("=")
        hint = f"; text inside a list needs quotes: {key}=\"['...']\"" if value.startswith("[") else ""
        return f"{override!r} cannot be read as a setting: {one_line(reason)}{hint}"
    return one_line(text)
