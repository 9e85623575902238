"""The table of methods: what it refuses, what a sweep takes, and that finished assets make the same table again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmark.cases import default_cases
from experiments.components import names
from experiments.run.backbones import BackboneConfig
from experiments.tasks.benchmark_methods import _settings
from experiments.tasks.configs.benchmark_methods import Config, Method
from tests.experiments.benchmark.test_benchmark import SMALL, finished_asset

BENCHMARK = "experiment=benchmark/losses"
Galatea = Callable[..., Any]


def config(**settings: Any) -> Config:
    given = {"methods": {"sds": Method(), "slow": Method(evaluations=20.0)}, **settings}
    return Config(task="benchmark_methods", backbone=BackboneConfig(name="tiny"), **given)


def test_methods_have_the_same_number_of_evaluations() -> None:
    made = config(evaluations=400)
    assert [made.steps(one) for one in made.chosen.values()] == [200, 20]
    settings = _settings(made, made.methods["slow"], 7.5, 3)
    assert "recipe.distill.num_steps=20" in settings
    assert "seed=3" in settings
    assert not any("num_steps" in one for one in _settings(config(evaluations=0), Method(), None, 0))
    assert list(config(only=("slow",)).chosen) == ["slow"]


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"methods": {}}, "methods is empty"),
        ({"only": ("sd",)}, "only names 'sd'; there are sds, slow"),
        ({"evaluations": 9}, "too few for one step of 'slow'"),
        ({"num_things": 0}, "at least one must be more"),
        ({"num_sweep": -1}, "num_sweep must not be negative, got -1"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        config(**settings)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"evaluations": 0.0}, "evaluations must lie above 0"),
        ({"sweep": "distillation.guidance_scale"}, "go together"),
        ({"sweep_values": (1.0,)}, "go together"),
        ({"seeds": (1, 1)}, "each number once"),
        ({"settings": ("seed=3",)}, "settings holds 'seed=3'"),
    ],
)
def test_bad_methods_are_named(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        Method(**settings)


def test_every_loss_has_a_row(galatea: Galatea) -> None:
    shown = galatea(BENCHMARK, "--cfg", "job")
    assert shown.status == 0
    for name in names("distillation"):
        assert f"distillation={name}" in shown.out, f"benchmark/losses has no row for {name}"


def test_a_method_whose_settings_are_refused_stops_before_the_others(galatea: Galatea) -> None:
    outcome = galatea(
        BENCHMARK, *SMALL, "only=[sds,x0]", 'methods.x0.settings=["distillation=y0"]', "out=made"
    )
    assert outcome.status == 2
    assert "methods.x0" in outcome.err[-1]
    assert "y0" in outcome.err[-1]


@pytest.mark.slow
def test_the_best_value_of_a_sweep_makes_the_table(galatea: Galatea, tmp_path: Path) -> None:
    """All assets lie there finished: what is swept, taken, scored and written is seen without making any."""
    first, second, other = (case.caption for case in default_cases(3, 0, 0))
    made = tmp_path / "made"
    for name, best in (("sds", "20"), ("x0", "2.5")):
        for value in ("2.5", "7.5", "20") if name == "sds" else ("1.5", "2.5", "5"):
            shown = other if value == best else second  # a value that gave another thing than was asked for
            finished_asset(made / "methods" / name / f"sweep_{value}" / "assets" / "000", shown, prompt=other)
        for seed in (0, 1, 2):
            for index, caption in enumerate((first, second)):
                folder = made / "methods" / name / f"seed_{seed}" / "assets" / f"{index:03d}"
                if seed == 0 or index < 1:
                    finished_asset(folder, second if name == "x0" else caption, prompt=caption)
    arguments = [BENCHMARK, *SMALL, "only=[sds,x0]", "num_things=2", "out=made"]
    (made / "config.yaml").write_text(galatea(*arguments, "--cfg", "job", "--resolve").out)

    outcome = galatea(*arguments)

    assert outcome.status == 0, outcome.err
    result = json.loads((made / "benchmark.json").read_text())
    assert result["captions"] == [first, second]
    assert result["sweep_captions"] == [other]
    sds, x0 = result["methods"]["sds"], result["methods"]["x0"]
    assert (sds["sweep"]["best"], x0["sweep"]["best"]) == (20.0, 2.5)
    assert (sds["steps"], sds["failed"]) == (4, 0)
    assert sds["scores"]["iou"] > 0.9
    assert sds["scores"]["iou"] > x0["scores"]["iou"] > result["controls"]["sphere"]["iou"]
    assert list(sds["seeds"]) == ["0", "1", "2"]
    assert result["controls"]["oracle"]["iou"] > 0.9
    table = (made / "benchmark.md").read_text()
    for part in ("**sds** (20)", "7.5: ", "a grey ball", "standard deviation", first):
        assert part in table
    assert (made / "contact_sheet.png").stat().st_size > 1000
