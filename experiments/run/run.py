"""A run: the folder, checkpoints, generators, timing and log of one execution of a task."""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from experiments.errors import RunFailed, UserError
from experiments.run import folder as folders
from experiments.run import inputs, seeding
from experiments.run.checkpoint import Checkpoint, CheckpointStore
from experiments.run.machine import describe_device
from experiments.run.progress import ProgressDisplay
from experiments.run.provenance import media_tags
from experiments.run.settings import Settings
from files.atomic import write_error

T = TypeVar("T")

_SECONDS, _LINES, _NOTES = "run.seconds", "run.metrics_lines", "run.notes"


class Run:
    """What a task works with.

    folder: the run folder. device: torch device. resumed: the newest whole checkpoint, or None for a fresh run.
    reads: files outside the run that it is made from -> the settings that name them. inputs: name ->
    `provenance.describe_text(...)` or `describe_file(...)`. facts: more for provenance and report (backbone id and
    revision). metrics: numbers for the report; may be nested. generated_by_ai: whether a generative model took part in
    what the run made so far: False until the task says otherwise.
    """

    def __init__(self, folder: Path, config: Settings, *, display: ProgressDisplay | None = None) -> None:
        self.folder = folder
        self.config = config
        self.device = seeding.resolve_device(config.device)
        self.display = display or ProgressDisplay()
        self.checkpoints = CheckpointStore(folder / folders.CHECKPOINTS)
        self.resumed: Checkpoint | None = self.checkpoints.latest()
        self.inputs: dict[str, Any] = {}
        self.facts: dict[str, Any] = {"device": describe_device(self.device)}
        self.metrics: dict[str, Any] = {}
        self.generated_by_ai = False
        self.artefacts: dict[str, str] = {}
        self.reads: dict[Path, str] = {}
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self._log: io.FileIO | None = None
        self._lines = 0
        self._phase, self._phase_began = "", 0.0
        if self.resumed is not None:
            self.seconds = json.loads(self.resumed.metadata.get(_SECONDS, "{}"))
            self.notes = json.loads(self.resumed.metadata.get(_NOTES, "[]"))
        self._open_log(int(self.resumed.metadata.get(_LINES, 0)) if self.resumed else 0)

    def _open_log(self, keep: int) -> None:
        """Open metrics.jsonl, cut to the lines that were there when the checkpoint was written."""
        path = self.folder / folders.METRICS
        kept = path.read_bytes().splitlines(keepends=True)[:keep] if path.is_file() else []
        self._lines = len(kept)
        self._log = open(path, "ab", buffering=0)  # noqa: SIM115 (closed in close)
        self._log.truncate(sum(map(len, kept)))

    def generator(self, name: str = "main", device: torch.device | str = "cpu") -> torch.Generator:
        """A generator of its own for the stream `name`; the same run gives the same stream every time."""
        return seeding.make_generator(self.config.seed, name, device)

    def say(self, text: str) -> None:
        """Tell the user something."""
        self.display.say(text)

    def note(self, text: str) -> None:
        """Tell the user, and put it into the report."""
        if text not in self.notes:  # a resumed run says some things again
            self.notes.append(text)
        self.say(text)

    @contextlib.contextmanager
    def phase(self, name: str, steps: int | None = None, done: int = 0) -> Iterator[None]:
        """Time a part of the run and show its progress. `done` steps lie behind a resumed phase."""
        self.begin_phase(name, steps, done)
        yield
        self.end_phase()

    def collect(self, name: str, items: Iterable[T], count: int) -> list[T]:
        """All of `count` items that are made one by one, as a phase of the run."""
        found = []
        with self.phase(name, count):
            for item in items:
                found.append(item)
                self.display.update(len(found), {})
        return found

    def begin_phase(self, name: str, steps: int | None = None, done: int = 0) -> None:
        """As `phase`, for loops that tell of their parts by a callback."""
        if self._phase:
            self.end_phase()
        self._phase, self._phase_began = name, time.monotonic()
        self.display.begin(name, steps, done)

    def end_phase(self) -> None:
        """The current phase is done."""
        if self._phase:
            self._count_seconds()
            self._phase = ""
            self.display.end()

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._phase_began
        self._phase_began = now

    def log(self, step: int, metrics: Mapping[str, float] | None = None, **more: float) -> None:
        """`step` steps of the current phase are done; write the metrics to metrics.jsonl and show them.

        A metric that is not finite stops the run.
        """
        values = {name: float(value) for name, value in {**(metrics or {}), **more}.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise RunFailed(
                    f"{name} is {value} in phase {self._phase or 'run'!r} at step {step}; {self.kept()}"
                )
        assert self._log is not None
        line = (json.dumps({"phase": self._phase, "step": step, **values}) + "\n").encode()
        try:
            # On a disk that is nearly full a part of it is written, and the rest is refused.
            while line:
                line = line[self._log.write(line) :]
        except OSError as error:
            raise write_error(error, self.folder / folders.METRICS, f"{len(line):,} bytes") from error
        self._lines += 1
        self.display.update(step, values)

    def kept(self) -> str:
        """What a run that stops now leaves to go on from."""
        steps = self.checkpoints.steps()
        return f"the checkpoint of step {steps[-1]} is kept" if steps else "there was no checkpoint yet"

    def save(
        self, step: int, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a checkpoint that this run can be continued from. `step` counts all steps of the run."""
        if self._phase:
            self._count_seconds()
        own = {_SECONDS: json.dumps(self.seconds), _LINES: str(self._lines), _NOTES: json.dumps(self.notes)}
        self.checkpoints.save(step, tensors, {**(metadata or {}), **own})

    def made_with(self, what: str, digest: str) -> None:
        """Record the SHA-256 of weights that this run's results come from, or compare it with the one recorded.

        Raises:
            UserError: the run was begun with other weights, and results of both would be mixed; or the record of
                them is damaged.
        """
        if folders.read_record(self.folder).inputs.get(what, digest) != digest:
            raise UserError(inputs.changed(what, self.folder))
        folders.remember(self.folder, inputs={what: digest})

    def artefact(self, name: str, *, kind: str) -> Path:
        """Name a file in the run folder as a result; returns its path. It must be there when the task ends.

        Raises:
            UserError: the run reads that very file.
        """
        if Path(name).name != name:
            raise ValueError(f"artefact {name!r} is no plain file name")
        path = self.folder / name
        if path.resolve() in self.reads:
            key = self.reads[path.resolve()]
            raise UserError(f"{key}: {path} is a file that this run would write; choose another out=DIR")
        self.artefacts[name] = kind
        folders.remember(self.folder, artefacts={name: kind})
        return path

    def media_tags(self, prompt: str | None = None) -> dict[str, str]:
        """Metadata for the container of a video that the run writes: what made it, and from what."""
        return media_tags(
            generated_by_ai=self.generated_by_ai,
            seed=self.config.seed,
            backbone=self.facts.get("backbone"),
            prompt=prompt,
        )

    def close(self) -> None:
        """Close the log and give the terminal back."""
        if self._log is not None:
            self._log.close()
            self._log = None
        self.display.close()
