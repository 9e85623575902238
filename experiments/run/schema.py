"""From a component's frozen `Config` dataclass to a Hydra schema, and from a composed config back to it.

Why not register the dataclasses as they are: OmegaConf makes frozen ones read-only before any override is
applied, and knows neither `Literal` nor classes of its own. So the schema is a mutable twin that remembers its
class; Hydra merges YAML and overrides into the twin with its type checks, and `build` turns the result into the
real thing, so that each component's own `__post_init__` has the last word.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

T = TypeVar("T")

_PLAIN = (int, float, bool, str)
_CLASS = "__config_class__"


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
    if origin in (Union, types.UnionType):
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
    return str(value) if isinstance(value, Path) else value


@cache
def twin(cls: type) -> type:
    """A mutable dataclass with the fields and defaults of `cls`, in types OmegaConf understands."""
    hints = typing.get_type_hints(cls)
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        if field.default_factory is not dataclasses.MISSING:
            default = _twin_value(field.default_factory())
        else:
            default = MISSING if field.default is dataclasses.MISSING else _twin_value(field.default)
        # OmegaConf deep-copies what a factory gives it, so one shared default is enough.
        factory = dataclasses.field(default_factory=lambda value=default: value)
        fields.append((field.name, _twin_type(hints[field.name]), factory))
    made = dataclasses.make_dataclass(f"{cls.__qualname__}", fields, kw_only=True)
    setattr(made, _CLASS, cls)
    return made


def _restore(value: Any, annotation: Any, name: str) -> Any:
    """`value` (plain) as `annotation` asks: tuples for lists, Path for strings, Literal checked."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        others = [argument for argument in arguments if argument is not type(None)]
        return _restore(value, others[0], name) if len(others) == 1 else value
    if origin is Literal and value not in arguments:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(str, arguments))}")
    if origin is tuple and isinstance(value, list):
        if Ellipsis not in arguments and len(arguments) != len(value):
            raise ValueError(f"{name} has {len(value)} values; it must have {len(arguments)}")
        return tuple(value)
    return Path(value) if annotation is Path and isinstance(value, str) else value


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
    return node


def _child(node: DictConfig | ListConfig, key: Any, name: str) -> Any:
    full = f"{name}.{key}" if name else str(key)
    if OmegaConf.is_missing(node, key):
        raise ValueError(f"{full} is missing; give it as {full}=...")
    try:
        value = node[key]
    except OmegaConfBaseException as error:
        raise ValueError(f"{full}: {str(error).splitlines()[0]}") from None
    return _plain(value, full)


def _build(cls: type[T], node: DictConfig, name: str) -> T:
    hints = typing.get_type_hints(cls)
    values = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.init:
            full = f"{name}.{field.name}" if name else field.name
            values[field.name] = _restore(_child(node, field.name, name), hints[field.name], full)
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}" if name else str(error)) from None


def build(cls: type[T], config: DictConfig) -> T:
    """The `cls` that a composed config describes, nested components included.

    Raises ValueError with the full dotted key for a missing value, one of the wrong type, or one that the
    component itself refuses.
    """
    merged = (
        OmegaConf.merge(OmegaConf.structured(twin(cls)), config)
        if OmegaConf.get_type(config) is dict
        else config
    )
    assert isinstance(merged, DictConfig)
    return _build(cls, merged, "")


def to_plain(config: Any) -> Any:
    """A built config as dicts, lists and scalars, for YAML and JSON."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}
    if isinstance(config, dict):
        return {str(key): to_plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain(value) for value in config]
    return config if config is None or isinstance(config, _PLAIN) else str(config)
