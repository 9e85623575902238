"""The command line: what works, and the one clear line when something does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

COUNT = "experiment=test/counting"
ROOT = Path(__file__).resolve().parents[2]
Galatea = Callable[..., Any]


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_help_names_every_experiment(galatea: Galatea) -> None:
    from experiments import catalog

    for arguments in ([], ["--help"], ["-h"], ["help"], [COUNT, "--help"]):
        outcome = galatea(*arguments, own_configs=False)
        assert outcome.status == 0
        assert "galatea experiment=" in outcome.out
        for name, path in catalog.experiments().items():
            assert name in outcome.out
            assert catalog.description(path)
            assert catalog.description(path) in outcome.out


def test_every_experiment_names_a_known_task() -> None:
    from experiments import catalog, tasks

    for name in catalog.experiments():
        assert catalog.task_of(name) in tasks.TASKS


def test_help_is_quick_and_imports_nothing_heavy(subprocess_environment: dict[str, str]) -> None:
    code = (
        "import sys; from experiments.cli import main; status = main(['--help']); "
        "print(sorted({'torch', 'hydra', 'diffusers', 'transformers', 'warp', 'rich'} & set(sys.modules))); "
        "sys.exit(status)"
    )
    resource = pytest.importorskip("resource")  # CPU time: a busy machine is no slow import
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], env=subprocess_environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "[]"
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime < 3.0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([COUNT, "prompt="], ["prompt is empty"]),
        ([COUNT, "prompt=  \n "], ["prompt is empty"]),
        ([COUNT], ["prompt is missing", "prompt=..."]),
        (["prompt=x"], ["no experiment chosen", "test/counting"]),
        (
            ["experiment=test/countin", "prompt=x"],
            ["unknown experiment 'test/countin'", "Did you mean test/counting?"],
        ),
        (["experiment=../../etc/passwd", "prompt=x"], ["unknown experiment"]),
        ([COUNT, "prompt=a", "red", "mushroom"], ["'red' stands alone", 'prompt="..."']),
        ([COUNT, "prompt=x", "seeed=1"], ["unknown key 'seeed'", "Did you mean seed?"]),
        ([COUNT, "prompt=x", "optimiser.lr=1"], ["unknown key 'optimiser.lr'", "learning_rate"]),
        ([COUNT, "prompt=x", "num_steps=-3"], ["num_steps is -3", "at least 1"]),
        ([COUNT, "prompt=x", "num_steps=many"], ["num_steps", "many", "Integer"]),
        ([COUNT, "prompt=x", "num_steps=1.5"], ["num_steps", "1.5", "Integer"]),
        ([COUNT, "prompt=x", "num_steps=null"], ["num_steps"]),
        ([COUNT, "prompt=x", "optimiser.learning_rate=-1"], ["optimiser: learning_rate is -1"]),
        ([COUNT, "prompt=x", "optimiser.kind=lion"], ["optimiser.kind is 'lion'", "sgd, adam"]),
        ([COUNT, "prompt=x", "target=[1,2]"], ["target has 2 values", "3"]),
        ([COUNT, "prompt=x", "target=[1,2"], ["'target=[1,2' cannot be read"]),
        ([COUNT, "prompt=x", "target=[a=1]"], ["cannot be read", """quotes: target="['...']\""""]),
        ([COUNT, "prompt=x", "budget=huge"], ["unknown budget 'huge'", "smoke"]),
        ([COUNT, "prompt=x", "budget=30s"], ["budget: this experiment has none of that name", "smoke"]),
        ([COUNT, "prompt=x", "seed=-1"], ["seed is -1"]),
        ([COUNT, "prompt=x", "device=tpu"], ["device is 'tpu'", "cpu, cuda"]),
        ([COUNT, "prompt=x", "device=cuda:99"], ["device is 'cuda:99'"]),
        ([COUNT, "prompt=x", "checkpoint_every=0"], ["checkpoint_every is 0"]),
        ([COUNT, "prompt=x", "backbone=nope"], ["unknown backbone 'nope'", "tiny"]),
        ([COUNT, "prompt=x", "extra=${nokey}"], ["extra", "nokey"]),
    ],
)
def test_bad_input_is_one_line_status_2_and_writes_nothing(
    galatea: Galatea, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    outcome = galatea(*arguments, "out=made")
    assert outcome.status == 2
    assert len(outcome.err) == 1
    assert outcome.err[0].startswith("galatea: ")
    for part in parts:
        assert part in outcome.err[0]
    assert everything_in(tmp_path) == []


def test_a_bug_of_ours_is_one_line_status_1(galatea: Galatea, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.run.report.cpu_name", lambda: 1 / 0)
    outcome = galatea(COUNT, "prompt=x", "num_steps=1", "out=made")
    assert outcome.status == 1
    (line,) = outcome.err
    assert line.startswith("galatea: internal error, ZeroDivisionError: division by zero")
    assert "GALATEA_DEBUG=1" in line


def test_a_run_and_its_folder(galatea: Galatea, tmp_path: Path) -> None:
    outcome = galatea(COUNT, "prompt=a, b", "budget=smoke", "checkpoint_every=2", "out=a b/c")
    assert outcome.status == 0
    folder = tmp_path / "a b" / "c"
    names = ["checkpoints", "config.yaml", "metrics.jsonl", "provenance.json", "report.html", "report.json"]
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [*names, "x.safetensors"]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["prompt"], config["num_steps"], config["budget"]) == ("a, b", 4, "smoke")
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "step_00000002",
        "step_00000004",
    ]
    assert everything_in(tmp_path)[0] == "a b"
    assert all(name.startswith("a b") for name in everything_in(tmp_path)), "Hydra left files behind"


