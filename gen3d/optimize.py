"""The resumable loop that runs stages one after another.

A run is a list of stages over one State. What is saved (state tensors, generator, stage and step) is everything the
next step depends on: a run resumed from any save goes on exactly as the unbroken one would have.
"""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

import torch
from torch import Tensor

from diffusion.finite import NonFiniteError
from gen3d.state import State

__all__ = ["NonFiniteError", "Progress", "Saved", "Stage", "State", "optimize"]

Saved = tuple[Mapping[str, Tensor], Mapping[str, str]]
SaveFunction = Callable[[int, dict[str, Tensor], dict[str, str]], None]
_GENERATOR = "loop/generator"


class Stage(Protocol):
    """One part of a recipe. It keeps nothing that changes: all of that is in the State."""

    @property
    def name(self) -> str: ...

    @property
    def num_steps(self) -> int: ...

    def start(self, state: State, generator: torch.Generator) -> None:
        """Called once, before the first step."""
        ...

    def step(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        """Do step ``step`` (from 0); the metrics returned hold at least ``loss``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What just happened. ``step`` of ``stage_steps`` steps of this stage are done, ``total_step`` of
    ``total_steps`` over all stages."""

    stage: str
    stage_index: int
    num_stages: int
    step: int
    stage_steps: int
    total_step: int
    total_steps: int
    loss: float
    metrics: dict[str, float] = field(default_factory=dict)


def optimize(
    stages: Sequence[Stage],
    state: State,
    *,
    generator: torch.Generator,
    on_step: Callable[[Progress], None] | None = None,
    save: SaveFunction | None = None,
    checkpoint_every: int = 100,
    resume: Saved | None = None,
) -> State:
    """Run ``stages`` on ``state`` and return the final state.

    ``save(total_step, tensors, metadata)`` is called every ``checkpoint_every`` steps, when a stage ends and on
    Ctrl-C; the tensors are copies. ``resume`` is a ``(tensors, metadata)`` pair as it was saved: ``state`` is then
    ignored and ``generator`` is put back to where it was.

    Ctrl-C (in the main thread) waits for the step's end, saves and raises ``KeyboardInterrupt``; a second one raises
    at once and saves nothing. NaN or infinity in a metric or a tensor raises ``NonFiniteError`` and saves nothing.
    """
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be at least 1 step, got {checkpoint_every}")
    plan = json.dumps([[stage.name, stage.num_steps] for stage in stages])
    index, step = 0, 0
    if resume is not None:
        state, index, step = _restore(resume, plan, generator)
    total_steps = sum(stage.num_steps for stage in stages)
    total = sum(stage.num_steps for stage in stages[:index]) + step

    def checkpoint() -> None:
        if save is not None:
            tensors = state.tensors()
            tensors[_GENERATOR] = generator.get_state().clone()
            save(total, tensors, {"plan": plan, "stage_index": str(index), "step": str(step)})

    with _interrupt_between_steps() as interrupted:
        while index < len(stages):
            stage = stages[index]
            if step == 0:
                with _naming(stage, 0):
                    stage.start(state, generator)
                _check(state, {}, stage.name, 0)
            while step < stage.num_steps:
                with _naming(stage, step + 1):
                    metrics = stage.step(state, step, generator)
                step, total = step + 1, total + 1
                _check(state, metrics, stage.name, step)
                progress = Progress(
                    stage=stage.name,
                    stage_index=index,
                    num_stages=len(stages),
                    step=step,
                    stage_steps=stage.num_steps,
                    total_step=total,
                    total_steps=total_steps,
                    loss=metrics["loss"],
                    metrics=metrics,
                )
                try:
                    if on_step is not None:
                        on_step(progress)
                    if interrupted():
                        raise KeyboardInterrupt
                except KeyboardInterrupt:
                    checkpoint()
                    raise
                if total % checkpoint_every == 0 and step < stage.num_steps:
                    checkpoint()
            index, step = index + 1, 0
            checkpoint()
    return state


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
