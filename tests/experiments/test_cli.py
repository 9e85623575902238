"""The command line: what works, and the one clear line when something does not."""

from __future__ import annotations

import json
import os
import shutil
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

    for arguments in ([], ["--help"], ["-h"], ["help"], ["prompt=x", "--help"]):
        outcome = galatea(*arguments, own_configs=False)
        assert outcome.status == 0
        assert "galatea experiment=" in outcome.out
        for name, path in catalog.experiments().items():
            assert name in outcome.out
            assert catalog.description(path)
            assert catalog.description(path) in outcome.out


def test_help_of_an_experiment(galatea: Galatea, tmp_path: Path) -> None:
    for arguments in (["--help"], ["-h"], ["-m", "--help"]):
        outcome = galatea(COUNT, "num_steps=7", *arguments)
        assert outcome.status == 0, outcome.err
        assert outcome.out.startswith("test/counting: Fit three numbers.\n")
        for line in ("budget=cpu", "  prompt=???", "  target=[1.0,2.0,3.0]", "  optimiser.kind=sgd"):
            assert f"\n{line}\n" in outcome.out
        assert f"\n  num_steps={20 if '-m' in arguments else 7}\n" in outcome.out
    both = galatea("-m", "experiment=test/counting,test/longer", "--help")
    assert both.out.count("Settings") == 2
    assert "optimiser.learning_rate=0.05" in both.out
    figure = galatea("experiment=text_to_3d/quickstart", "--help").out
    assert "\nbudget=cpu\n    smoke, 10s, 30s, cpu, 120s, gpu\n" in figure
    assert "\nbudget=cpu\n    smoke, cpu, gpu\n" in galatea("experiment=sample/multiview", "--help").out
    for arguments, part in (
        (["experiment=nope"], "unknown experiment"),
        ([COUNT, "nope=1"], "unknown key 'nope'"),
    ):
        outcome = galatea(*arguments, "--help")
        assert outcome.status == 2
        assert part in outcome.err[0]
    assert everything_in(tmp_path) == []


def test_a_config_with_the_name_of_a_shipped_one_is_refused(galatea: Galatea, tmp_path: Path) -> None:
    for name in (
        "budget/cpu.yaml",
        "experiment/talk/quickstart.yaml",
        "budget/text_to_3d/quickstart_smoke.yaml",
    ):
        file = tmp_path / name.replace("/", "_") / name
        file.parent.mkdir(parents=True)
        file.write_text("# @package _global_\nseed: 1\n")
        folder = tmp_path / name.replace("/", "_")
        outcome = galatea(f"--config-dir={folder}", *_FIGURE, own_configs=False)
        assert outcome.status == 2
        (line,) = outcome.err
        assert str(file) in line
        assert "rename yours" in line


def test_every_experiment_names_a_known_task() -> None:
    from experiments import catalog, tasks

    for name in catalog.experiments():
        assert catalog.task_of(name) in tasks.TASKS


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [(["--help"], []), (["experiment=text_to_3d/quickstart", "--help"], ["hydra", "omegaconf"])],
)
def test_help_is_quick_and_imports_nothing_heavy(
    arguments: list[str], imported: list[str], subprocess_environment: dict[str, str]
) -> None:
    heavy = {"torch", "hydra", "omegaconf", "diffusers", "transformers", "warp", "rich"}
    code = (
        f"import sys; from experiments.cli import main; status = main({arguments!r}); "
        f"print(sorted({heavy!r} & set(sys.modules))); sys.exit(status)"
    )
    resource = pytest.importorskip("resource")  # CPU time: a busy machine is no slow import
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], env=subprocess_environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == str(imported)
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
        ([COUNT, "prompt=x", "budget=huge"], ["test/counting has no budget 'huge'. There are: cpu, smoke"]),
        ([COUNT, "prompt=x", "budget=smok"], ["test/counting has no budget 'smok'", "Did you mean smoke?"]),
        ([COUNT, "prompt=x", "budget=30s"], ["test/counting has no budget '30s'. There are: cpu, smoke"]),
        ([COUNT, "prompt=x", "budget="], ["unknown budget ''"]),
        (["-m", COUNT, "prompt=x", "budget=smoke,10s"], ["test/counting has no budget '10s'"]),
        (["experiment=test/longer", "prompt=x", "budget=gpu"], ["test/longer has no budget 'gpu'"]),
        ([COUNT, "prompt=x", "seed=-1"], ["seed is -1"]),
        ([COUNT, "prompt=x", "device=tpu"], ["device is 'tpu'", "cpu, cuda"]),
        ([COUNT, "prompt=x", "device=cuda:99"], ["device is 'cuda:99'"]),
        ([COUNT, "prompt=x", "checkpoint_every=0"], ["checkpoint_every must be at least 1, got 0"]),
        ([COUNT, "prompt=x", "backbone=nope"], ["unknown backbone 'nope'", "tiny"]),
        ([COUNT, "prompt=x", "extra=${nokey}"], ["extra", "nokey"]),
        ([COUNT, "prompt=x", "+unknown=3"], ["unknown key 'unknown'", "Keys: "]),
        ([COUNT, "prompt=x", "++sed=3"], ["unknown key 'sed'", "Did you mean seed?"]),
        ([COUNT, "prompt=x", "+optimiser.rate=3"], ["unknown key 'optimiser.rate'", "learning_rate"]),
        ([COUNT, "prompt=x", "~seed"], ["'~seed': settings cannot be deleted", "seed=..."]),
        ([COUNT, "prompt=x", "~optimiser.kind=sgd"], ["settings cannot be deleted"]),
        ([COUNT, "prompt=x", "device=cuda:abc"], ["device is 'cuda:abc'", "cuda:0"]),
        ([COUNT, "prompt=x", "device=cuda:-1"], ["device is 'cuda:-1'", "cuda:0"]),
        ([COUNT, "prompt=x", "device=cuda:"], ["device is 'cuda:'", "cuda:0"]),
        ([COUNT, "prompt=x", "device=cuda:99999999999999"], ["device is 'cuda:99999999999999'"]),
        ([COUNT, "prompt=x", "optimiser.learning_rate=nan"], ["optimiser.learning_rate is nan", "finite"]),
        ([COUNT, "prompt=x", "target=[1,-inf,2]"], ["target.1 is -inf", "finite"]),
        ([COUNT, "prompt=x", "num_steps=1" + "0" * 30], ["num_steps is 1000", "that large"]),
        ([COUNT, "prompt=x", "optimiser.learning_rate=1" + "0" * 400], ["optimiser.learning_rate"]),
        ([COUNT, "prompt=x", "--config-dir=~nosuchuser/x"], ["--config-dir is '~nosuchuser/x'"]),
        ([COUNT, "prompt=x", "--config-dir=nowhere"], ["--config-dir is 'nowhere'", "no such folder"]),
        (["-m", COUNT, "prompt=choice('a wizard's hat')"], ["prompt: the quote before"]),
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


