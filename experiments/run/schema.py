"""From a component's frozen `Config` dataclass to a Hydra schema, and from a composed config back to it.

Why not register the dataclasses as they are: OmegaConf makes frozen ones read-only before any override is
applied, and knows neither `Literal` nor classes of its own. So the schema is a mutable twin that remembers its
class; Hydra merges YAML and overrides into the twin with its type checks, and `build` turns the result into the
real thing, so that each component's own `__post_init__` has the last word. Two rules hold for every field alike and
stand here alone: a number must be one that float32 (or a 64-bit integer) can hold, and `~` in a path is the home
folder.

A field whose type is the base of a group (`experiments.components`) is empty in the schema until a component is chosen.
Twins inherit from each other as their classes do, so that OmegaConf takes the twin of any component there, and then no
key but that component's.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import components
from experiments.errors import UnknownKey
from experiments.run.files import expand_home
from experiments.run.settings import FILE, FOLDER, TEXT

T = TypeVar("T")

_PLAIN = (int, float, bool, str)
_CLASS = "__config_class__"
_UNIONS = (Union, types.UnionType)
_LARGEST = 3.4028234e38  # of float32, in which everything is computed
_MANY = {int: "whole numbers", float: "numbers", str: "texts", bool: "values true or false"}


def fields_of(cls: type, prefix: str = "", above: tuple[type, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every field that can be set of a `Config` and of the components in it: dotted key, and type with its marks.

    Where a component is chosen these are the fields of all that can be. `*` stands for any key of a dict.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        if field.init:
            key, annotation = f"{prefix}{field.name}", hints[field.name]
            yield key, annotation
            for place, part in _inner(annotation, key):
                for each in components.alternatives(part):
                    if each not in above:  # a component may hold another of its kind
                        yield from fields_of(each, f"{place}.", (*above, each))


def _inner(annotation: Any, key: str) -> Iterator[tuple[str, type]]:
    """The dataclasses that a value of that type is or holds, and the dotted key of each."""
    if dataclasses.is_dataclass(annotation):
        yield key, typing.cast(type, annotation)
    for part in get_args(annotation):
        yield from _inner(part, f"{key}.*" if get_origin(annotation) is dict else key)


def groups_in(cls: type) -> list[str]:
    """The groups that a `Config`, and the components in it, choose from."""
    found = {
        components.group_of(part): None
        for key, annotation in fields_of(cls)
        for _, part in _inner(annotation, key)
        if components.is_choice(part)
    }
    return [group for group in found if group]


def rows_in(cls: type) -> dict[str, str]:
    """The fields of a `Config` that are rows of named components, such as a recipe's stages: name -> their group."""
    found = {}
    for name, annotation in typing.get_type_hints(cls).items():
        if get_origin(annotation) is dict and components.is_choice(get_args(annotation)[1]):
            found[name] = str(components.group_of(get_args(annotation)[1]))
    return found


def literal_keys(cls: type) -> dict[str, bool]:
    """The dotted keys of a `Config` that hold text or paths, and whether a key holds a list of them.

    `*` in a key stands for any one part of it.
    """
    found: dict[str, bool] = {}
    for key, annotation in fields_of(cls):
        for part in get_args(annotation) if get_origin(annotation) in _UNIONS else (annotation,):
            listed = get_origin(part) in (tuple, list)
            if any(_mark(item) for item in (get_args(part) if listed else (part,))):
                found[key] = listed
    return found


def _mark(annotation: Any) -> str | None:
    """What `experiments.run.settings` says that a text is; None for anything that is not marked."""
    if get_origin(annotation) is not Annotated:
        return None
    return next((mark for mark in get_args(annotation)[1:] if mark in (TEXT, FILE, FOLDER)), None)


def _twin_type(annotation: Any) -> Any:
    """The annotation OmegaConf is given for `annotation`; Any where it has no way to say it."""
    if annotation in _PLAIN:
        return annotation
    if annotation is Path:
        return str
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        kinds = {type(value) for value in arguments}
        return kinds.pop() if len(kinds) == 1 else Any
    if origin in _UNIONS:
        others = [_twin_type(argument) for argument in arguments if argument is not type(None)]
        if len(others) != 1 or others[0] is Any:
            return Any
        return others[0] | None if len(others) < len(arguments) else others[0]
    if origin in (list, tuple, dict) and arguments:
        inner = tuple(a if a is Ellipsis else _twin_type(a) for a in arguments)
        if any(item is Any for item in inner):
            return Any
        return origin[inner]  # pyright: ignore[reportInvalidTypeArguments]
    if dataclasses.is_dataclass(annotation):
        return twin(typing.cast(type, annotation))
    return Any


