"""The loop that trains every part of `tiny`: AdamW, an averaged copy of the weights, exact resume.

A recipe owns the modules and says what a step's loss is and how the averaged weights are judged; the loop owns the
optimiser, the schedule of its rate, and checkpoints that hold all of it with the state of the random stream.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from experiments.run.run_dir import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """How long and how fast to learn.

    learning_rate: the peak; it rises over ``warmup`` steps and falls to a twentieth along a cosine.
    ema_decay: of the averaged weights, which are what is kept. bf16: autocast of the forward pass.
    validate_every: steps between held-out measurements (and at the end).
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    ema_decay: float = 0.998
    bf16: bool = True
    validate_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must be in [0, 1)")

    def rate(self, step: int) -> float:
        """Learning rate of ``step``, counted from 0."""
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        fall = 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))
        return self.learning_rate * rise * (0.05 + 0.95 * fall)


class Recipe(Protocol):
    """What is trained. ``modules`` is all that has weights; ``validate`` is called with averaged weights in place."""

    modules: nn.ModuleDict

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]: ...

    def validate(self) -> dict[str, float]: ...


def train(run: Run, recipe: Recipe, config: LoopConfig, *, generator: torch.Generator) -> dict[str, float]:
    """Train to ``config.steps``, continuing ``run.resumed`` exactly; leaves the averaged weights in the modules.

    Returns the last held-out measurement.
    """
    weights = {name: p for name, p in recipe.modules.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
    )
    average = {name: p.detach().clone() for name, p in weights.items()}
    first, measured = 0, {}
    if run.resumed is not None:
        first = run.resumed.step
        measured = json.loads(run.resumed.metadata.get("measured", "{}"))
        _restore(run.resumed.tensors, weights, average, optimizer, generator)

    device_type = run.device.type
    run.begin_stage("train", config.steps, first)
    for step in range(first, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step)
        recipe.modules.train()
        with torch.autocast(device_type, torch.bfloat16, enabled=config.bf16):
            loss, metrics = recipe.loss(config.batch_size, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), config.grad_clip)
        optimizer.step()
        done = step + 1
        # Early on a long memory would average in the random start.
        decay = min(config.ema_decay, done / (done + 10))
        with torch.no_grad():
            for name, p in weights.items():
                average[name].lerp_(p, 1 - decay)
        run.log(done, {"loss": float(loss.detach()), "grad_norm": float(norm), **metrics})
        if done % config.validate_every == 0 or done == config.steps:
            with averaged(weights, average):
                recipe.modules.eval()
                measured = recipe.validate()
            run.note(f"step {done}: " + ", ".join(f"{k} {v:.4g}" for k, v in measured.items()))
        if done % run.config.checkpoint_every == 0 or done == config.steps:
            run.save(done, _state(weights, average, optimizer, generator), {"measured": json.dumps(measured)})
    run.end_stage()
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(average[name])
    recipe.modules.eval()
    return measured


@contextmanager
def averaged(weights: dict[str, nn.Parameter], average: dict[str, Tensor]) -> Iterator[None]:
    """The averaged weights in place of the trained ones, for as long as the block lasts."""
    kept = {name: p.detach().clone() for name, p in weights.items()}
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(average[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, p in weights.items():
                p.copy_(kept[name])


def _state(
    weights: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    state = {f"weights.{name}": p.detach() for name, p in weights.items()}
    state |= {f"average.{name}": value for name, value in average.items()}
    for name, p in weights.items():
        state |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state[p].items()}
    return state | {"generator": generator.get_state()}


def _restore(
    state: dict[str, Tensor],
    weights: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(state[f"weights.{name}"])
            average[name].copy_(state[f"average.{name}"])
            prefix = f"optimizer.{name}."
            optimizer.state[p] = {
                key.removeprefix(prefix): value.clone() if value.ndim == 0 else value.to(p.device)
                for key, value in state.items()
                if key.startswith(prefix)
            }
    generator.set_state(state["generator"])
