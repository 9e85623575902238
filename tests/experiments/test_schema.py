from __future__ import annotations

import contextlib
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from experiments import catalog, tasks
from experiments.errors import UnknownKey
from experiments.run.schema import build, class_of, fields_of, list_form, literal_keys, to_plain, twin, typed
from experiments.run.seeding import derive_seed, make_generator, resolve_device
from experiments.run.settings import FilePath, FolderPath, Text


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate is {self.rate}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.0, 1.0)
    folder: Path = Path("x")
    maybe: str | None = None
    inner: Inner = field(default_factory=Inner)
    optional: Inner | None = None
    any_component: Any = None


@dataclass(frozen=True)
class MarkedInner:
    folder: FolderPath = "f"


@dataclass(frozen=True, kw_only=True)
class Marked:
    words: Text = ""
    maybe: FilePath | None = None
    files: tuple[FilePath, ...] = ()
    some: tuple[Text, ...] | None = None
    name: str = ""
    kind: Literal["text"] = "text"
    inner: MarkedInner = field(default_factory=MarkedInner)


def composed(*overrides: str) -> Any:
    return OmegaConf.merge(OmegaConf.structured(twin(Outer)), OmegaConf.from_dotlist(list(overrides)))


def test_defaults_come_back_as_the_dataclass() -> None:
    assert build(Outer, composed("name=n")) == Outer(name="n")


def test_values_come_back_in_their_types() -> None:
    built = build(
        Outer, composed("name=n", "sizes=[3,4,5]", "pair=[1,2]", "folder=a b/c", "inner.kind=b", "maybe=m")
    )
    assert built == Outer(
        name="n", sizes=(3, 4, 5), pair=(1.0, 2.0), folder=Path("a b/c"), inner=Inner(kind="b"), maybe="m"
    )
    assert isinstance(built.pair[0], float)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sizes=[1]"], "name is missing"),
        (["name=n", "inner.kind=c"], "inner.kind is 'c'; it must be one of a, b"),
        (["name=n", "inner.rate=-1"], "inner: rate is -1"),
        (["name=n", "pair=[1]"], "pair has 1 values; it must have 2"),
    ],
)
def test_mistakes_name_the_key(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Outer, composed(*overrides))


def test_plain_round_trip() -> None:
    outer = Outer(name="n", sizes=(7,), optional=Inner(rate=2.0))
    plain = to_plain(outer)
    assert plain["sizes"] == [7]
    assert plain["optional"] == {"rate": 2.0, "kind": "a"}
    assert plain["folder"] == "x"


def test_every_task_has_a_schema() -> None:

    for name in tasks.TASKS:
        node = OmegaConf.structured(twin(tasks.config(name)))
        assert {"seed", "out", "device"} <= set(node.keys())
        module = tasks.load(name)
        assert callable(module.run)
        assert module.Config is tasks.config(name)


