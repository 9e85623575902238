"""The resumable loop that runs stages one after another.

A run is a list of stages over one State. What is saved (state tensors, generator, stage and step) is everything the
next step depends on: a run resumed from any save goes on exactly as the unbroken one would have.
"""

from __future__ import annotations

import json
import math
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor

from diffusion.finite import NonFiniteError
from gen3d.adam import GROUP, Adam, adam_step, gradients_of
from gen3d.state import State

Saved = tuple[Mapping[str, Tensor], Mapping[str, str]]
SaveFunction = Callable[[int, dict[str, Tensor], dict[str, str]], None]
_GENERATOR = "loop/generator"


class Fit(ABC):
    """A part of a recipe that takes `num_steps` steps of Adam on tensors of the State.

    A fit says what its losses are; `optimize` alone sums them, runs backward, reduces over processes, clips and steps.
    It keeps nothing that changes: all of that is in the State.
    """

    name: str
    num_steps: int
    optimizer: Adam = Adam()

    def start(self, state: State, generator: torch.Generator) -> None:  # noqa: B027
        """Called once, before the first step."""

    def before(self, state: State, step: int, generator: torch.Generator) -> None:  # noqa: B027
        """Prepare step `step` (from 0) without gradients: new views, a new list of what is empty."""

    @abstractmethod
    def rates(self, state: State, step: int) -> dict[str, float]:
        """The learning rate of each tensor of the State that learns in this step."""

    @abstractmethod
    def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars by name, weighted: their sum is what is lowered. The tensors of `rates` require gradients here."""

    def after(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        """What the step's end asks for (a colour put back into its range), without gradients; further metrics. The
        tensors of `rates` still have the step's gradients here."""
        return {}


class Transform(ABC):
    """A part of a recipe that changes the State at once: a mesh from a field, its texture."""

    name: str

    @abstractmethod
    def apply(self, state: State, generator: torch.Generator) -> dict[str, float]:
        """Change the state, without gradients unless the transform asks for them itself; returns metrics."""


Stage = Fit | Transform
# Gradients by the tensor's name, made in place into what all processes together have.
Reduce = Callable[[Mapping[str, Tensor]], None]


