"""The libraries speak of arguments: they know of no command line, and so do their messages and docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("package", ["avatar", "diffusion", "files", "gen3d", "video"])
def test_no_text_of_a_library_is_a_command_line(package: str) -> None:
    texts = [
        (path.name, node.lineno, node.value)
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert len(texts) > 10
    commands = ("galatea experiment", "experiment=", "budget=", "overwrite=", "out=DIR")
    assert [each for each in texts if any(command in each[2] for command in commands)] == []