def test_settings_are_read_without_torch() -> None:
    # A wrong key is answered within a second or two only while this holds.
    code = (
        "import sys; from experiments import cli, components, tasks; from experiments.run import schema\n"
        "for name in tasks.TASKS: schema.twin(tasks.config(name))\n"
        "for group in components.groups(): group == components.RECIPE or components.classes(group)\n"
        "print(*sorted({'torch', 'diffusers', 'transformers', 'scipy', 'skimage', 'av'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


# Fields that are no free text and no path, so that the command line's own grammar is right for them.
NEITHER_TEXT_NOR_PATH = {
    "task": "a name of ours",
    "experiment": "a name of a config; a comma sweeps",
    "budget": "a name of a config; a comma sweeps",
    "method": "a name of a config",
    "methods.*.experiment": "a name of a config",
    "methods.*.sweep": "a setting's name",
    "only": "names of methods or of parts",
    "losses": "names of configs",
    "taken_apart": "a name of a config",
    "steps_key": "a setting's name",
    "asset_budget": "a name of a config",
    "asset_prior": "a name of a config",
    "device": "cpu or cuda:N; a comma sweeps",
    "fps": "a number or a fraction; a comma sweeps",
}


def is_text(annotation: Any) -> bool:
    """Whether a value of that type, or an element of it, may be any text."""
    parts = get_args(annotation)[1:] if get_origin(annotation) is dict else get_args(annotation)
    return annotation is str or any(is_text(part) for part in parts if part is not Ellipsis)


def every_field() -> list[tuple[str, str, Any]]:
    return [(task, *field) for task in tasks.TASKS for field in fields_of(tasks.config(task))]


def test_every_text_is_marked_or_has_a_reason_not_to_be() -> None:
    seen = set()
    for task, key, annotation in every_field():
        if get_origin(annotation) is not Literal and is_text(annotation):
            marked = key in literal_keys(tasks.config(task))
            assert marked != (key in NEITHER_TEXT_NOR_PATH), (
                f"{task}: mark {key} as Text, FilePath or FolderPath"
            )
            seen.add(key)
    assert seen >= NEITHER_TEXT_NOR_PATH.keys()
    assert {"prompt", "portrait", "face_model", "backbone.name", "prior.background"} <= seen


def test_marks_are_found_in_options_and_lists() -> None:
    assert literal_keys(Marked) == {
        "words": False, "maybe": False, "files": True, "some": True, "inner.folder": False,
    }  # fmt: skip


def test_home_folders_of_marked_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = {"words": "~", "maybe": "~/a", "files": ["~/b", "c~"], "some": ["~"], "inner": {"folder": "~"}}
    built = build(Marked, DictConfig(config))
    assert built == Marked(
        words="~", maybe="/home/me/a", files=("/home/me/b", "c~"), some=("~",), inner=MarkedInner("/home/me")
    )
    with pytest.raises(ValueError, match="files is '~nosuchuser/b', but ~nosuchuser is no user's home"):
        build(Marked, DictConfig({**config, "files": ["~nosuchuser/b"]}))


@pytest.mark.parametrize("task", tasks.TASKS)
def test_text_and_paths_of_every_task_are_taken_as_typed(galatea: Callable[..., Any], task: str) -> None:
    words = "a, 'b' \"c\" [1] (x)=y {z} \\ #1 \u00e9 ~ 1e3"
    shown = OmegaConf.create(galatea(f"experiment={experiment_of(task)}", "--cfg", "job").out)
    # Of components, the keys of those that the experiment chooses.
    there = [key for key, _ in leaves(typed(tasks.config(task), shown)) if key != "backbone.name"]
    known = literal_keys(tasks.config(task)).items()
    keys = {key: listed for key in there for pattern, listed in known if fnmatch(key, pattern)}
    assert keys
    settings = [f"{key}=[x=1,'p, q']" if listed else f"{key}={words}" for key, listed in keys.items()]
    outcome = galatea(f"experiment={experiment_of(task)}", *settings, "--cfg", "job")
    assert outcome.status == 0, outcome.err
    config = OmegaConf.create(outcome.out)
    for key, listed in keys.items():
        assert OmegaConf.select(config, key) == (["x=1", "p, q"] if listed else words), key


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and type of every setting in a config with its schema, of the components that are chosen in it."""
    hints = get_type_hints(class_of(OmegaConf.get_type(node)), include_extras=True)
    for key in node:
        inner = node._get_node(key)
        if isinstance(inner, DictConfig) and not inner._is_none() and not inner._is_missing():
            yield from leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", hints.get(key)


def experiment_of(task: str) -> str:
    return next(name for name in catalog.experiments() if catalog.task_of(name) == task)


def is_number(annotation: Any) -> bool:
    return annotation is float or any(
        is_number(part) for part in get_args(annotation) if part is not Ellipsis
    )


@pytest.mark.parametrize("task", tasks.TASKS)
def test_every_number_of_every_task_is_finite(galatea: Callable[..., Any], task: str) -> None:
    more = ("lesson=image",) if task == "train_talk" else ()
    shown = galatea(f"experiment={experiment_of(task)}", *more, "--cfg", "job").out
    cls = tasks.config(task)
    config = typed(cls, OmegaConf.create(shown))
    for key, _ in leaves(config):
        if OmegaConf.is_missing(config, key):
            OmegaConf.update(config, key, "x")
    assert isinstance(build(cls, config), cls)
    for key, annotation in leaves(config):
        if not is_number(annotation):
            continue
        for value in (math.nan, math.inf, -math.inf, 1e39):
            expected = rf"^{re.escape(key)}(\.\d)? is {re.escape(str(value))}; "
            with changed(config, key, annotation, value), pytest.raises(ValueError, match=expected):
                build(cls, config)
        if re.search("guidance_scale|azimuth|elevation|fovy", key):
            for value in (1e30, -1e30):
                expected = r"guidance_scale|azimuth|elevation|fovy"
                with changed(config, key, annotation, value), pytest.raises(ValueError, match=expected):
                    build(cls, config)
    assert isinstance(build(cls, config), cls)


@contextlib.contextmanager
def changed(config: DictConfig, key: str, annotation: Any, value: float) -> Iterator[None]:
    """The config with another value at `key`, or as the last of several there."""
    before = OmegaConf.select(config, key)
    if "tuple" in str(annotation) and not isinstance(before, (int, float)):
        before = None if before is None else list(before)
        OmegaConf.update(config, key, [*(before or [0])[:-1], value])
    else:
        OmegaConf.update(config, key, value)
    yield
    OmegaConf.update(config, key, before)


def test_numbers_anywhere_are_finite() -> None:
    for override in ("inner.rate=nan", "pair=[1,inf]", "any_component={a: [0, {b: .nan}]}"):
        with pytest.raises(ValueError, match="must be a finite number"):
            build(Outer, composed("name=n", override))
    with pytest.raises(ValueError, match=r"sizes\.0 is 1000000000000000000000; no computation"):
        build(Outer, composed("name=n", "sizes=[1000000000000000000000]"))


def test_unknown_keys_are_refused_at_every_level() -> None:
    for key in ("other", "inner.other", "optional.other"):
        node = composed("name=n", "optional={rate: 1}")
        with open_dict(node):
            OmegaConf.update(node, key, 1, force_add=True)
        with pytest.raises(UnknownKey, match=f"unknown key '{key}'"):
            build(Outer, node)


def test_streams_are_independent_and_repeat() -> None:
    first = torch.rand(4, generator=make_generator(0, "a"))
    assert torch.equal(first, torch.rand(4, generator=make_generator(0, "a")))
    assert not torch.equal(first, torch.rand(4, generator=make_generator(0, "b")))
    assert not torch.equal(first, torch.rand(4, generator=make_generator(1, "a")))
    # Golden: a changed derivation would silently change every published result.
    assert derive_seed(0, "main") == 4345725771834183194
    assert resolve_device("cpu") == torch.device("cpu")


def test_what_a_list_must_look_like() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Lists:
        box: tuple[float, float, float] | None = field(default=None, metadata={"form": "[x,y,size]"})
        names: tuple[str, ...] = ()
        outer: Outer | None = None

    assert list_form(Lists, "box") == "a list of 3 numbers, [x,y,size]"
    assert list_form(Lists, "names") == "a list of texts"
    assert list_form(Lists, "outer.pair") == "a list of 2 numbers, such as [0.0,1.0]"
    assert list_form(Lists, "outer.sizes") == "a list of whole numbers, such as [1,2]"
    for key in ("outer", "outer.name", "outer.inner.rate", "names.more", "missing", "outer.missing", ""):
        assert list_form(Lists, key) is None
    assert class_of(twin(Lists)) is Lists


def test_null_is_none_where_text_is_optional_alone() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Texts:
        prompt: Text
        file: FilePath | None = "x.wav"
        folder: FolderPath | None = "x"

    found = build(Texts, OmegaConf.create({"prompt": "null", "file": "null", "folder": "./null"}))
    assert found == Texts(prompt="null", file=None, folder="./null")
