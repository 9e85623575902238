"""Making each asset in a process and a run folder of its own, as a user at the command line would.

So seconds and peak memory are of that asset alone, one that fails takes no other with it, and a finished one is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.benchmark.cases import Case
from experiments.errors import EXIT_OK, EXIT_USAGE, one_line
from experiments.run import folder as folders
from experiments.run.files import write_json
from experiments.run.provenance import SOURCE

MESH = "mesh.glb"
_GRACE = 30.0
_LOOK = 0.2  # seconds between looks whether to stop


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One finished or failed asset. report: its report.json; reason: why there is none.

    refused: it failed before any work. wall_seconds: how long the whole process took, start of Python included; None
    when it
    took more than one attempt.
    """

    folder: Path
    report: dict[str, Any] | None = None
    reason: str = ""
    refused: bool = False
    wall_seconds: float | None = None

    @property
    def psnr_db(self) -> float | None:
        """PSNR of the picture rendered from mesh.glb against the one of the mesh that was exported."""
        found = (self.report or {}).get("metrics", {}).get("rerender_psnr_db")
        if isinstance(found, dict):
            found = found.get("glb", found.get(MESH))
        if isinstance(found, dict):
            found = found.get("psnr")
        return float(found) if isinstance(found, (int, float)) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """An asset to make: of a caption, with settings as typed at the command line, in OUT/assets/NNN."""

    case: Case
    out: Path
    settings: tuple[str, ...]
    method: str = ""

    @property
    def label(self) -> str:
        """What the terminal calls it."""
        return " ".join(filter(None, [self.method, f"{self.case.index:03d}"]))


def asset_folder(out: Path, case: Case) -> Path:
    return out / "assets" / f"{case.index:03d}"


def forget_assets(out: Path) -> None:
    """Remove what earlier runs made in OUT/assets, so that all assets are made again."""
    for folder in sorted((out / "assets").glob("*")):
        if folder.is_dir() and folders.read_config(folder) is not None:
            with FileLock(folder / folders.LOCK):
                folders.remove(folder)


def forget_refused(asset: Asset) -> None:
    """Remove the little that an asset left which failed before any work."""
    asset.folder.with_suffix(".log").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others are there
        asset.folder.parent.rmdir()


def make_assets(jobs: Sequence[Job], *, at_once: int = 1) -> Generator[Asset, None, None]:
    """An asset for each of `jobs`, in their order, of which `at_once` are made at a time.

    The first is made alone, for what is wrong with the settings is wrong for all. Closing the iterator stops what is
    at work, and leaves what it can be continued from.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(at_once)
    try:
        for some in (jobs[:1], jobs[1:]):
            yield from pool.map(lambda job: make_asset(job.case, job.out, job.settings, stop), some)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def make_asset(case: Case, out: Path, settings: Sequence[str], stop: threading.Event) -> Asset:
    """Run `galatea SETTINGS prompt=CAPTION out=OUT/assets/NNN`, unless it is done; never raises for its failure.

    What the process prints is in OUT/assets/NNN.log. `stop` ends it.
    """
    folder = asset_folder(out, case)
    record = folder.with_suffix(".json")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir():
        # A benchmark that was killed may have left its last asset's process at work: let it finish.
        _wait_for(folder, stop)
    fresh = not (folder / folders.CONFIG).exists()
    if _is_done(folder, case):
        return _read(folder, record)
    record.unlink(missing_ok=True)
    arguments = [*settings, f"prompt={case.caption}", f"out={folder}"]
    began = time.monotonic()
    status = run_galatea(arguments, folder.with_suffix(".log"), stop)
    seconds = time.monotonic() - began
    if status == EXIT_OK and _is_done(folder, case):
        write_json(record, {"wall_seconds": round(seconds, 3) if fresh else None})
        return _read(folder, record)
    refused = status == EXIT_USAGE and not (folder / folders.CONFIG).exists()
    return Asset(folder=folder, reason=reason_of(status, folder.with_suffix(".log")), refused=refused)


def _is_done(folder: Path, case: Case) -> bool:
    config = folders.read_config(folder)
    return (
        config is not None
        and config.get("prompt") == case.caption
        and folders.finished(folder)
        and (folder / MESH).is_file()
    )


def _read(folder: Path, record: Path) -> Asset:
    report = json.loads((folder / folders.REPORT).read_text(encoding="utf-8"))
    try:
        seconds = json.loads(record.read_text(encoding="utf-8"))["wall_seconds"]
    except (OSError, ValueError, KeyError):
        seconds = None
    return Asset(folder=folder, report=report, wall_seconds=seconds)


def _wait_for(folder: Path, stop: threading.Event) -> None:
    """Until no other process works in `folder`."""
    while not stop.is_set():
        with contextlib.suppress(Timeout), FileLock(folder / folders.LOCK, timeout=_LOOK):
            return


def run_galatea(arguments: Sequence[str], log: Path, stop: threading.Event) -> int:
    """The exit status of a `galatea` process, whose output goes to `log`; negative when a signal ended it. `stop`
    ends it."""
    # The working folder, where relative paths count from, must not hide our own packages.
    path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments", *arguments],
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
        while not stop.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_LOOK)
        process.terminate()
        try:
            return process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def reason_of(status: int, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = next(
        (line for line in reversed(lines) if line.startswith("galatea: ")), lines[-1] if lines else ""
    )
    how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return one_line(f"{how}: {said.removeprefix('galatea: ')}" if said else how, 300)
