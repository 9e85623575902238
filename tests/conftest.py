"""What all tests share: deterministic hypothesis, and the command line in this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
TEST_CONFIGS = ROOT / "tests" / "experiments" / "configs"

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50, print_blob=True)
settings.load_profile("ci")


@dataclass(frozen=True)
class Outcome:
    """How a command line ended: exit status, standard output, and the lines of standard error."""

    status: int
    out: str
    err: list[str]


@pytest.fixture(scope="session")
def tiny_weights() -> Path:
    """The folder of the embedded model; the test is skipped where it is not there yet."""
    folder = ROOT / "diffusion" / "weights" / "tiny"
    if not (folder / "model_index.json").is_file():
        pytest.skip("the embedded model is not in this checkout")
    return folder


@pytest.fixture
def galatea(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """Run `galatea` in this process and in an empty folder, with the small test task added."""
    import torch

    from experiments import tasks
    from experiments.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(tasks.TASKS, "counting", "tests.experiments.counting")
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()

    def call(*arguments: str, own_configs: bool = True) -> Outcome:
        extra = ["--config-dir", str(TEST_CONFIGS)] if own_configs else []
        capsys.readouterr()
        status = main([*extra, *arguments])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err.splitlines())

    yield call
    # A run sets torch's global switches; the next test should not notice.
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT interrupts, here and in child processes: a script starts its background jobs with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def subprocess_environment() -> dict[str, str]:
    """Environment in which a child process imports this checkout."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}
