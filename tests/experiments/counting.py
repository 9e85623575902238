"""A small real task for tests of the shell: fit a vector by noisy gradient steps, with checkpoints."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from safetensors.torch import save

from experiments.run.provenance import describe_text
from experiments.run.run import Run
from experiments.run.settings import Settings, Text
from files.atomic import atomic_path


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    learning_rate: float = 0.1
    kind: Literal["sgd", "adam"] = "sgd"

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    prompt: Text
    negative_prompt: Text = ""
    num_steps: int = 20
    target: tuple[float, float, float] = (1.0, 2.0, 3.0)
    optimiser: Optimiser = field(default_factory=Optimiser)
    extra: Any = None
    fail_at: int | None = None
    nan_at: int | None = None
    pause: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompt.strip():
            raise ValueError("prompt is empty")
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}; it must be at least 1")


def run(config: Config, run: Run) -> None:
    run.inputs["prompt"] = describe_text(config.prompt)
    generator = run.generator("noise")
    x, done = torch.zeros(3), 0
    if run.resumed is not None:
        x, done = run.resumed.tensors["x"], run.resumed.step
        generator.set_state(run.resumed.tensors["rng"])
    target = torch.tensor(config.target)
    with run.phase("fit", config.num_steps, done):
        for step in range(done + 1, config.num_steps + 1):
            error = x - target + 0.01 * torch.randn(3, generator=generator)
            x = x - config.optimiser.learning_rate * error
            if step == config.fail_at:
                raise KeyboardInterrupt
            loss = float("nan") if step == config.nan_at else float(error.square().sum())
            run.log(step, loss=loss)
            if step % config.checkpoint_every == 0:
                run.save(step, {"x": x, "rng": generator.get_state()})
            time.sleep(config.pause)
    with atomic_path(run.artefact("x.safetensors", kind="weights")) as path:
        path.write_bytes(save({"x": x}))
    run.metrics["error"] = float((x - target).abs().max())