def test_the_default_folder_holds_no_user_text_and_is_found_again(galatea: Galatea, tmp_path: Path) -> None:
    assert galatea(COUNT, "prompt=../../evil").status == 0
    (folder,) = (tmp_path / "outputs" / "counting").iterdir()
    assert "evil" not in str(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    again = galatea(COUNT, "prompt=../../evil")
    assert again.status == 0
    assert "finished already" in again.err[0]
    assert galatea(COUNT, "prompt=other").status == 0
    assert len(list((tmp_path / "outputs" / "counting").iterdir())) == 2


def test_experiments_build_on_others(galatea: Galatea, tmp_path: Path) -> None:
    assert galatea("experiment=test/longer", "prompt=x", "budget=smoke", "out=made").status == 0
    config = yaml.safe_load((tmp_path / "made" / "config.yaml").read_text())
    assert (config["task"], config["optimiser"]["learning_rate"]) == ("counting", 0.05)


def test_multirun_sweeps_seeds_and_chosen_prompts(galatea: Galatea, tmp_path: Path) -> None:
    outcome = galatea("-m", COUNT, 'prompt=choice("a, b","c")', "seed=1,2", "budget=smoke", "out=all")
    assert outcome.status == 0
    configs = [yaml.safe_load(path.read_text()) for path in (tmp_path / "all").glob("*/config.yaml")]
    assert {(config["prompt"], config["seed"]) for config in configs} == {
        ("a, b", 1),
        ("a, b", 2),
        ("c", 1),
        ("c", 2),
    }


def test_multirun_takes_other_prompts_as_typed(galatea: Galatea, tmp_path: Path) -> None:
    prompt = "a, 'b' \"c\" ${d} \\ [e] {f: g} x=1"
    assert galatea("-m", COUNT, f"prompt={prompt}", "seed=1", "budget=smoke", "out=all").status == 0
    (config,) = (yaml.safe_load(path.read_text()) for path in (tmp_path / "all").glob("*/config.yaml"))
    assert config["prompt"] == prompt


def test_cfg_job_shows_the_settings_and_runs_nothing(galatea: Galatea, tmp_path: Path) -> None:
    outcome = galatea(COUNT, "prompt=x", "--cfg", "job")
    assert outcome.status == 0
    assert yaml.safe_load(outcome.out)["optimiser"]["learning_rate"] == 0.1
    assert everything_in(tmp_path) == []


def test_nan_stops_the_run_and_keeps_the_last_checkpoint(galatea: Galatea, tmp_path: Path) -> None:
    outcome = galatea(COUNT, "prompt=x", "nan_at=9", "checkpoint_every=4", "out=made")
    assert outcome.status == 1
    assert (
        outcome.err[-1] == "galatea: loss is nan in stage 'fit' at step 9; the checkpoint of step 8 is kept"
    )
    assert (tmp_path / "made" / "checkpoints" / "step_00000008" / "state.safetensors").is_file()
    assert not (tmp_path / "made" / "report.json").exists()


def test_interrupt_says_how_to_continue(galatea: Galatea, tmp_path: Path) -> None:
    arguments = [COUNT, "prompt=a $b 'c'", "fail_at=9", "checkpoint_every=4", "out=my run"]
    outcome = galatea(*arguments)
    assert outcome.status == 130
    assert "step 8 of 20" in outcome.err[-2]
    assert "continues from step 8" in outcome.err[-2]
    import shlex

    command = shlex.split(outcome.err[-1])
    assert command[0] == "galatea"
    assert command[3:] == [COUNT, "prompt=a $b 'c'", "fail_at=9", "checkpoint_every=4", "out=my run"]


def test_exit_status_of_the_process(tmp_path: Path, subprocess_environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "experiments", "experiment=nope/nope", "prompt=x", "out=made"]
    done = subprocess.run(
        command, cwd=tmp_path, env=subprocess_environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_report_of_the_counting_run(galatea: Galatea, tmp_path: Path) -> None:
    assert galatea(COUNT, "prompt=x", "out=made").status == 0
    report = json.loads((tmp_path / "made" / "report.json").read_text())
    assert report["seconds"].keys() == {"fit"}
    assert report["seconds_total"] >= 0
    assert report["metrics"]["error"] < 1
    assert os.path.isfile(tmp_path / "made" / "report.html")