def _twin_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _twin_value(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return twin(type(value))(**fields)
    if isinstance(value, (list, tuple)):
        return [_twin_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _twin_value(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


@cache
def twin(cls: type) -> type:
    """A mutable dataclass with the fields and defaults of `cls`, in types OmegaConf understands."""
    hints = typing.get_type_hints(cls)
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        default = None if field.default is None else MISSING
        if not _is_choice(hints[field.name]):
            default = _default(field)
        # OmegaConf deep-copies what a factory gives it, so one shared default is enough.
        factory = dataclasses.field(default_factory=lambda value=default: value)
        fields.append((field.name, _twin_type(hints[field.name]), factory))
    bases = tuple(twin(each) for each in cls.__bases__ if dataclasses.is_dataclass(each))
    made = dataclasses.make_dataclass(f"{cls.__qualname__}", fields, bases=bases, kw_only=True)
    setattr(made, _CLASS, cls)
    return made


def _is_choice(annotation: Any) -> bool:
    """Whether a component is chosen for a field of that type, or may be."""
    parts = get_args(annotation) if get_origin(annotation) in _UNIONS else (annotation,)
    return any(map(components.is_choice, parts))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return _twin_value(field.default_factory())
    return MISSING if field.default is dataclasses.MISSING else _twin_value(field.default)


def _restore(value: Any, annotation: Any, name: str) -> Any:
    """`value` (plain) as `annotation` asks: tuples for lists, Path for strings, Literal checked, `~` expanded.

    "null" is None where text is optional."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        path = isinstance(value, str) and _mark(annotation) in (FILE, FOLDER)
        return _restore(expand_home(value, name) if path else value, arguments[0], name)
    if origin in _UNIONS:
        # Text is taken as typed, but where there need be none "null" says so; a file of that name is "./null".
        if value is None or (value == "null" and any(map(_mark, arguments))):
            return None
        others = [argument for argument in arguments if argument is not type(None)]
        if len(others) > 1:  # of a number or several, say
            others = [each for each in others if (get_origin(each) is tuple) == isinstance(value, list)]
        return _restore(value, others[0], name) if len(others) == 1 else value
    if origin is Literal and value not in arguments:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(str, arguments))}")
    if origin is tuple and isinstance(value, list):
        of_one_kind = Ellipsis in arguments
        if not of_one_kind and len(arguments) != len(value):
            raise ValueError(f"{name} has {len(value)} values; it must have {len(arguments)}")
        kinds = [arguments[0]] * len(value) if of_one_kind else arguments
        return tuple(_restore(*item, name) for item in zip(value, kinds, strict=True))
    if origin is dict and isinstance(value, dict):
        return {key: _restore(item, arguments[1], _full(name, key)) for key, item in value.items()}
    if origin is list and isinstance(value, list):
        return [_restore(item, arguments[0], name) for item in value]
    if annotation is float and type(value) is int:
        return float(value)
    return Path(expand_home(value, name)) if annotation is Path and isinstance(value, str) else value


def _plain(node: Any, name: str) -> Any:
    if isinstance(node, DictConfig):
        if node._is_none():
            return None
        kind = OmegaConf.get_type(node)
        if kind is not None and hasattr(kind, _CLASS):
            return _build(getattr(kind, _CLASS), node, name)
        return {str(key): _child(node, key, name) for key in node}
    if isinstance(node, ListConfig):
        return None if node._is_none() else [_child(node, index, name) for index in range(len(node))]
    if isinstance(node, (int, float)):
        _check_number(node, name)
    return node


def _check_number(value: float, name: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}; it must be a finite number")
    if abs(value) > (_LARGEST if isinstance(value, float) else 2**63 - 1):
        raise ValueError(f"{name} is {value}; no computation can hold a number that large")


def _full(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _child(node: DictConfig | ListConfig, key: Any, name: str) -> Any:
    full = _full(name, key)
    if OmegaConf.is_missing(node, key):
        raise ValueError(f"{full} is missing; give it as {full}=...")
    try:
        value = node[key]
    except OmegaConfBaseException as error:
        raise ValueError(f"{full}: {str(error).splitlines()[0]}") from None
    return _plain(value, full)


def _build(cls: type[T], node: DictConfig, name: str) -> T:
    if components.is_choice(cls):
        raise ValueError(f"{name} is no component; {components.how_to_choose(cls, name)}")
    hints = typing.get_type_hints(cls, include_extras=True)
    known = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    for key in node:  # `+key=value` on the command line puts in what the schema has not
        if key not in known:
            raise UnknownKey(_full(name, key), node)
    _check_choices(cls, node, name, hints)
    values = {key: _restore(_child(node, key, name), hints[key], _full(name, key)) for key in known}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}" if name else str(error)) from None


def _check_choices(cls: type, node: DictConfig, name: str, hints: dict[str, Any]) -> None:
    """Every component in `node` is chosen, and what it is itself was not changed by its name."""
    for key, annotation in hints.items():
        if components.is_choice(annotation) and OmegaConf.is_missing(node, key):
            full = _full(name, key)
            raise ValueError(f"{full} is missing; {components.how_to_choose(annotation, full)}")
    own = components.name_of(cls)
    if own is not None and node["name"] != own:
        how = components.how_to_choose(cls, name)
        raise ValueError(f"{name}.name is {node['name']!r}, and the component is {own!r}; {how}")


def build(cls: type[T], config: DictConfig) -> T:
    """The `cls` that a composed config describes, nested components included.

    Raises ValueError with the full dotted key for a missing value, one of the wrong type, an unknown key (UnknownKey),
    a number that is not finite, a home folder that is not there, a component that is not chosen, or a value that the
    component itself refuses.
    """
    return _build(cls, typed(cls, config) if OmegaConf.get_type(config) is dict else config, "")


def typed(cls: type, config: DictConfig) -> DictConfig:
    """A config without a schema, as one read from a file, put into that of `cls`; the `name` in a component says which
    it is."""
    named = _named(cls, OmegaConf.to_container(config), "")
    return typing.cast(DictConfig, OmegaConf.merge(OmegaConf.structured(twin(cls)), named))


def _named(annotation: Any, value: Any, name: str) -> Any:
    """`value` (plain) with the twin of the named component in place of each mapping that stands for one."""
    if not isinstance(value, dict):
        return value
    if get_origin(annotation) is dict:
        return {key: _named(get_args(annotation)[1], item, _full(name, key)) for key, item in value.items()}
    cls = next((part for _, part in _inner(annotation, name)), None)
    if cls is None:
        return value
    chosen = components.is_choice(cls)
    if chosen:
        known = {components.name_of(each): each for each in components.alternatives(cls)}
        if value.get("name") not in known:
            listing = ", ".join(map(str, known))
            raise ValueError(f"{name}.name is {value.get('name')!r}; it must be one of {listing}")
        cls = known[value["name"]]
    hints = typing.get_type_hints(cls)
    inner = {key: _named(hints.get(key), item, _full(name, key)) for key, item in value.items()}
    return OmegaConf.merge(OmegaConf.structured(twin(cls)), inner) if chosen else inner


def class_of(twin_class: Any) -> type:
    """The class that a `twin` stands for; what is no twin, such as dict, stands for itself."""
    return getattr(twin_class, _CLASS, twin_class)


def list_form(cls: type, key: str) -> str | None:
    """What a setting that is a list must look like, such as 'a list of 3 numbers, [x,y,size]'; None for all others.

    key: dotted. A field may name its values in its metadata: `form`.
    """
    name, _, rest = key.partition(".")
    field = next((field for field in dataclasses.fields(cls) if field.name == name), None)
    if field is None:
        return None
    annotation = typing.get_type_hints(cls)[name]
    if rest:
        found = (
            list_form(each, rest.partition(".")[2] if place.endswith("*") else rest)
            for place, part in _inner(annotation, "")
            for each in components.alternatives(part)
        )
        return next((form for form in found if form), None)
    listed = next(
        (part for part in (annotation, *get_args(annotation)) if get_origin(part) in (tuple, list)), None
    )
    if listed is None:
        return None
    items = get_args(listed)
    count = "" if Ellipsis in items or len(items) == 1 else f"{len(items)} "
    form = field.metadata.get("form", "")
    if not form and isinstance(field.default, tuple) and field.default:
        form = "such as [" + ",".join(map(str, field.default)) + "]"
    return f"a list of {count}{_MANY.get(items[0], 'values')}" + (f", {form}" if form else "")


def to_plain(config: Any) -> Any:
    """A built config as dicts, lists and scalars, for YAML and JSON."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}
    if isinstance(config, dict):
        return {str(key): to_plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain(value) for value in config]
    return config if config is None or isinstance(config, _PLAIN) else str(config)