_TALK = ("experiment=talk/quickstart", "portrait=a.png", "audio=a.wav")
_FIGURE = ("experiment=text_to_3d/quickstart", "prompt=a duck")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*_TALK, "face_box=abc"), "face_box must be a list of 3 numbers, [x,y,size], got 'abc'"),
        ((*_TALK, "face_box=[10,x,9]"), "face_box must be a list of 3 numbers, [x,y,size], got '[10,x,9]'"),
        ((*_TALK, "face_box=[10,9]"), "face_box has 2 values; it must have 3"),
        (
            ("experiment=text_to_talk/quickstart", "prompt=a", "audio=a.wav", "background=red"),
            "background must be a list of 3 numbers, such as [0.83,0.83,0.83], got 'red'",
        ),
        (
            (*_FIGURE, "recipe.reconstruct.timesteps=4"),
            "recipe.reconstruct.timesteps must be a list of whole numbers, such as [800,600,450,300,200], got '4'",
        ),
        (
            ("experiment=train/tiny_multiview", "model=m", "channels=8"),
            "channels must be a list of whole numbers, such as [64,128,128], got '8'",
        ),
    ],
)
def test_what_is_no_list_is_told_what_the_list_holds(
    galatea: Galatea, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = galatea(*arguments, "out=made")
    assert outcome.status == 2
    assert outcome.err == [f"galatea: {message}"]
    assert everything_in(tmp_path) == []


def test_a_bug_of_ours_is_one_line_status_1(galatea: Galatea, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.run.machine.cpu_name", lambda: 1 / 0)
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
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == [*names, "x.safetensors"]
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
        outcome.err[-1] == "galatea: loss is nan in phase 'fit' at step 9; the checkpoint of step 8 is kept"
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


def test_interrupt_of_a_sweep_prints_the_command_that_was_typed(galatea: Galatea, tmp_path: Path) -> None:
    import shlex

    # The first run is done before step 9; the second stops there.
    typed = ["-m", COUNT, "prompt=choice('a, b')", "num_steps=5,20", "fail_at=9", "checkpoint_every=4"]
    outcome = galatea(*typed, "out=my runs", "overwrite=true")
    assert outcome.status == 130
    command = shlex.split(outcome.err[-1])
    assert command[0] == "galatea"
    assert command[3:] == [*typed, "out=my runs"]
    made = everything_in(tmp_path)
    again = galatea(*command[1:], own_configs=False)
    assert again.status == 130
    assert sum("is finished already" in line for line in again.err) == 1
    assert sum(line.startswith("continuing") and "from step 8" in line for line in again.err) == 1
    assert everything_in(tmp_path) == made


def test_a_sweep_leaves_nothing_but_its_runs(galatea: Galatea, tmp_path: Path) -> None:
    assert galatea("-m", COUNT, "prompt=x", "seed=1,2", "budget=smoke", "out=all").status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["all"]
    assert galatea("-m", COUNT, "prompt=", "seed=1,2", "out=none").status == 2
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


def test_a_launcher_for_other_machines_keeps_a_folder_of_its_own(galatea: Galatea, tmp_path: Path) -> None:
    sweep = ["-m", COUNT, "prompt=x", "seed=1,2", "budget=smoke", "out=all"]
    assert galatea(*sweep, "hydra/launcher=basic").status == 0
    assert len(list((tmp_path / "outputs" / "multirun").glob("*/multirun.yaml"))) == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write to")
def test_a_sweep_in_a_folder_that_cannot_be_written(
    galatea: Galatea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/proc")
    outcome = galatea("-m", COUNT, "prompt=choice(a,b)", "budget=smoke", f"out={tmp_path}/all")
    assert outcome.status == 0, outcome.err
    assert len(list((tmp_path / "all").glob("*/report.json"))) == 2


def test_a_sweep_over_experiments(galatea: Galatea, tmp_path: Path) -> None:
    for value in ("test/counting,test/longer", "choice(test/counting, test/longer)"):
        sweep = ["-m", f"experiment={value}", "prompt=x", "budget=smoke", f"out=all {value[:6]}"]
        assert galatea(*sweep).status == 0
        assert len(list((tmp_path / f"all {value[:6]}").glob("*/report.json"))) == 2


def test_home_folders_in_paths(galatea: Galatea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copytree(ROOT / "tests" / "experiments" / "configs", tmp_path / "home" / "configs")
    for number, flag in enumerate(
        (["--config-dir=~/configs"], ["--config-dir", "~/configs"], ["-cd=~/configs"])
    ):
        typed = [*flag, COUNT, "prompt=~", "budget=smoke", f"out=~/run {number}"]
        assert galatea(*typed, own_configs=False).status == 0
        config = yaml.safe_load((tmp_path / "home" / f"run {number}" / "config.yaml").read_text())
        assert config["prompt"] == "~"
        assert config["out"] == str(tmp_path / "home" / f"run {number}")
    outcome = galatea(COUNT, "prompt=x", "out=~nosuchuser/x")
    assert outcome.status == 2
    (line,) = outcome.err
    assert "out is '~nosuchuser/x', but ~nosuchuser is no user's home folder" in line


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"num_steps:\t1\n\tx: 2\n", ["line 4", "a tab stands where"]),
        (b"# caf\xe9\nnum_steps: 1\n", ["line 4", "0xe9 is no UTF-8"]),
        (b"num_steps: 1\nprompt: [a\n", ["line 6"]),
        (b"num_steps: 'a\n", ["line 5"]),
    ],
)
@pytest.mark.parametrize("where", ["experiment/my/own.yaml", "budget/counting/own.yaml"])
def test_a_config_that_cannot_be_read_is_named(
    galatea: Galatea, tmp_path: Path, where: str, content: bytes, parts: list[str]
) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(ROOT / "tests" / "experiments" / "configs", configs)
    good = b"# @package _global_\ndefaults: [test/counting]\n# more\n"
    for name in ("experiment/my/own.yaml", "budget/counting/own.yaml", "budget/own.yaml"):
        (configs / name).parent.mkdir(exist_ok=True)
        (configs / name).write_bytes(
            good if name.startswith("exp") else b"# @package _global_\nbudget: own\n"
        )
    (configs / where).write_bytes(
        (good if where.startswith("exp") else b"# @package _global_\n#\n#\n") + content
    )
    before = everything_in(tmp_path)
    outcome = galatea(
        "--config-dir",
        str(configs),
        "experiment=my/own",
        "prompt=x",
        "budget=own",
        "out=made",
        own_configs=False,
    )
    assert outcome.status == 2
    (line,) = outcome.err
    for part in [str(configs / where), *parts]:
        assert part in line
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("content", ["- a\n- b\n", "defaults: 3\n", "", "num_steps: 1\n", "defaults: [3]\n"])
def test_a_config_that_is_no_experiment_is_named(galatea: Galatea, tmp_path: Path, content: str) -> None:
    file = tmp_path / "configs" / "experiment" / "my" / "own.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    outcome = galatea(f"--config-dir={tmp_path}/configs", "experiment=my/own", own_configs=False)
    assert outcome.status == 2
    (line,) = outcome.err
    assert str(file) in line
    assert "- /task: NAME" in line


def test_every_registered_backbone_can_be_chosen_and_no_other_is_offered(galatea: Galatea) -> None:
    from diffusion import registry

    for name in registry.names():
        outcome = galatea("experiment=sample/multiview", "prompt=x", f"backbone={name}", "--cfg", "job")
        assert yaml.safe_load(outcome.out)["backbone"]["name"] == name
        assert f"{name}" in galatea("--help").out
    (line,) = galatea("experiment=sample/multiview", "prompt=x", "backbone=nope").err
    assert f"must be one of {', '.join(sorted(registry.names()))}, or a folder" in line


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
