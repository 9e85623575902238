"""A home that cannot be written: caches move at the start, and the user is told once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.run import caches

VARIABLES = ("WARP_CACHE_PATH", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "HF_HOME")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cache folders as Linux has them")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for homes and temporary files, and none of the variables set."""
    for name in (*VARIABLES, "XDG_CACHE_HOME"):
        # Set first, so that what `prepare` sets is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


def test_a_home_that_can_be_written_is_left_alone(
    places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(places / "home"))  # it can be made
    caches.prepare()
    assert not any(name in os.environ for name in VARIABLES)
    assert capsys.readouterr().err == ""
    assert not (places / "home").exists()


@pytest.mark.parametrize("home", ["file/home", "file", None])
def test_a_home_that_cannot_be_written(
    places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: str | None
) -> None:
    if home is None:
        monkeypatch.setattr(
            caches, "_user_caches", lambda: Path("~/.cache")
        )  # a user that the system has no home for
    else:
        monkeypatch.setenv("HOME", str(places / home))
    caches.prepare()
    (line,) = capsys.readouterr().err.splitlines()
    folder = places / "tmp" / f"galatea-cache-{os.getuid()}"
    assert "cannot be written" in line
    assert str(folder) in line
    assert {os.environ[name] for name in VARIABLES} == {
        str(folder / name) for name in ("warp", "numba", "matplotlib", "huggingface")
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    caches.prepare()  # children inherit the variables, and are silent
    assert capsys.readouterr().err == ""


def test_only_what_cannot_be_written_moves(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(places / "file"))
    monkeypatch.setenv("WARP_CACHE_PATH", str(places / "own"))
    downloaded = places / "models"
    downloaded.mkdir()
    monkeypatch.setenv("HF_HOME", str(downloaded))
    monkeypatch.setattr(os, "access", lambda path, *_: Path(path) != downloaded)  # root may write everywhere
    caches.prepare()
    assert os.environ["WARP_CACHE_PATH"] == str(places / "own")
    assert os.environ["HF_HOME"] == str(downloaded), "models that are there can still be read"
    assert "galatea-cache" in os.environ["NUMBA_CACHE_DIR"]


def test_a_folder_of_others_is_not_used(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(places / "file"))
    foreign = places / "tmp" / f"galatea-cache-{os.getuid()}"
    foreign.mkdir()
    foreign.chmod(0o777)
    caches.prepare()
    assert Path(os.environ["WARP_CACHE_PATH"]).parent != foreign
    foreign.rmdir()
    foreign.symlink_to(places)
    monkeypatch.delenv("WARP_CACHE_PATH")
    caches.prepare()
    assert Path(os.environ["WARP_CACHE_PATH"]).parent not in (foreign, places)


def test_no_temporary_folder_either(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(places / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(places / "file"))
    with pytest.raises(UserError, match="XDG_CACHE_HOME=FOLDER"):
        caches.prepare()


def test_a_mesh_is_rendered_without_a_home(tmp_path: Path, subprocess_environment: dict[str, str]) -> None:
    """Warp compiles into the temporary folder, and is silent about the GPU that is not there."""
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "tmp").mkdir()
    code = (
        "from experiments.run import caches; caches.prepare()\n"
        "import torch; from gen3d.render.rasterize import rasterize\n"
        "clip = torch.tensor([[[-1.0, -1, 0, 1], [1, -1, 0, 1], [0, 1, 0, 1]]])\n"
        "print(int((rasterize(clip, torch.tensor([[0, 1, 2]]), 8, 8).face_id >= 0).sum()))\n"
    )
    environment = {
        **{k: v for k, v in subprocess_environment.items() if k not in (*VARIABLES, "XDG_CACHE_HOME")},
        "HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "tmp"), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert list((tmp_path / "tmp").glob("galatea-cache-*/warp/*"))
