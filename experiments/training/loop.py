"""The loop that trains every part of `tiny`: an averaged copy of the weights, exact resume, several processes.

A recipe owns the modules and says what a step's loss is and how the averaged weights are judged; the loop owns the
optimiser, the schedule of its rate, and checkpoints that hold all of it with the state of the random stream.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from diffusion.finite import NonFiniteError
from experiments.run.run import Run
from experiments.training.config import LoopConfig
from experiments.training.cuda_graphs import CudaGraphs, Drawing
from experiments.training.optimizers import Optimizers
from experiments.training.parallel import Group, group, launched


class Recipe(Protocol):
    """What is trained. `modules` is all that has weights; `validate` is called with averaged weights in place."""

    modules: nn.ModuleDict

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]: ...

    def validate(self) -> dict[str, float]: ...


@runtime_checkable
class Paced(Protocol):
    """A recipe whose loss changes with the steps: it is told each, counted from 0, before its loss is asked for."""

    def begin(self, step: int) -> None: ...


class _Learner:
    """The weights of a recipe on their way: what every process of a training does alike."""

    def __init__(self, recipe: Recipe, config: LoopConfig, generator: torch.Generator) -> None:
        self.recipe, self.config, self.generator = recipe, config, generator
        self.weights = {name: p for name, p in recipe.modules.named_parameters() if p.requires_grad}
        self.optimizers = Optimizers(
            self.weights,
            muon_scale=config.muon_scale if config.optimizer == "muon" else None,
            weight_decay=config.weight_decay,
        )
        self.graphs = None
        if config.cuda_graphs:
            if not isinstance(recipe, Drawing):
                raise ValueError(
                    "loop.cuda_graphs is true, but this training cannot be recorded; leave it false"
                )
            self.graphs = CudaGraphs(recipe, list(self.weights.values()), bf16=config.bf16)

    def step(self, step: int, group: Group) -> dict[str, float]:
        """One step on this process's share of the batch and the gradients of all."""
        # Each process draws from a stream of its own, and the one that is saved moves alike in all of them.
        seeds = torch.randint(2**62, (group.size,), generator=self.generator)
        own = torch.Generator().manual_seed(int(seeds[group.rank]))
        self.recipe.modules.train()
        if isinstance(self.recipe, Paced):
            self.recipe.begin(step)
        loss, metrics = self._backward(self.config.batch_size // group.size, own)
        mean = group.average(self.weights.values(), loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), self.config.grad_clip)
        self.optimizers.step(self.config.rate(step))
        return {"loss": float(mean), "grad_norm": float(norm), **metrics}

    def _backward(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss and what else is measured; the gradients are put into the weights."""
        if self.graphs is not None:
            return self.graphs.backward(self.graphs.recipe.draw(batch_size, generator)), {}
        with torch.autocast(_device_type(self.weights), torch.bfloat16, enabled=self.config.bf16):
            loss, metrics = self.recipe.loss(batch_size, generator)
        for p in self.weights.values():
            p.grad = None
        loss.backward()
        return loss, metrics

    def state(self) -> dict[str, Tensor]:
        weights = {f"weights.{name}": p.detach() for name, p in self.weights.items()}
        optimizer = {f"optimizer.{name}": value for name, value in self.optimizers.state().items()}
        return weights | optimizer | {"generator": self.generator.get_state()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, p in self.weights.items():
                p.copy_(state[f"weights.{name}"])
        self.optimizers.load(
            {k.removeprefix("optimizer."): v for k, v in state.items() if k.startswith("optimizer.")}
        )
        self.generator.set_state(state["generator"])


def train(run: Run, recipe: Recipe, config: LoopConfig, *, generator: torch.Generator) -> dict[str, float]:
    """Train to `config.steps`, continuing `run.resumed` exactly; leaves the averaged weights in the modules.

    Returns the last held-out measurement.
    """
    processes = processes_of(config, run.device)
    learner = _Learner(recipe, config, generator)
    weights = learner.weights
    average = {name: p.detach().clone() for name, p in weights.items()}
    first, measured = 0, {}
    if run.resumed is not None:
        first = run.resumed.step
        measured = json.loads(run.resumed.metadata.get("measured", "{}"))
        learner.load(run.resumed.tensors)
        average = {name: run.resumed.tensors[f"average.{name}"].to(p.device) for name, p in weights.items()}

    run.begin_phase("train", config.steps, first)
    with group(processes, _work, recipe, config, learner.state(), first) as members:
        for step in range(first, config.steps):
            metrics = learner.step(step, members)
            done = step + 1
            for name in ("loss", "grad_norm"):
                if not math.isfinite(metrics[name]):
                    raise NonFiniteError(
                        f"{name} is {metrics[name]} at step {done} of the training; the weights diverge: lower "
                        "loop.learning_rate, or give loop.bf16=false"
                    )
            # Early on a long memory would average in the random start.
            decay = min(config.ema_decay, done / (done + 10))
            with torch.no_grad():
                get_ema_multi_avg_fn(decay)(list(average.values()), list(weights.values()), done)
            if done % config.validate_every == 0 or done == config.steps:
                with averaged(weights, average):
                    recipe.modules.eval()
                    measured = recipe.validate()
                run.note(f"step {done}: " + ", ".join(f"{k} {v:.4g}" for k, v in measured.items()))
                metrics |= {f"held_out/{name}": value for name, value in measured.items()}
            run.log(done, metrics)
            if done % run.config.checkpoint_every == 0 or done == config.steps:
                state = learner.state() | {f"average.{name}": value for name, value in average.items()}
                run.save(done, state, {"measured": json.dumps(measured)})
    run.end_phase()
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(average[name])
    recipe.modules.eval()
    return measured


def processes_of(config: LoopConfig, device: torch.device) -> int:
    """How many processes train together."""
    size = launched() if launched() > 1 else config.processes
    if size > 1 and device.type != "cpu":
        raise ValueError(f"{size} processes train together, which is for device=cpu; with {device} start one")
    if config.cuda_graphs and device.type != "cuda":
        raise ValueError(f"loop.cuda_graphs is true, which is for device=cuda, got {device}; leave it false")
    if config.processes not in (1, size):
        raise ValueError(
            f"loop.processes is {config.processes}, but the launcher started {size}; leave it at 1"
        )
    if config.batch_size % size:
        raise ValueError(
            f"loop.batch_size is {config.batch_size}, which the {size} processes cannot share evenly; make it a "
            f"multiple of {size}"
        )
    return size


def _work(group: Group, recipe: Recipe, config: LoopConfig, state: dict[str, Tensor], first: int) -> None:
    """What a further process does: the same steps on other draws, from weights of its own."""
    for p in recipe.modules.parameters():
        p.data = p.data.clone()  # they came as shared memory
    learner = _Learner(recipe, config, torch.Generator())
    learner.load(state)
    for step in range(first, config.steps):
        learner.step(step, group)


def _device_type(weights: Mapping[str, nn.Parameter]) -> str:
    return next(iter(weights.values())).device.type


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