def steps_of(stage: Stage) -> int:
    """How many steps of the loop a stage takes; a transform is one."""
    return stage.num_steps if isinstance(stage, Fit) else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What just happened: `step` of `stage_steps` steps of stage `stage_index` (from 0) are done."""

    stage_index: int
    step: int
    stage_steps: int
    metrics: dict[str, float]


def optimize(
    stages: Sequence[Stage],
    state: State,
    *,
    generator: torch.Generator,
    on_step: Callable[[Progress], None] | None = None,
    save: SaveFunction | None = None,
    checkpoint_every: int = 100,
    resume: Saved | None = None,
    reduce: Reduce | None = None,
) -> State:
    """Run `stages` on `state` and return the final state.

    `save(total_step, tensors, metadata)` is called every `checkpoint_every` steps, when a stage ends and on
    Ctrl-C; the tensors are copies. `resume` is a `(tensors, metadata)` pair as it was saved: `state` is then
    ignored and `generator` is put back to where it was. `reduce` is given the gradients of each step where several
    processes share the work.

    Ctrl-C (in the main thread) waits for the step's end, saves and raises `KeyboardInterrupt`; a second one raises
    at once and saves nothing. NaN or infinity in a metric or a tensor raises `NonFiniteError` and saves nothing.
    """
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be at least 1 step, got {checkpoint_every}")
    plan = json.dumps([[stage.name, steps_of(stage)] for stage in stages])
    index, step = 0, 0
    if resume is not None:
        state, index, step = _restore(resume, plan, generator)
    total = sum(steps_of(stage) for stage in stages[:index]) + step

    def checkpoint() -> None:
        if save is not None:
            tensors = state.tensors()
            tensors[_GENERATOR] = generator.get_state().clone()
            save(total, tensors, {"plan": plan, "stage_index": str(index), "step": str(step)})

    with _interrupt_between_steps() as interrupted:
        while index < len(stages):
            stage = stages[index]
            num_steps = steps_of(stage)
            if step == 0 and isinstance(stage, Fit):
                with _naming(stage, 0):
                    stage.start(state, generator)
                _check(state, {}, stage.name, 0)
            while step < num_steps:
                metrics = take_step(stage, state, step, generator, reduce)
                step, total = step + 1, total + 1
                progress = Progress(stage_index=index, step=step, stage_steps=num_steps, metrics=metrics)
                try:
                    if on_step is not None:
                        on_step(progress)
                    if interrupted():
                        raise KeyboardInterrupt
                except KeyboardInterrupt:
                    checkpoint()
                    raise
                if total % checkpoint_every == 0 and step < num_steps:
                    checkpoint()
            if isinstance(stage, Fit):
                state.drop(GROUP)  # another fit begins with moments of its own
            index, step = index + 1, 0
            checkpoint()
    return state


def take_step(
    stage: Stage, state: State, step: int, generator: torch.Generator, reduce: Reduce | None = None
) -> dict[str, float]:
    """One step of the loop, `step` from 0, on a state that `Fit.start` has prepared; its metrics. NaN or infinity in
    them or in a tensor raises `NonFiniteError`."""
    with _naming(stage, step + 1):
        if isinstance(stage, Fit):
            metrics = _fit_step(stage, state, step, generator, reduce)
        else:
            metrics = stage.apply(state, generator)
    _check(state, metrics, stage.name, step + 1)
    return metrics


def _fit_step(
    fit: Fit, state: State, step: int, generator: torch.Generator, reduce: Reduce | None
) -> dict[str, float]:
    with torch.no_grad():
        fit.before(state, step, generator)
    rates = fit.rates(state, step)
    for name in rates:
        state[name].requires_grad_(True)
    losses = fit.losses(state, step, generator)
    loss = torch.stack(list(losses.values())).sum()
    loss.backward()
    if reduce is not None:
        reduce(gradients_of(state, rates))
    adam_step(state, rates, fit.optimizer)
    for name in rates:
        state[name].requires_grad_(False)
    with torch.no_grad():
        more = fit.after(state, step, generator)
    for name in rates:
        state[name].grad = None
    return {"loss": float(loss.detach()), **{k: float(v.detach()) for k, v in losses.items()}, **more}


def _restore(resume: Saved, plan: str, generator: torch.Generator) -> tuple[State, int, int]:
    tensors, metadata = dict(resume[0]), resume[1]
    missing = [key for key in ("plan", "stage_index", "step") if key not in metadata]
    if missing or _GENERATOR not in tensors:
        raise ValueError(f"this is no saved run of the loop: it lacks {missing or [_GENERATOR]}; start anew")
    if metadata["plan"] != plan:
        raise ValueError(
            f"the saved run has other stages [name, steps] than asked for: saved {metadata['plan']}, now {plan}; "
            "use the settings it was started with, or another folder"
        )
    generator.set_state(tensors.pop(_GENERATOR).clone())
    return State.from_tensors(tensors), int(metadata["stage_index"]), int(metadata["step"])


@contextmanager
def _naming(stage: Stage, step: int) -> Iterator[None]:
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(f"stage {stage.name!r}, step {step}: {error}") from error


def _check(state: State, metrics: Mapping[str, float], stage: str, step: int) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NonFiniteError(f"stage {stage!r}, step {step}: metric {name!r} is {value}")
    try:
        state.check_finite()
    except NonFiniteError as error:
        raise NonFiniteError(f"stage {stage!r}, step {step}: {error}") from error


@contextmanager
def _interrupt_between_steps() -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C, so that no step is cut in half; yields a function that tells of it."""
    asked = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler:
        # The application has its own way of being interrupted.
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, previous)
