"""What a run tells the terminal: a bar with phase, step, loss and time left, or plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Without a terminal a line is printed at most this often, and at the end of each phase.
SECONDS_BETWEEN_LINES = 10.0


def format_metrics(metrics: Mapping[str, float], limit: int = 3) -> str:
    """'loss 0.0123  psnr 21.4': the loss first, then the first few others."""
    names = sorted(metrics, key=lambda name: (name != "loss", list(metrics).index(name)))
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in names[:limit])


class ProgressDisplay:
    """One display per run. `steps` of a phase may be unknown (None): then only time is shown."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._name, self._steps = "", None
        self._started = self._last_line = 0.0
        self._step = self._first = 0
        if self.stream.isatty():
            console = Console(file=self.stream)
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[metrics]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._bar.start()

    def say(self, text: str) -> None:
        """Print a line above the bar. The text is never read as markup: it may be a prompt."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self.stream, flush=True)

    def begin(self, name: str, steps: int | None, done: int = 0) -> None:
        """A phase begins (or, after a resume, goes on with `done` steps behind it)."""
        self._name, self._steps, self._step, self._first = name, steps, done, done
        self._started = self._last_line = time.monotonic()
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(name, total=steps or 1, completed=done, metrics="")

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """`step` steps of the phase are done."""
        self._step = step
        shown = format_metrics(metrics)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, metrics=shown)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            total = f"/{self._steps}" if self._steps else ""
            left = ""
            if self._steps and step > self._first:
                # Steps of an earlier process took none of this one's time.
                pace = (now - self._started) / (step - self._first)
                left = f"  about {pace * (self._steps - step):.0f} s left"
            self.say(f"{self._name}  {step}{total}  {shown}{left}")

    def end(self) -> None:
        """The phase is done."""
        seconds = time.monotonic() - self._started
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        self.say(f"{self._name:<12} {seconds:6.1f} s")

    def where(self) -> str:
        """'fit, step 120 of 400': for the line printed when the run is stopped."""
        if not self._name:
            return "the start"
        return f"{self._name}, step {self._step} of {self._steps}" if self._steps else self._name

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
