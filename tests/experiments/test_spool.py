from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from experiments.run.spool import as_typed, spooled

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")


def test_files_folders_and_missing_names_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    for name in ("a.png", ".", "missing.png", "null\x00.png"):
        assert spooled(tmp_path / name) == tmp_path / name
    assert spooled("~/a.png") == Path("~/a.png").expanduser()
    assert as_typed(f"{tmp_path / 'a.png'} is bad", tmp_path / "a.png") == f"{tmp_path / 'a.png'} is bad"


@posix
def test_a_pipe_can_be_read_as_often_as_wanted(tmp_path: Path) -> None:
    pipe, data = tmp_path / "speech.wav", os.urandom(300_000)
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    copy = spooled(pipe)
    writer.join()
    assert copy.name == "speech.wav"
    assert copy.read_bytes() == copy.read_bytes() == data
    assert spooled(str(pipe)) == copy
    assert as_typed(f"{copy} is no sound", pipe) == f"{pipe} is no sound"


@posix
def test_the_copy_is_gone_when_the_process_ends() -> None:
    code = "from experiments.run.spool import spooled; print(spooled('/dev/stdin'), spooled('/dev/stdin').read_text())"
    done = subprocess.run(
        [sys.executable, "-c", code], input="abc", text=True, capture_output=True, check=True
    )
    copy, content = done.stdout.split()
    assert content == "abc"
    assert not Path(copy).parent.exists()
