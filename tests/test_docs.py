"""Every loss and every representation has a page, which the index leads to and which says how to choose it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.components import classes

DOCS = Path(__file__).resolve().parents[1] / "docs"
FOLDERS = {"distillation": "distillation", "representation": "representations"}
PIECES = [(group, name) for group in FOLDERS for name in sorted(classes(group))]


@pytest.mark.parametrize(("group", "name"), PIECES)
def test_a_piece_has_a_page(group: str, name: str) -> None:
    page = f"{FOLDERS[group]}/{name}.md"
    text = (DOCS / page).read_text(encoding="utf-8")
    assert f"{group}={name}" in text, f"{page} does not say how to choose {name}"
    assert re.search("arXiv|SIGGRAPH", text), f"{page} names no paper"
    assert f"]({page})" in (DOCS / "README.md").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} leads to {target}, which is not there"
