from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import UserError
from experiments.run import folder as folders
from experiments.run.settings import differences, identity_hash

COUNT = "experiment=test/counting"
Galatea = Callable[..., Any]

CONFIG = {
    "task": "t",
    "experiment": "a/b",
    "budget": "cpu",
    "seed": 0,
    "out": None,
    "overwrite": False,
    "threads": None,
    "checkpoint_every": 50,
    "nested": {"x": 1, "y": [1, 2]},
}


def test_identity_is_what_changes_the_result() -> None:
    where = {**CONFIG, "out": "x", "threads": 2, "checkpoint_every": 1, "overwrite": True, "budget": "gpu"}
    assert identity_hash(where) == identity_hash(CONFIG)
    assert differences(CONFIG, where) == []
    other = {**CONFIG, "seed": 1, "nested": {"x": 1, "y": [1, 3], "z": 0}}
    assert identity_hash(other) != identity_hash(CONFIG)
    assert differences(CONFIG, other) == ["nested.y", "nested.z", "seed"]


def test_default_folder(tmp_path: Path) -> None:
    first = folders.choose(CONFIG, base=tmp_path)
    assert first.parent == tmp_path / "t"
    assert first.name.endswith(identity_hash(CONFIG))
    earlier = tmp_path / "t" / f"2020-01-01-{identity_hash(CONFIG)}"
    earlier.mkdir(parents=True)
    assert folders.choose(CONFIG, base=tmp_path) == earlier
    assert folders.choose({**CONFIG, "out": "x"}, one_of_many=True) == Path("x") / identity_hash(CONFIG)


def test_another_run_is_refused_and_untouched(galatea: Galatea, tmp_path: Path) -> None:
    assert galatea(COUNT, "prompt=x", "out=made").status == 0
    before = {path: path.read_bytes() for path in (tmp_path / "made").rglob("*") if path.is_file()}
    outcome = galatea(COUNT, "prompt=y", "optimiser.learning_rate=0.2", "out=made")
    assert outcome.status == 2
    (line,) = outcome.err
    for part in (
        "holds another run",
        "prompt='x' there and 'y' here",
        "optimiser.learning_rate=0.1",
        "overwrite=true",
    ):
        assert part in line
    assert before == {path: path.read_bytes() for path in (tmp_path / "made").rglob("*") if path.is_file()}


def test_finished_continued_and_overwritten(galatea: Galatea, tmp_path: Path) -> None:
    arguments = (COUNT, "prompt=x", "out=made")
    assert galatea(*arguments).status == 0
    made = tmp_path / "made"
    first = (made / "report.json").read_bytes()
    assert "finished already" in galatea(*arguments).err[0]
    assert (made / "report.json").read_bytes() == first
    (made / "mine.txt").write_text("keep me")
    (made / "x.safetensors").unlink()  # an artefact is missing, so the run is not finished
    assert galatea(*arguments).status == 0
    assert (made / "x.safetensors").is_file()
    assert galatea(COUNT, "prompt=y", "out=made", "overwrite=true").status == 0
    assert json.loads((made / "report.json").read_text())["inputs"]["prompt"]["text"] == "y"
    assert (made / "mine.txt").read_text() == "keep me"


@pytest.mark.parametrize("overwrite", ["true", "false"])
def test_foreign_files_are_never_touched(galatea: Galatea, tmp_path: Path, overwrite: str) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "thesis.tex").write_text("years of work")
    outcome = galatea(COUNT, "prompt=x", "out=made", f"overwrite={overwrite}")
    assert outcome.status == 2
    assert "thesis.tex" in outcome.err[0]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        ".gitkeep",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        "._mesh.glb",
        ".nfs0001",
        "lost+found/",
    ],
)
def test_what_systems_put_into_folders_is_no_foreign_file(
    galatea: Galatea, tmp_path: Path, name: str
) -> None:
    made = tmp_path / "made"
    (made / "lost+found" if name.endswith("/") else made).mkdir(parents=True)
    if not name.endswith("/"):
        (made / name).write_bytes(b"kept")
    outcome = galatea(COUNT, "prompt=x", "num_steps=1", "out=made")
    assert outcome.status == 0, outcome.err
    assert (made / name).exists()
    (made / "thesis.tex").write_text("years of work")
    (made / "config.yaml").unlink()
    assert galatea(COUNT, "prompt=x", "num_steps=1", "out=made").status == 2


