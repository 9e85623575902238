"""No module imports, over however many others, itself: not at its top, not in a function, not for a type checker.

One thing is left out: a settings class that imports the component it configures in its `build()` (and for its type).
It is the door from settings, which are read without torch, to what they configure.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("avatar", "configs", "diffusion", "experiments", "files", "gen3d", "video")


# What settings build by a late import knows them in turn.
_BUILDERS = {"build", "begin", "begin_from", "live", "load"}


def sources() -> dict[str, str]:
    """Module name -> source, of the whole project."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {module_name(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, known: Mapping[str, str]) -> Iterator[str]:
    """The project's modules that some code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in inner]
        else:
            continue
        yield from (name for name in names if name in known)


def graph(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> what it imports, less what its settings build."""
    found: dict[str, set[str]] = {}
    for name, source in modules.items():
        tree = ast.parse(source)
        built = {
            module
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name in _BUILDERS
            for module in imports(node, modules)
        }
        found[name] = set(imports(tree, modules)) - built - {name}
    return found


def circle(modules: Mapping[str, str]) -> list[str]:
    """The modules of a circle, the first named twice; empty without one."""
    try:
        TopologicalSorter(graph(modules)).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_in_a_circle() -> None:
    modules = sources()
    assert len(modules) > 200
    assert circle(modules) == []


@pytest.mark.parametrize(
    "back",
    [
        "import a",
        "def f():\n    from a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import x",
    ],
)
def test_a_circle_is_found(back: str) -> None:
    assert sorted(set(circle({"a": "import b", "b": "import c", "c": back}))) == ["a", "b", "c"]
    assert circle({"a": "import b", "b": "import c", "c": ""}) == []


def test_settings_may_build_what_takes_them() -> None:
    settings = "class Config:\n    def build(self):\n        from thing import Thing"
    assert circle({"config": settings, "thing": "from config import Config"}) == []
