"""The fields of a network, chosen on the command line: with every budget, and to a mesh."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

from experiments import catalog
from experiments.run.schema import build
from experiments.tasks.configs.text_to_3d import Config
from gen3d.mesh_files import load_mesh_file
from gen3d.meshing import is_watertight

Run = Callable[..., Any]
needs_nerfstudio = pytest.mark.skipif(find_spec("nerfstudio") is None, reason="needs nerfstudio")
NERFSTUDIO = pytest.param("nerfstudio", marks=needs_nerfstudio)
BASELINES = ("baseline/mvdream", "baseline/dreamfusion", "text_to_3d/quickstart")


def composed(galatea: Run, *arguments: str) -> Config:
    outcome = galatea(*arguments, "prompt=x", "--cfg", "job")
    assert outcome.status == 0, outcome.err
    return build(Config, DictConfig(yaml.safe_load(outcome.out) | {"experiment": ""}))


@pytest.mark.parametrize("experiment", BASELINES)
@pytest.mark.parametrize("representation", ["volume", "hashgrid", "sdf", NERFSTUDIO])
def test_every_budget_goes_with(galatea: Run, experiment: str, representation: str) -> None:
    chosen = {"representation": representation}
    budgets = catalog.budgets(experiment, chosen)
    assert {"cpu", "gpu", "smoke"} <= set(budgets) <= {"cpu", "gpu", "smoke", "10s", "30s", "120s"}
    for budget in budgets:
        arguments = (f"experiment={experiment}", f"representation={representation}", f"budget={budget}")
        config = composed(galatea, *arguments)
        assert getattr(config.representation, "name", "") == representation


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("representation=sdf", "recipe.extract.level=3"),
            "extract level is 3, which has no effect on a signed",
        ),
        (("representation=hashgrid", "recipe.extract.level=null"), "extract level must be a density"),
        (("recipe.extract.level=null",), "extract level must be a density, for a volume has no surface"),
        (("representation=sdf", "representation.blob=magic3d"), "unknown key 'representation.blob'"),
    ],
)
def test_settings_without_effect_are_refused(galatea: Run, arguments: tuple[str, ...], message: str) -> None:
    outcome = galatea("experiment=baseline/mvdream", "prompt=x", *arguments)
    assert outcome.status == 2
    assert message in outcome.err[-1]


@pytest.mark.skipif(find_spec("nerfstudio") is not None, reason="nerfstudio is installed")
def test_a_field_of_a_package_that_is_missing_is_refused(galatea: Run) -> None:
    outcome = galatea("experiment=baseline/mvdream", "prompt=x", "representation=nerfstudio")
    assert outcome.status == 2
    (line,) = outcome.err
    assert line.endswith('nerfstudio needs the package nerfstudio; pip install "galatea[nerfstudio]"')


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "representation"),
    [
        ("baseline/mvdream", "hashgrid"),
        ("baseline/mvdream", "sdf"),
        ("text_to_3d/quickstart", "hashgrid"),
        pytest.param("baseline/mvdream", "nerfstudio", marks=needs_nerfstudio),
    ],
)
def test_a_field_becomes_a_closed_mesh(
    galatea: Run, tmp_path: Path, experiment: str, representation: str
) -> None:
    outcome = galatea(
        f"experiment={experiment}", f"representation={representation}", "prompt=a red mushroom",
        "budget=smoke", "threads=1", "out=made",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert is_watertight(load_mesh_file(tmp_path / "made" / "mesh.glb"))
