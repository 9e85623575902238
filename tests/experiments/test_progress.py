from __future__ import annotations

import io

import pytest

from experiments.run import progress
from experiments.run.progress import ProgressDisplay, format_metrics


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    display = ProgressDisplay(stream)
    display.begin("fit", 10)
    display.update(5, {"psnr": 20.0, "loss": 0.125})
    assert display.where() == "fit, step 5 of 10"
    display.end()
    display.say("[red]done[/red]")
    display.close()
    first, second, third = stream.getvalue().splitlines()
    assert first.startswith("fit  5/10  loss 0.125  psnr 20")
    assert first.endswith("s left")
    assert second.startswith("fit")
    assert third == "[red]done[/red]"


def test_time_left_of_a_resumed_stage_counts_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    display = ProgressDisplay(stream)
    display.begin("fit", 1000, done=900)
    display.update(910, {"loss": 1.0})  # 10 steps took 20 s
    assert stream.getvalue().strip().endswith("about 180 s left")


def test_few_lines_in_a_log() -> None:
    stream = io.StringIO()
    display = ProgressDisplay(stream)
    display.begin("fit", 1000)
    for step in range(1, 1001):
        display.update(step, {"loss": 1.0})
    assert stream.getvalue() == ""


def test_bar_in_a_terminal_takes_any_text() -> None:
    stream = Terminal()
    display = ProgressDisplay(stream)
    display.begin("fit", 10, done=3)
    display.update(4, {"loss": 0.5})
    display.say("a [bold]prompt[/bold] [/] \U0001f344")
    display.end()
    display.begin("texture", None)
    display.close()
    assert "a [bold]prompt[/bold] [/] \U0001f344" in stream.getvalue()
    assert display.where() == "texture"


def test_the_loss_comes_first() -> None:
    assert format_metrics({"a": 1.0, "b": 2.0, "loss": 3.0, "c": 4.0}) == "loss 3  a 1  b 2"
    assert format_metrics({}) == ""
