"""What the stages that fit a representation have in common."""

from __future__ import annotations

import torch

from gen3d.adam import follow_rows
from gen3d.representations.base import GROUP, RepresentationConfig, load
from gen3d.state import State


def finish_step(
    config: RepresentationConfig, state: State, progress: float, generator: torch.Generator
) -> None:
    """Let the state's representation do what it does after a step (`Representation.after_step`), and the optimiser's
    moments follow the rows that it replaces. Call it while the tensors still have the step's gradients."""
    gradients = {name: t.grad for name, t in state.group(GROUP).items() if t.grad is not None}
    representation = load(config, state)
    replaced = representation.after_step(gradients, progress, generator)
    if replaced is None:
        return
    representation.save(state)
    for name, rows in replaced.items():
        follow_rows(state, f"{GROUP}/{name}", rows)