def test_overwriting_removes_what_a_run_without_a_report_made(galatea: Galatea, tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert galatea(COUNT, "prompt=x", "num_steps=3", "checkpoint_every=1", "out=made").status == 0
    (made / "report.json").unlink()  # as if killed just before it was written
    (made / ".mesh.12345.tmp.glb").write_bytes(b"half")
    (made / "mine.txt").write_text("keep me")
    folders.remove(made)
    assert sorted(path.name for path in made.iterdir()) == [".lock", ".mesh.12345.tmp.glb", "mine.txt"]


def test_a_killed_process_leaves_nothing_half_written_for_long(galatea: Galatea, tmp_path: Path) -> None:
    assert galatea(COUNT, "prompt=x", "fail_at=2", "out=made").status == 130
    (tmp_path / "made" / ".mesh.12345.tmp.glb").write_bytes(b"half")
    assert galatea(COUNT, "prompt=x", "fail_at=2", "out=made").status == 130
    assert not list((tmp_path / "made").glob(".*.tmp*"))


@contextlib.contextmanager
def files_of_at_most(limit: int) -> Iterator[None]:
    """No file can grow beyond `limit` bytes. Python ignores the signal, and the write fails."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("limit", "file"), [(2_000, "checkpoints/step_00000010"), (6_000, "metrics.jsonl")])
def test_a_run_that_finds_no_room_says_where_and_goes_on(
    galatea: Galatea, tmp_path: Path, limit: int, file: str
) -> None:
    arguments = (COUNT, "prompt=x", "num_steps=150", "checkpoint_every=10", "threads=1")
    with files_of_at_most(limit):
        outcome = galatea(*arguments, "out=made")
    assert outcome.status == 2, outcome.err
    (line,) = outcome.err
    assert f"made/{file}: File too large" in line
    assert "the same command goes on" in line
    assert not list((tmp_path / "made" / "checkpoints").glob(".tmp*"))
    outcome = galatea(*arguments, "out=made")
    assert outcome.status == 0
    assert any("continuing made from step" in line for line in outcome.err) == (file == "metrics.jsonl")
    assert galatea(*arguments, "out=whole").status == 0
    for name in ("metrics.jsonl", "x.safetensors"):
        assert (tmp_path / "made" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_damaged_config_is_an_error(galatea: Galatea, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "config.yaml").write_text("a: [")
    outcome = galatea(COUNT, "prompt=x", "out=made")
    assert outcome.status == 2
    assert "config.yaml is damaged" in outcome.err[0]


def test_out_that_cannot_be_written(galatea: Galatea, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    for out in ("file", "file/below"):
        outcome = galatea(COUNT, "prompt=x", f"out={out}")
        assert outcome.status == 2
        assert len(outcome.err) == 1
        assert "cannot write in file" in outcome.err[0]
    assert (tmp_path / "file").read_text() == "a file"


def test_a_failed_start_leaves_no_folder(galatea: Galatea, tmp_path: Path) -> None:
    outcome = galatea(COUNT, "prompt=x", "pause=-1", "out=made")
    assert outcome.status == 2
    assert list(tmp_path.iterdir()) == []
    assert galatea(COUNT, "prompt=x", "out=made").status == 0


def test_two_processes_do_not_share_a_folder(tmp_path: Path, subprocess_environment: dict[str, str]) -> None:
    code = (
        "import sys; from pathlib import Path; from experiments.run.folder import lock\n"
        "try: lock(Path(sys.argv[1]))\nexcept ValueError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "made")]
    with folders.lock(tmp_path / "made"):
        with pytest.raises(UserError, match="another process is working"):
            folders.lock(tmp_path / "made")
        done = subprocess.run(
            command, env=subprocess_environment, capture_output=True, text=True, timeout=120
        )
        assert "another process is working" in done.stdout
    done = subprocess.run(command, env=subprocess_environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == ""


def test_removal_stays_inside_the_folder(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (tmp_path / "victim").write_text("x")
    (made / "config.yaml").write_text("task: t")
    outside = ["../victim", "..", ".", "", "/etc/passwd"]
    (made / "report.json").write_text(
        json.dumps({"artefacts": [{"file": name} for name in [*outside, "mesh.glb"]]})
    )
    (made / ".run.json").write_text(json.dumps({"artefacts": dict.fromkeys([*outside, "mesh.ply"], "mesh")}))
    (made / "mesh.ply").write_text("x")
    (made / "mesh.glb").write_text("x")
    folders.remove(made)
    assert (tmp_path / "victim").is_file()
    assert list(made.iterdir()) == []
