"""Components chosen by name: from YAML and command line to built dataclasses, and what is said when that fails.

All but the last tests use two made-up groups, `loss` and `step`, in `tests/experiments/made_up`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import components, tasks

MADE_UP = Path(__file__).parent / "made_up" / "configs"
TRY = ("experiment=made_up/combining", "prompt=x")
Run = Callable[..., Any]


@pytest.fixture
def combine(galatea: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run `galatea` with the made-up groups and task added, and the configs of `own` or those of the groups."""
    package = "tests.experiments.made_up"
    monkeypatch.setitem(components.GROUPS, "loss", f"{package}.losses.base:Loss")
    monkeypatch.setitem(components.GROUPS, "step", f"{package}.steps.base:Step")
    monkeypatch.setitem(tasks.TASKS, "combining", f"{package}.combining")

    def call(*arguments: str, own: Path = MADE_UP) -> Any:
        return galatea(f"--config-dir={own}", *arguments, own_configs=False)

    yield call


def config_of(combine: Run, *arguments: str) -> Any:
    outcome = combine(*TRY, *arguments, "--cfg", "job")
    assert outcome.status == 0, outcome.err
    return yaml.safe_load(outcome.out)


def test_a_run_of_chosen_components(combine: Run, tmp_path: Path) -> None:
    for loss, value in (("square", 2.0), ("steep", 10.0), ("table", 1.0), ("alone", 3.0)):
        outcome = combine(*TRY, f"loss={loss}", f"out={loss}")
        assert outcome.status == 0, outcome.err
        assert (tmp_path / loss / "steps.txt").read_text() == f"walk {value}\nmesh 0\n"
    saved = yaml.safe_load((tmp_path / "table" / "config.yaml").read_text())
    assert saved["recipe"]["walk"]["guidances"]["first"]["loss"] == saved["loss"]
    assert saved["loss"]["name"] == "table"
    assert list(saved["recipe"]) == ["walk", "mesh"]
    again = combine(*TRY, "loss=table", "out=table")
    assert "finished already" in again.err[0]
    other = combine(*TRY, "loss=alone", "out=table")
    assert other.status == 2
    assert "loss.name='table' there and 'alone' here" in other.err[0]
